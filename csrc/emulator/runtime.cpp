#include "runtime.h"

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

namespace pf_emulator {

Thread* current = nullptr;
Index3 block_index, block_shape, grid_shape;

namespace {

constexpr unsigned char kPoison = 0xff;  // a NaN in every floating point format, -1 in integers
constexpr std::size_t kStaticLimit = 48 << 10;
constexpr std::size_t kCanary = 64;  // bytes behind each piece of shared memory

std::string message;  // of the launch; empty while all is well
sigjmp_buf after_fault;
volatile sig_atomic_t in_kernel = 0;

// ---------------------------------------------------------------- shared memory

struct Shared {
  std::vector<unsigned char> memory;
  std::vector<std::pair<const void*, std::size_t>> pieces;  // tag, offset
  std::vector<std::size_t> canaries;
  std::size_t used = 0, counted = 0, dynamic = 0, limit = 0;

  void reset(std::size_t dynamic_bytes, std::size_t most) {
    limit = most;
    memory.assign(most + 64 * (kCanary + 128) + 128, kPoison);
    pieces.clear(), canaries.clear();
    const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
    used = (128 - start % 128) % 128;
    counted = 0;
    dynamic = used;
    used += dynamic_bytes;
    canaries.push_back(used);
    used += kCanary;
    counted += dynamic_bytes;
    dynamic_size = dynamic_bytes;
  }

  void* piece(const void* tag, std::size_t bytes, std::size_t alignment) {
    for (const auto& [known, offset] : pieces) {
      if (known == tag) return memory.data() + offset;
    }
    counted += bytes;
    if (counted - dynamic_size > kStaticLimit) {
      fail("%zu bytes of static shared memory; 48 KB are the limit", counted - dynamic_size);
    }
    if (counted > limit) fail("%zu bytes of shared memory; this device has %zu for a block", counted, limit);
    const auto start = reinterpret_cast<std::uintptr_t>(memory.data()) + used;
    used += (alignment - start % alignment) % alignment;
    pieces.emplace_back(tag, used);
    void* const found = memory.data() + used;
    used += bytes;
    canaries.push_back(used);
    used += kCanary;
    return found;
  }

  bool intact() const {
    for (const std::size_t at : canaries) {
      for (std::size_t i = 0; i < kCanary; ++i) {
        if (memory[at + i] != kPoison) return false;
      }
    }
    return true;
  }

  std::size_t dynamic_size = 0;
};

Shared shared;

// ---------------------------------------------------------------- the block that is running

const Launch* running = nullptr;
std::vector<Thread> threads;
std::vector<Slot> deposits;   // what each thread hands over
// What the lanes of one warp function have handed over, kept until all of them have read it: within a round of the
// scheduler, hence one row per warp and lane at most.
std::vector<std::vector<Slot>> gathered;
std::size_t gathered_used = 0;
Fiber scheduler;

void wait(State state, const char* site, unsigned mask) {
  Thread& self = *current;
  self.state = state, self.site = site, self.mask = mask;
  switch_fiber(*self.fiber, scheduler);
  if (!message.empty()) switch_fiber(*current->fiber, scheduler);
}

void thread_main() {
  fiber_started(scheduler);
  running->invoke(running->arguments);
  current->state = State::finished;
  switch_fiber(*current->fiber, scheduler);
  std::abort();  // a finished thread is never resumed
}

std::string place(const Thread& thread) {
  char text[160];
  std::snprintf(text, sizeof text, "block (%u, %u, %u), thread (%u, %u, %u)", block_index.x, block_index.y,
                block_index.z, thread.index.x, thread.index.y, thread.index.z);
  return text;
}

// Lets the lanes go on that have all arrived at the same warp function.
void release_warps() {
  const unsigned count = static_cast<unsigned>(threads.size());
  for (unsigned first = 0; first < count; first += kWarp) {
    const unsigned lanes = std::min<unsigned>(kWarp, count - first);
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
        all = peer.state == State::at_warp && peer.mask == leader.mask && std::strcmp(peer.site, leader.site) == 0;
      }
      if (!all) continue;
      if (gathered_used == gathered.size()) gathered.emplace_back(kWarp);
      std::vector<Slot>& row = gathered[gathered_used++];
      for (unsigned other = 0; other < lanes; ++other) row[other] = deposits[first + other];
      const unsigned mask = leader.mask;
      for (unsigned other = 0; other < lanes; ++other) {
        if (mask >> other & 1) threads[first + other].state = State::ready, threads[first + other].gathered = row.data();
      }
    }
  }
}

