// The CUDA emulator's runtime: runs a kernel compiled as C++ on the CPU, each thread of a block a fiber.
//
// What hardware would punish is found here and reported with block, thread and line:
//  * scheduler.cpp: barriers that not all threads of a block reach, warp functions whose lanes do not all take part,
//    blocks of a cooperative launch that wait for each other for ever;
//  * checks.cpp: each access to an argument or to shared memory, for its bounds, for values that nobody wrote and for
//    other threads that touch the same place with no barrier between (the compiler calls a function for each access);
//  * faults.cpp: misaligned vector accesses, indices outside of arrays, integer overflow, stack overflow.
// Besides, threads and blocks run in a random order and shared memory starts as NaN, so that what depends on either
// changes the results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "fiber.h"

namespace pf_emulator {

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr Index3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
  unsigned long long count() const { return 1ull * x * y * z; }
};

constexpr unsigned kWarp = 32;
constexpr std::size_t kSlotBytes = 64;

// A value that a lane hands to the others of its warp.
struct alignas(16) Slot {
  unsigned char bytes[kSlotBytes];
};

enum class State : std::uint8_t { ready, at_barrier, at_warp, at_phase, at_grid, finished };

// A cp.async copy that has not landed yet.
struct PendingCopy {
  void* target;
  unsigned bytes, group;
  unsigned char values[16];
};

struct Thread {
  Index3 index;
  unsigned number = 0;  // within the block
  State state = State::ready;
  const char* site = "";           // the barrier or warp function it waits at
  unsigned mask = 0;               // the lanes it waits for
  bool orders = false;             // whether that also orders memory accesses
  int predicate = 0;               // what it brings to __syncthreads_count and its like
  const Slot* gathered = nullptr;  // what they handed over, by lane
  Fiber* fiber = nullptr;
  std::vector<PendingCopy> copies;
  unsigned group = 0;  // cp.async groups committed so far
  unsigned parity = 0;      // of the phase of an mbarrier that it waits for
  bool phase_over = false;  // it was over at some time since
  const unsigned* arrived = nullptr;  // the blocks that have; it waits for `expected` of them
  unsigned expected = 0;
};

// The thread that is running, and where it is.
extern Thread* current;
extern Index3 block_index, block_shape, grid_shape;

// `site`: the function and its place in the source.
void sync_threads(const char* site);
// A barrier that also counts the threads whose predicate holds.
int sync_threads_count(const char* site, int predicate);
// Hands `bytes` of `value` to the lanes in `mask`, waits until all of those have done the same, and returns all of the
// warp's slots. `orders`: whether memory accesses before it are seen by all of these lanes after it.
const Slot* exchange(unsigned mask, const void* value, std::size_t bytes, const char* site, bool orders = false);
// Shared memory that belongs to `tag`, filled with NaN patterns when the block first asks for it.
void* shared_memory(const void* tag, std::size_t bytes, std::size_t alignment);
void* dynamic_shared_memory();

// pending: what a cp.async copy is still to write.
enum class Kind : std::uint16_t { none, read, write, atomic, pending };
// An access by the running thread that the compiler does not report: checked as if it had. `site` names it.
void touch(const void* address, std::size_t bytes, Kind kind, const char* site);
void fence();                        // __threadfence
void atomic_done(const void* address);  // orders blocks that meet at `address` after a fence
bool is_shared(const void* address);

// Blocks of a cooperative launch that wait for each other by a count in global memory.
void count_arrival(unsigned* counter, const char* site);
void wait_for_arrivals(const unsigned* counter, unsigned arrivals, const char* site);

// cp.async of `bytes` (4, 8 or 16), the last `bytes - used` of them zeros.
void copy_async(void* target, const void* source, unsigned bytes, unsigned used, const char* site);
void copy_commit();
void copy_wait(unsigned most_pending);
void copy_wait_all();

// Reports an error of the running thread and leaves the kernel; never returns.
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);

using Invoke = void (*)(void** arguments);

struct Launch {
  Invoke invoke = nullptr;
  void** arguments = nullptr;
  Index3 grid, block;
  std::size_t dynamic_shared = 0;
  std::size_t most_shared = 0;  // the device's limit, static and dynamic together
  std::uint64_t seed = 0;
  bool cooperative = false;  // its blocks run side by side and may wait for each other; else one after the other
};

// Runs a launch; returns an empty string or what went wrong. `<0x12>` in it is a place in the kernel's library.
const char* run(const Launch& launch);

// Memory between pages that may not be touched. `alignment_offset` (0 to 15): where in 16 bytes the data start; the
// end lies as close to the page as that allows. `element`: 1, 2, 4 or 8 bytes, what threads may write at a time.
void* guarded_new(std::size_t bytes, std::size_t alignment_offset, std::size_t element);
const char* guarded_intact(void* data);  // an empty string, or what was overwritten
void guarded_delete(void* data);

}  // namespace pf_emulator
