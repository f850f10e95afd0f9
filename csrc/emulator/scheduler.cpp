// Blocks, threads, barriers and warps: who runs when.
#include "internal.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <random>
#include <utility>

namespace pf_emulator {

Thread* current = nullptr;
Index3 block_index, block_shape, grid_shape;
std::string message;
const Launch* running = nullptr;

namespace {

std::vector<Thread> threads;
std::vector<Slot> deposits;  // what each thread hands over
// What the lanes of one warp function have handed over, kept until all of them have read it, which they do when they
// run next.
std::vector<std::vector<Slot>> gathered;
std::size_t gathered_used = 0;
int barrier_count = 0;  // what __syncthreads_count found
Fiber scheduler;

void wait(State state, const char* site, unsigned mask) {
  Thread& self = *current;
  self.state = state, self.site = site, self.mask = mask;
  switch_fiber(*self.fiber, scheduler);
}

void thread_main() {
  fiber_started(scheduler);
  running->invoke(running->arguments);
  copies_at_exit();
  products_at_exit();
  current->state = State::finished;
  switch_fiber(*current->fiber, scheduler);
  std::abort();  // a finished thread is never resumed
}

// Lets the lanes go on that have all arrived at the same warp function.
void release_warp(unsigned first, unsigned lanes) {
  for (unsigned lane = 0; lane < lanes; ++lane) {
    const Thread& leader = threads[first + lane];
    if (leader.state != State::at_warp) continue;
    bool all = true;
    for (unsigned other = 0; other < kWarp && all; ++other) {
      if (!(leader.mask >> other & 1)) continue;
      if (other >= lanes) {
        message = place(leader) + ": " + leader.site + " names lanes that the block does not have";
        return;
      }
      const Thread& peer = threads[first + other];
      if (peer.state == State::finished) {
        message = place(leader) + ": " + leader.site + " names lane " + std::to_string(other) +
                  ", which has left the kernel";
        return;
      }
      all = peer.state == State::at_warp && peer.mask == leader.mask && std::strcmp(peer.site, leader.site) == 0;
    }
    if (!all) continue;
    if (gathered_used == gathered.size()) gathered.emplace_back(kWarp);
    std::vector<Slot>& row = gathered[gathered_used++];
    std::copy_n(deposits.begin() + first, lanes, row.begin());
    const unsigned mask = leader.mask;
    if (leader.orders) checks_warp(first, mask);
    for (unsigned other = 0; other < lanes; ++other) {
      if (mask >> other & 1) threads[first + other].state = State::ready, threads[first + other].gathered = row.data();
    }
  }
}

// Lets all threads go on where every one is at the same barrier.
void release_barrier() {
  const Thread* first = nullptr;
  unsigned finished = 0;
  for (const Thread& thread : threads) {
    finished += thread.state == State::finished;
    if (thread.state == State::finished) continue;
    if (thread.state != State::at_barrier) return;
    if (!first) first = &thread;
    if (std::strcmp(first->site, thread.site) != 0) {
      message = place(thread) + " is at the barrier " + thread.site + ", but " + place(*first) + " at " + first->site;
      return;
    }
  }
  if (first && finished) {
    message = place(*first) + " is at the barrier " + first->site + ", but " + std::to_string(finished) +
              " threads of the block have left the kernel";
    return;
  }
  barrier_count = 0;
  for (Thread& thread : threads) {
    if (thread.state != State::at_barrier) continue;
    thread.state = State::ready;
    barrier_count += thread.predicate != 0;
  }
  checks_barrier();
}

// Lets the threads go on whose phase is complete.
void release_waiting() {
  for (Thread& thread : threads) {
    if (thread.state == State::at_phase && thread.phase_over) thread.state = State::ready;
  }
}

void report_deadlock() {
  std::map<std::string, std::pair<unsigned, const Thread*>> waiting;
  unsigned finished = 0;
  for (const Thread& thread : threads) {
    if (thread.state == State::finished) {
      ++finished;
      continue;
    }
    auto& entry = waiting[thread.site];
    ++entry.first, entry.second = &thread;
  }
  message = "threads wait for each other for ever:";
  for (const auto& [site, entry] : waiting) {
    message += " " + std::to_string(entry.first) + " at " + site + " (one is " + place(*entry.second) + ");";
  }
  message += " " + std::to_string(finished) + " have finished";
}

void run_block(std::mt19937_64& random) {
  const auto count = static_cast<unsigned>(running->block.count());
  Fiber* const stacks = fiber_stacks(count);
  threads.assign(count, Thread{});
  deposits.resize(count);
  reset_shared(running->dynamic_shared, running->most_shared);
  checks_start_block();
  barriers_start_block();
  tensor_copies_start_block();
  warpgroups_start_block();
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.number = i;
    thread.index = Index3(i % block_shape.x, i / block_shape.x % block_shape.y, i / block_shape.x / block_shape.y);
    thread.fiber = &stacks[i];
    prepare_fiber(stacks[i], thread_main);
  }
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) order[i] = i;
  for (;;) {
    gathered_used = 0;
    for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[static_cast<std::uint32_t>(random()) % i]);
    bool any = false;
    unsigned finished = 0;
    for (const unsigned i : order) {
      Thread& thread = threads[i];
      if (thread.state == State::ready) {
        any = true;
        current = &thread;
        switch_fiber(scheduler, *thread.fiber);
        if (!message.empty()) return;
      }
      finished += thread.state == State::finished;
    }
    if (finished == count) break;
    for (unsigned first = 0; first < count && message.empty(); first += kWarp) {
      release_warp(first, std::min(kWarp, count - first));
    }
    if (message.empty()) release_barrier();
    // A tensor copy lands now and then, and certainly when all wait.
    const bool landed = message.empty() && (!any || random() % 2 == 0) && land_one(random());
    release_waiting();
    if (message.empty() && !any && !landed) {
      const auto ready = [](const Thread& thread) { return thread.state == State::ready; };
      if (std::none_of(threads.begin(), threads.end(), ready)) report_deadlock();
    }
    if (!message.empty()) return;
  }
  message = tensor_copies_at_end();
  if (!message.empty()) message = place_of(~0u, 0) + ": " + message;
  if (message.empty() && !shared_intact()) message = place_of(~0u, 0) + " or another one wrote outside of its shared memory";
}