// Lets all threads go on where every one that has not finished is at the same barrier.
void release_barrier() {
  const char* site = nullptr;
  const Thread* first = nullptr;
  for (const Thread& thread : threads) {
    if (thread.state == State::finished) continue;
    if (thread.state != State::at_barrier) return;
    if (!site) site = thread.site, first = &thread;
    if (std::strcmp(site, thread.site) != 0) {
      message = place(thread) + " is at the barrier " + thread.site + ", but " + place(*first) + " at " + site;
      return;
    }
  }
  for (Thread& thread : threads) {
    if (thread.state == State::at_barrier) thread.state = State::ready;
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
  const unsigned count = static_cast<unsigned>(running->block.count());
  Fiber* const stacks = fiber_stacks(count);
  threads.assign(count, Thread{});
  deposits.resize(count);
  shared.reset(running->dynamic_shared, running->most_shared);
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = threads[i];
    thread.number = i;
    thread.index.x = i % block_shape.x;
    thread.index.y = i / block_shape.x % block_shape.y;
    thread.index.z = i / block_shape.x / block_shape.y;
    thread.fiber = &stacks[i];
    prepare_fiber(stacks[i], thread_main);
  }
  std::vector<unsigned> order(count);
  for (unsigned i = 0; i < count; ++i) order[i] = i;
  for (;;) {
    // Warp functions come in quick succession: their lanes go on without another shuffle of the whole block.
    gathered_used = 0;
    for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    bool any = false;
    unsigned finished = 0;
    for (const unsigned i : order) {
      Thread& thread = threads[i];
      finished += thread.state == State::finished;
      if (thread.state != State::ready) continue;
      any = true;
      current = &thread;
      switch_fiber(scheduler, *thread.fiber);
      if (!message.empty()) return;
    }
    if (finished == count) break;
    release_warps();
    if (message.empty()) release_barrier();
    if (message.empty() && !any) {
      bool ready = false;
      for (const Thread& thread : threads) ready |= thread.state == State::ready;
      if (!ready) report_deadlock();
    }
    if (!message.empty()) return;
  }
  if (!shared.intact()) {
    char text[96];
    std::snprintf(text, sizeof text, "block (%u, %u, %u) wrote outside of its shared memory", block_index.x,
                  block_index.y, block_index.z);
    message = text;
  }
}

// ---------------------------------------------------------------- faults

struct Region {
  char* mapping;
  std::size_t mapped;
  char* data;
  std::size_t bytes;
};

std::map<void*, Region>& regions() {
  static auto* const all = new std::map<void*, Region>;
  return *all;
}

char fault_text[256];

void on_fault(int signal, siginfo_t* info, void*) {
  if (!in_kernel) {  // not ours: the default action, once the instruction is repeated
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    return;
  }
  // The stack of a kernel's thread holds no locks: reading our own tables here is safe.
  const auto* address = static_cast<const char*>(info->si_addr);
  const char* what = "accesses memory that is no argument's";
  char detail[96] = "";
  if (signal == SIGILL || signal == SIGTRAP) what = "accesses misaligned memory or does something undefined";
  else if (signal == SIGFPE) what = "divides by zero";
  else if (is_stack_guard(info->si_addr)) what = "overflows its stack";
  else {
    for (const auto& [data, region] : regions()) {
      if (address < region.mapping || address >= region.mapping + region.mapped) continue;
      what = "is outside of an argument's memory:";
      std::snprintf(detail, sizeof detail, " byte %td of %zu", address - region.data, region.bytes);
    }
  }
  std::snprintf(fault_text, sizeof fault_text, "%s%s", what, detail);
  siglongjmp(after_fault, 1);
}

// Installs the handlers for the length of a launch.
class Handlers {
 public:
  Handlers() {
    static char* const stack = new char[kStack];
    stack_t alternate = {};
    alternate.ss_sp = stack, alternate.ss_size = kStack;
    sigaltstack(&alternate, &before_stack_);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < kSignals; ++i) sigaction(kNumbers[i], &action, &before_[i]);
  }
  ~Handlers() {
    for (int i = 0; i < kSignals; ++i) sigaction(kNumbers[i], &before_[i], nullptr);
    sigaltstack(&before_stack_, nullptr);
  }

 private:
  static constexpr std::size_t kStack = 64 << 10;
  static constexpr int kSignals = 5;
  static constexpr int kNumbers[kSignals] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
  struct sigaction before_[kSignals];
  stack_t before_stack_;
};

}  // namespace

void sync_threads(const char* site) { wait(State::at_barrier, site, 0); }

