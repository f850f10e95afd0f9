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

// A block that runs, or whose threads all wait.
struct Block {
  Index3 index;
  std::vector<Thread> threads;
  std::vector<unsigned> order;  // in which they run
  std::vector<Slot> deposits;   // what each thread hands over
  // What the lanes of one warp function have handed over, kept until all of them have read it, which they do when they
  // run next.
  std::vector<std::vector<Slot>> gathered;
  std::size_t gathered_used = 0;
  int barrier_count = 0;  // what __syncthreads_count found
  bool over = false;
};

// What a cooperative launch has to fit into: multiprocessors of an H100, with so many threads and bytes of shared memory.
constexpr std::size_t kMultiprocessors = 132, kThreadsAtOnce = 2048, kSharedAtOnce = 228 << 10, kReserved = 1 << 10;

std::vector<Block> blocks;  // side by side; in an ordinary launch one
Block* block = nullptr;     // the one that runs
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
    const Thread& leader = block->threads[first + lane];
    if (leader.state != State::at_warp) continue;
    bool all = true;
    for (unsigned other = 0; other < kWarp && all; ++other) {
      if (!(leader.mask >> other & 1)) continue;
      if (other >= lanes) {
        message = place(leader) + ": " + leader.site + " names lanes that the block does not have";
        return;
      }
      const Thread& peer = block->threads[first + other];
      if (peer.state == State::finished) {
        message = place(leader) + ": " + leader.site + " names lane " + std::to_string(other) +
                  ", which has left the kernel";
        return;
      }
      all = peer.state == State::at_warp && peer.mask == leader.mask && std::strcmp(peer.site, leader.site) == 0;
    }
    if (!all) continue;
    if (block->gathered_used == block->gathered.size()) block->gathered.emplace_back(kWarp);
    std::vector<Slot>& row = block->gathered[block->gathered_used++];
    std::copy_n(block->deposits.begin() + first, lanes, row.begin());
    const unsigned mask = leader.mask;
    if (leader.orders) checks_warp(first, mask);
    for (unsigned other = 0; other < lanes; ++other) {
      Thread& peer = block->threads[first + other];
      if (mask >> other & 1) peer.state = State::ready, peer.gathered = row.data();
    }
  }
}

// Lets all threads go on where every one is at the same barrier.
void release_barrier() {
  const Thread* first = nullptr;
  unsigned finished = 0;
  for (const Thread& thread : block->threads) {
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
  block->barrier_count = 0;
  for (Thread& thread : block->threads) {
    if (thread.state != State::at_barrier) continue;
    thread.state = State::ready;
    block->barrier_count += thread.predicate != 0;
  }
  checks_barrier();
}

// Lets the threads go on whose phase is complete, or for which enough blocks have arrived.
void release_waiting() {
  for (Thread& thread : block->threads) {
    if (thread.state == State::at_phase && thread.phase_over) thread.state = State::ready;
    if (thread.state == State::at_grid && *thread.arrived >= thread.expected) thread.state = State::ready;
  }
}

void select(std::size_t slot) {
  block = &blocks[slot];
  block_index = block->index;
  select_shared(slot);
  checks_select(slot);
}

void report_deadlock() {
  struct Waiting {
    unsigned count = 0;
    std::string one;
  };
  std::map<std::string, Waiting> waiting;
  unsigned finished = 0;
  std::string gone;  // a block that no other can wait for
  for (std::size_t slot = 0; slot < blocks.size(); ++slot) {
    select(slot);
    for (const Thread& thread : block->threads) {
      if (thread.state == State::finished) {
        ++finished;
        continue;
      }
      Waiting& entry = waiting[thread.site];
      ++entry.count, entry.one = place(thread);
      if (thread.state != State::at_grid) continue;
      entry.one += ", for " + std::to_string(thread.expected) + " arrivals, of which there are " +
                   std::to_string(*thread.arrived);
    }
    if (block->over) gone = place(block->threads[0]);
  }
  message = "threads wait for each other for ever:";
  for (const auto& [site, entry] : waiting) {
    message += " " + std::to_string(entry.count) + " at " + site + " (one is " + entry.one + ");";
  }
  message += " " + std::to_string(finished) + " have finished";
  if (!gone.empty()) message += " (all of the block of " + gone + ")";
}

void start_block(unsigned long long number, Fiber* stacks) {
  const auto count = static_cast<unsigned>(running->block.count());
  block_index = block->index = Index3(static_cast<unsigned>(number % grid_shape.x),
                                      static_cast<unsigned>(number / grid_shape.x % grid_shape.y),
                                      static_cast<unsigned>(number / grid_shape.x / grid_shape.y));
  block->over = false;
  block->threads.assign(count, Thread{});
  block->deposits.resize(count);
  reset_shared(running->dynamic_shared, running->most_shared);
  checks_start_block();
  barriers_start_block();
  tensor_copies_start_block();
  warpgroups_start_block();
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = block->threads[i];
    thread.number = i;
    thread.index = Index3(i % block_shape.x, i / block_shape.x % block_shape.y, i / block_shape.x / block_shape.y);
    thread.fiber = &stacks[i];
    prepare_fiber(stacks[i], thread_main);
  }
  block->order.resize(count);
  for (unsigned i = 0; i < count; ++i) block->order[i] = i;
}

