// Threads that go through a sequence of steps together: all parts of a step are done before any of the next begins.
//
// A parallel loop per step would cost its dispatch every time, 5 µs and more; here threads meet at one flag each. Every
// thread has a part of its own, so that what it reads stays in its cache. Nobody relies on another thread being there: a
// part whose owner has not come, or does not get on, is taken over, so a lone thread does everything.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "thread_pool.h"

namespace pyframe {

// Calls body(step, part) for every step in [0, steps) and part in [0, parts). It must not throw.
template <class Body>
void run_steps(std::int64_t steps, std::int64_t parts, const Body& body) {
  struct alignas(64) Part {
    std::atomic<std::int64_t> begun{0}, done{0};  // steps
    std::atomic<bool> present{false};             // whether its owner has come
  };
  const std::unique_ptr<Part[]> team(new Part[parts]);
  const auto run = [&](std::int64_t part, std::int64_t step) {
    std::int64_t expected = step;
    if (!team[part].begun.compare_exchange_strong(expected, step + 1, std::memory_order_acq_rel)) return;
    body(step, part);
    team[part].done.store(step + 1, std::memory_order_release);
  };
  parallel_for(0, parts, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t me = first; me < last; ++me) {
      team[me].present.store(true, std::memory_order_relaxed);
      for (std::int64_t step = 0; step < steps; ++step) {
        run(me, step);
        for (std::int64_t i = 0; i < parts; ++i) {
          const std::int64_t other = (me + i) % parts;
          for (int waited = 0; team[other].done.load(std::memory_order_acquire) <= step; ++waited) {
            constexpr int kPatience = 1 << 10;  // some 20 µs: then the owner has probably lost its CPU
            if (!team[other].present.load(std::memory_order_relaxed) || waited == kPatience) run(other, step);
            else if (waited > kPatience) std::this_thread::yield();
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
          }
        }
      }
    }
  });
}

}  // namespace pyframe