// Why the device would not start this launch.
std::string refused(const Launch& launch) {
  const Index3 &block = launch.block, &grid = launch.grid;
  if (block.count() == 0 || block.count() > 1024) {
    return "a block has 1 to 1024 threads, not " + std::to_string(block.count());
  }
  if (block.z > 64) return "a block has at most 64 threads along z";
  if (grid.count() == 0) return "a grid has at least one block";
  if (grid.x > 0x7fffffffu) return "a grid has at most 2147483647 blocks along x";
  if (grid.y > 65535 || grid.z > 65535) return "a grid has at most 65535 blocks along y and z";
  if (launch.dynamic_shared > launch.most_shared) {
    return std::to_string(launch.dynamic_shared) + " bytes of dynamic shared memory; this device has " +
           std::to_string(launch.most_shared) + " for a block";
  }
  return "";
}

}  // namespace

std::string place_of(unsigned block, unsigned thread) {
  const auto index = [](unsigned i, const Index3& shape) {
    return "(" + std::to_string(i % shape.x) + ", " + std::to_string(i / shape.x % shape.y) + ", " +
           std::to_string(i / shape.x / shape.y) + ")";
  };
  const unsigned here = block_index.x + grid_shape.x * (block_index.y + grid_shape.y * block_index.z);
  return "block " + index(block == ~0u ? here : block, grid_shape) + ", thread " + index(thread, block_shape);
}

std::string place(const Thread& thread) { return place_of(~0u, thread.number); }

void suspend(State state, const char* site) { wait(state, site, 0); }

void sync_threads(const char* site) {
  current->predicate = 0;
  wait(State::at_barrier, site, 0);
}

int sync_threads_count(const char* site, int predicate) {
  current->predicate = predicate;
  wait(State::at_barrier, site, 0);
  return barrier_count;  // the next barrier is not released before this thread has arrived there too
}

const Slot* exchange(unsigned mask, const void* value, std::size_t bytes, const char* site, bool orders) {
  const unsigned lane = current->number % kWarp;
  if (!(mask >> lane & 1)) fail("%s is called by lane %u, which its mask 0x%x does not name", site, lane, mask);
  if (bytes) std::memcpy(deposits[current->number].bytes, value, bytes);
  current->orders = orders;
  wait(State::at_warp, site, mask);
  return current->gathered;
}

void fail(const char* format, ...) {
  char text[640];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  message = place(*current) + ": " + text;
  switch_fiber(*current->fiber, scheduler);
  std::abort();  // a failed launch is never resumed
}

const char* run(const Launch& launch) {
  static std::mutex one_at_a_time;
  static std::string result;
  std::lock_guard<std::mutex> lock(one_at_a_time);
  running = &launch;
  block_shape = launch.block, grid_shape = launch.grid;
  message = refused(launch);
  std::mt19937_64 random(launch.seed);
  std::vector<unsigned long long> order(message.empty() ? launch.grid.count() : 0);
  for (unsigned long long i = 0; i < order.size(); ++i) order[i] = i;
  for (unsigned long long i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  checks_start_launch();
  Handlers handlers;
  if (sigsetjmp(after_fault, 1) == 0) {
    in_kernel = 1;
    for (const unsigned long long i : order) {
      block_index = Index3(static_cast<unsigned>(i % grid_shape.x), static_cast<unsigned>(i / grid_shape.x % grid_shape.y),
                           static_cast<unsigned>(i / grid_shape.x / grid_shape.y));
      run_block(random);
      if (!message.empty()) break;
    }
  } else {
    message = place(*current) + " " + fault_text;
  }
  in_kernel = 0;
  result = message;
  return result.c_str();
}

}  // namespace pf_emulator
