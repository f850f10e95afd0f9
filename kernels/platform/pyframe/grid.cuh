// Blocks that wait for each other, for cooperative launches: only there all of them run at once. The emulator has a
// file of the same name in its place.
#pragma once

namespace pf {

// Counts one arrival. Whoever waits for it sees what this thread has seen and written before.
__device__ __forceinline__ void grid_arrive(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

constexpr unsigned kMostPolls = 1u << 26;  // half a minute: a look into the L2 cache takes some 0.5 µs

// Waits until there were so many arrivals. Other threads of the block see the same behind a barrier. Blocks that never
// come are an error of the launch: what hangs takes the device from all that use it.
__device__ __forceinline__ void grid_wait(const unsigned* counter, unsigned arrivals) {
  unsigned found, polls = 0;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(counter) : "memory");
    if (++polls == kMostPolls) __trap();
  } while (found < arrivals);
}

}  // namespace pf
