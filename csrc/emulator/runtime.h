// The CUDA emulator's runtime: runs a kernel compiled as C++ on the CPU, each thread of a block a fiber.
//
// What hardware would punish is found here and reported with block, thread and place: accesses outside of an argument's
// memory, misaligned vector accesses, barriers that not all threads of a block reach, warp functions whose lanes do not
// all take part, too much shared memory. Shared memory starts as NaN, and threads run in a random order between
// barriers, so that a missing barrier changes the results.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fiber.h"

namespace pf_emulator {

struct Index3 {
  unsigned x = 1, y = 1, z = 1;
  unsigned long long count() const { return 1ull * x * y * z; }
};

constexpr int kWarp = 32;
constexpr int kSlotBytes = 64;

// A value that a lane hands to the others of its warp.
struct alignas(16) Slot {
  unsigned char bytes[kSlotBytes];
};

enum class State : std::uint8_t { ready, at_barrier, at_warp, finished };

struct Thread {
  Index3 index;
  unsigned number = 0;  // within the block
  State state = State::ready;
  const char* site = "";   // the barrier or warp function it waits at
  unsigned mask = 0;       // the lanes it waits for
  const Slot* gathered = nullptr;  // what they handed over, by lane
  Fiber* fiber = nullptr;
};

// The thread that is running, and where it is.
extern Thread* current;
extern Index3 block_index, block_shape, grid_shape;

// The last argument of each: the place in the source.
void sync_threads(const char* site);
// Hands `bytes` of `value` to the lanes in `mask`, waits until all of those have done the same, and returns all of the
// warp's slots.
const Slot* exchange(unsigned mask, const void* value, std::size_t bytes, const char* site);
// Shared memory that belongs to `tag`, filled with NaN patterns when the block first asks for it.
void* shared_memory(const void* tag, std::size_t bytes, std::size_t alignment);
void* dynamic_shared_memory();
// Reports an error of the running thread and leaves the kernel; never returns.
[[noreturn]] void fail(const char* format, ...);

using Invoke = void (*)(void** arguments);

struct Launch {
  Invoke invoke = nullptr;
  void** arguments = nullptr;
  Index3 grid, block;
  std::size_t dynamic_shared = 0;
  std::size_t most_shared = 0;  // the device's limit, static and dynamic together
  std::uint64_t seed = 0;
};

// Runs a launch; returns an empty string or what went wrong.
const char* run(const Launch& launch);

// Memory between pages that may not be touched. `offset` (0 to 15): where in 16 bytes the data start; the end lies as
// close to the page as that allows, the bytes between are checked by `guarded_intact`.
void* guarded_new(std::size_t bytes, std::size_t alignment_offset);
const char* guarded_intact(void* data);  // an empty string, or what was overwritten
void guarded_delete(void* data);

}  // namespace pf_emulator
