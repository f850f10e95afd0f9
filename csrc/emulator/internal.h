// What the parts of the runtime know of each other; kernels do not see it.
#pragma once

#include <csetjmp>
#include <map>
#include <string>

#include "runtime.h"

namespace pf_emulator {

constexpr unsigned char kPoison = 0xff;  // a NaN in every floating point format, -1 in integers

extern std::string message;  // of the launch; empty while all is well
extern const Launch* running;
std::string place(const Thread& thread);
std::string place_of(unsigned block, unsigned thread);  // by their numbers

// ---------------------------------------------------------------- memory.cpp

struct Cell;

// Memory that kernels may touch: an argument, or the block's shared memory.
struct Area {
  char* mapping = nullptr;  // all of it, with what lies around the data
  std::size_t mapped = 0;
  char* data = nullptr;
  std::size_t bytes = 0;
  unsigned shift = 0;     // log2 of the bytes per cell
  Cell* cells = nullptr;  // who touched what
};

extern std::map<void*, Area> arguments;  // by their data
std::size_t page_size();

// Goes on with the shared memory of block `slot` of those that run side by side.
void select_shared(std::size_t slot);
// Gives the next block its shared memory; nothing of it is initialised.
void reset_shared(std::size_t dynamic_bytes, std::size_t most);
bool shared_intact();
// The area at `address`, or null.
Area* find_area(const char* address);
Area& shared_area();
// Why `bytes` at `offset` of the shared memory may not be touched, or an empty string.
const char* outside_of_shared(std::size_t offset, std::size_t bytes);

// ---------------------------------------------------------------- checks.cpp

void checks_start_launch();
void checks_select(std::size_t slot);  // goes on with what is known of this block, of those that run side by side
void checks_start_block();
void checks_barrier();                                  // all threads of the block passed one
void checks_warp(unsigned first_thread, unsigned mask);  // these lanes did
void forget_cells(Area& area);
std::uint32_t block_serial();            // of the running block, over all launches
std::uint32_t last_barrier();            // what its threads did before, all of them see
std::uint32_t tick();                    // accesses from now on have this time or a later one
std::uint32_t seen_of(unsigned thread);  // up to which time the running thread sees what that one of its block did

// Up to which time a thread's accesses are seen, by thread; empty: nothing. Behind the threads come the copy engines,
// one for each mbarrier: what it writes is ordered by that barrier's phases alone.
using Clock = std::vector<std::uint32_t>;
constexpr unsigned kEngines = 64;
void clock_release(Clock& into);                          // all that the running thread sees, and its own accesses
void clock_release_engine(Clock& into, unsigned engine);  // what the engine has written
void clock_acquire(unsigned thread, const Clock& from);   // the thread sees that too
void engine_wrote(const void* address, std::size_t bytes, unsigned engine);
// A read of shared memory by the asynchronous proxy: what threads wrote there must be fenced.
void async_read(const void* address, std::size_t bytes, const char* site);

// ---------------------------------------------------------------- cooperative.cpp

// What threads have seen of other blocks in a cooperative launch, as far as they told each other by atomics.
void grid_checks_start_launch();
void grid_fence();                           // by the running thread
void grid_release(const void* address, bool all);  // tells what the thread has seen; else what it had at its fence
void grid_acquire(const void* address);      // hears what was told at this address
bool grid_ordered(std::uint32_t block, unsigned thread, std::uint32_t time);

// ---------------------------------------------------------------- faults.cpp

extern sigjmp_buf after_fault;
extern volatile int in_kernel;
extern char fault_text[256];

// Installs signal handlers for the length of a launch.
class Handlers {
 public:
  Handlers();
  ~Handlers();
};

// ---------------------------------------------------------------- copies.cpp

void copies_at_exit();  // of the running thread

// ---------------------------------------------------------------- barriers.cpp

void barriers_start_block();
unsigned engine_of(const void* barrier, const char* site);
void bytes_landed(const void* barrier, std::uint64_t bytes);

// ---------------------------------------------------------------- tensor_copies.cpp

void tensor_copies_start_block();
std::string tensor_copies_at_end();  // of the block: what is wrong, or empty
bool land_one(std::uint64_t random);  // one of the loads under way, if there is any
// The 16-byte piece of `offset` in shared memory moved within 8 spans of 32, 64 or 128 bytes (0: not at all).
std::uint64_t swizzle_offset(std::uint64_t offset, unsigned span);

// ---------------------------------------------------------------- warpgroup.cpp

void warpgroups_start_block();
void products_at_exit();  // of the running thread

// ---------------------------------------------------------------- scheduler.cpp

// Lets others run until what the running thread waits for has happened.
void suspend(State state, const char* site);

}  // namespace pf_emulator