const Slot* exchange(unsigned mask, const void* value, std::size_t bytes, const char* site) {
  const unsigned lane = current->number % kWarp;
  if (!(mask >> lane & 1)) fail("%s is called by lane %u, which its mask 0x%x does not name", site, lane, mask);
  if (bytes) std::memcpy(deposits[current->number].bytes, value, bytes);
  wait(State::at_warp, site, mask);
  return current->gathered;
}

void* shared_memory(const void* tag, std::size_t bytes, std::size_t alignment) {
  return shared.piece(tag, bytes, alignment);
}

void* dynamic_shared_memory() { return shared.memory.data() + shared.dynamic; }

void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  message = place(*current) + ": " + text;
  switch_fiber(*current->fiber, scheduler);
  std::abort();  // a failed launch is never resumed
}

const char* run(const Launch& launch) {
  static std::mutex one_at_a_time;
  static std::string result;
  std::lock_guard<std::mutex> lock(one_at_a_time);
  message.clear();
  running = &launch;
  block_shape = launch.block, grid_shape = launch.grid;
  if (launch.block.count() == 0 || launch.block.count() > 1024) message = "a block has 1 to 1024 threads";
  else if (launch.grid.count() == 0) message = "a grid has at least one block";
  else if (launch.grid.y > 65535 || launch.grid.z > 65535) message = "a grid has at most 65535 blocks along y and z";
  else if (launch.dynamic_shared > launch.most_shared) message = "more dynamic shared memory than the device has";
  std::mt19937_64 random(launch.seed);
  std::vector<unsigned long long> order(message.empty() ? launch.grid.count() : 0);
  for (unsigned long long i = 0; i < order.size(); ++i) order[i] = i;
  for (unsigned long long i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  Handlers handlers;
  if (sigsetjmp(after_fault, 1) == 0) {
    in_kernel = 1;
    for (const unsigned long long i : order) {
      block_index.x = static_cast<unsigned>(i % grid_shape.x);
      block_index.y = static_cast<unsigned>(i / grid_shape.x % grid_shape.y);
      block_index.z = static_cast<unsigned>(i / grid_shape.x / grid_shape.y);
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

// ---------------------------------------------------------------- guarded memory

void* guarded_new(std::size_t bytes, std::size_t alignment_offset) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t inside = (bytes + 15 + 16) / 16 * 16;
  const std::size_t pages = (inside + page - 1) / page * page;
  auto* mapping = static_cast<char*>(
      mmap(nullptr, pages + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (mapping == MAP_FAILED) return nullptr;
  mprotect(mapping, page, PROT_NONE);
  mprotect(mapping + page + pages, page, PROT_NONE);
  std::memset(mapping + page, kPoison, pages);
  char* const end = mapping + page + pages;
  // As far back as the wanted position within 16 bytes allows.
  auto start = reinterpret_cast<std::uintptr_t>(end) - bytes;
  start -= (start - alignment_offset) % 16;
  char* const data = reinterpret_cast<char*>(start);
  regions()[data] = Region{mapping, pages + 2 * page, data, bytes};
  return data;
}

const char* guarded_intact(void* pointer) {
  const Region& region = regions().at(pointer);
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const char* const begin = region.mapping + page;
  const char* const end = region.mapping + region.mapped - page;
  for (const char* at = begin; at < end; ++at) {
    if (at == region.data) at += region.bytes;
    if (at < end && static_cast<unsigned char>(*at) != kPoison) {
      static char text[96];
      std::snprintf(text, sizeof text, "byte %td of an argument of %zu bytes was written", at - region.data,
                    region.bytes);
      return text;
    }
  }
  return "";
}

void guarded_delete(void* pointer) {
  const auto found = regions().find(pointer);
  munmap(found->second.mapping, found->second.mapped);
  regions().erase(found);
}

}  // namespace pf_emulator

// ---------------------------------------------------------------- what Python calls

extern "C" {

const char* pf_run(void (*invoke)(void**), void** arguments, const unsigned* grid, const unsigned* block,
                   std::size_t dynamic_shared, std::size_t most_shared, std::uint64_t seed) {
  pf_emulator::Launch launch;
  launch.invoke = invoke, launch.arguments = arguments;
  launch.grid = {grid[0], grid[1], grid[2]};
  launch.block = {block[0], block[1], block[2]};
  launch.dynamic_shared = dynamic_shared, launch.most_shared = most_shared, launch.seed = seed;
  return pf_emulator::run(launch);
}

void* pf_guarded_new(std::size_t bytes, std::size_t offset) { return pf_emulator::guarded_new(bytes, offset); }
const char* pf_guarded_intact(void* data) { return pf_emulator::guarded_intact(data); }
void pf_guarded_delete(void* data) { pf_emulator::guarded_delete(data); }
}