void finish_block() {
  block->over = true;
  message = tensor_copies_at_end();
  if (!message.empty()) message = place_of(~0u, 0) + ": " + message;
  if (message.empty() && !shared_intact()) message = place_of(~0u, 0) + " or another one wrote outside of its shared memory";
}

// Runs each thread of the block that can go on until it waits; whether there was any, or there is one now.
bool run_round(std::mt19937_64& random) {
  std::vector<Thread>& threads = block->threads;
  std::vector<unsigned>& order = block->order;
  const auto count = static_cast<unsigned>(threads.size());
  block->gathered_used = 0;
  for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[static_cast<std::uint32_t>(random()) % i]);
  bool any = false;
  unsigned finished = 0;
  for (const unsigned i : order) {
    Thread& thread = threads[i];
    if (thread.state == State::ready) {
      any = true;
      current = &thread;
      switch_fiber(scheduler, *thread.fiber);
      if (!message.empty()) return true;
    }
    finished += thread.state == State::finished;
  }
  if (finished == count) {
    finish_block();
    return true;
  }
  for (unsigned first = 0; first < count && message.empty(); first += kWarp) {
    release_warp(first, std::min(kWarp, count - first));
  }
  if (message.empty()) release_barrier();
  // A tensor copy lands now and then, and certainly when all wait.
  const bool landed = message.empty() && (!any || random() % 2 == 0) && land_one(random());
  release_waiting();
  const auto ready = [](const Thread& thread) { return thread.state == State::ready; };
  return any || landed || std::any_of(threads.begin(), threads.end(), ready);
}

// One block after the other.
void run_in_turn(const std::vector<unsigned long long>& order, std::mt19937_64& random) {
  blocks.resize(1);
  select(0);
  Fiber* const stacks = fiber_stacks(running->block.count());
  for (const unsigned long long number : order) {
    start_block(number, stacks);
    while (!block->over && message.empty()) {
      if (!run_round(random) && message.empty()) report_deadlock();
    }
    if (!message.empty()) return;
  }
}

// All blocks side by side: one is left for another when its threads all wait, or at random.
void run_side_by_side(std::vector<unsigned long long> order, std::mt19937_64& random) {
  const std::size_t count = order.size(), threads = running->block.count();
  blocks.resize(count);
  Fiber* const stacks = fiber_stacks(count * threads);
  for (const unsigned long long number : order) {
    select(number);
    start_block(number, stacks + number * threads);
  }
  for (std::size_t over = 0; over < count;) {
    bool any = false;
    for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    for (const unsigned long long number : order) {
      if (blocks[number].over) continue;
      select(number);
      do {
        if (!run_round(random)) break;
        any = true;
      } while (message.empty() && !block->over && random() % 8);
      if (!message.empty()) return;
      over += block->over;
    }
    if (!any && over < count) {
      report_deadlock();
      return;
    }
  }
}

// Why the device would not start this launch.
std::string refused(const Launch& launch) {
  const Index3 &shape = launch.block, &grid = launch.grid;
  if (shape.count() == 0 || shape.count() > 1024) {
    return "a block has 1 to 1024 threads, not " + std::to_string(shape.count());
  }
  if (shape.z > 64) return "a block has at most 64 threads along z";
  if (grid.count() == 0) return "a grid has at least one block";
  if (grid.x > 0x7fffffffu) return "a grid has at most 2147483647 blocks along x";
  if (grid.y > 65535 || grid.z > 65535) return "a grid has at most 65535 blocks along y and z";
  if (launch.dynamic_shared > launch.most_shared) {
    return std::to_string(launch.dynamic_shared) + " bytes of dynamic shared memory; this device has " +
           std::to_string(launch.most_shared) + " for a block";
  }
  if (!launch.cooperative) return "";
  const std::size_t by_threads = kThreadsAtOnce / shape.count();
  const std::size_t each = std::min(by_threads, kSharedAtOnce / (launch.dynamic_shared + kReserved));
  if (grid.count() <= kMultiprocessors * each) return "";
  return "a cooperative launch of " + std::to_string(grid.count()) + " blocks; " + std::to_string(kMultiprocessors) +
         " multiprocessors hold " + std::to_string(each) + " of these each";
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
  return block->barrier_count;  // the next barrier is not released before this thread has arrived there too
}

const Slot* exchange(unsigned mask, const void* value, std::size_t bytes, const char* site, bool orders) {
  const unsigned lane = current->number % kWarp;
  if (!(mask >> lane & 1)) fail("%s is called by lane %u, which its mask 0x%x does not name", site, lane, mask);
  if (bytes) std::memcpy(block->deposits[current->number].bytes, value, bytes);
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
  grid_checks_start_launch();
  Handlers handlers;
  if (sigsetjmp(after_fault, 1) == 0) {
    in_kernel = 1;
    if (launch.cooperative) {
      run_side_by_side(std::move(order), random);
    } else {
      run_in_turn(order, random);
    }
  } else {
    message = place(*current) + " " + fault_text;
  }
  in_kernel = 0;
  result = message;
  return result.c_str();
}

}  // namespace pf_emulator
