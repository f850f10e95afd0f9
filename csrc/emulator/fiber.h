// Fibers: stacks that a scheduler switches between by hand. A switch costs a few nanoseconds, where ucontext's costs a
// system call.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace pf_emulator {

struct Fiber {
  void* stack_pointer = nullptr;  // where it goes on
  void* stack = nullptr;          // lowest usable address
  std::size_t size = 0;
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
#endif
};

// Leaves `from` and goes on with `to`, until something switches back.
void switch_fiber(Fiber& from, Fiber& to);

// Lays out `fiber`'s stack so that the first switch to it calls `main`, which must never return.
void prepare_fiber(Fiber& fiber, void (*main)());

// Must be the first thing that `main` does. `from`: the fiber that switched here.
void fiber_started(Fiber& from);

// Stacks with a page below each that may not be touched; kept for reuse for the life of the process.
Fiber* fiber_stacks(std::size_t count);

// Whether `address` is on one of those pages: a stack overflow.
bool is_stack_guard(const void* address);

}  // namespace pf_emulator
