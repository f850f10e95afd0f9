// Checks each access of a kernel to its arguments and to shared memory.
//
// Kernels are compiled with -fsanitize=thread, which calls a function before every access; here are those functions,
// instead of that sanitizer's library. For each element the last write and some of the reads since then are kept. Two
// accesses race if they come from different threads, one of them writes, not both are atomic, and nothing orders
// them: a barrier of the block, __syncwarp within a warp, or between blocks an atomic that both use after a fence.
// Unlike a comparison of results, that finds a missing barrier whatever order the threads happen to run in.
#include "asynchronous.h"
#include "internal.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>
#include <unordered_map>

#include <dlfcn.h>

namespace pf_emulator {

struct Access {
  std::uint32_t block = 0;  // its serial number, over all launches
  std::uint32_t time = 0;
  std::uint32_t code = 0;  // where in the kernel's library
  std::uint16_t thread = 0;
  Kind kind = Kind::none;
};

// What is known of an element. Of the reads: the last one, one by another warp if there is any, one by another block.
struct Cell {
  Access write, reads[3];
};

namespace {

constexpr unsigned kMostThreads = 1024;
constexpr double kMostSeconds = 120;

constexpr unsigned kClock = kMostThreads + kEngines;

// What is known of a block.
struct BlockHistory {
  std::uint32_t serial = 0, last_barrier = 0;
  std::uint32_t last_of_warp[kMostThreads / kWarp] = {};  // a __syncwarp of all its lanes
  std::uint32_t last_of_lanes[kMostThreads][kWarp] = {};  // one that named at least these two
  std::vector<Clock> seen;  // by thread: what mbarriers have shown it; empty until one is used
  std::uint32_t last_proxy_fence[kMostThreads] = {};
  std::set<std::uint32_t> acquired;  // blocks before it; in a cooperative launch cooperative.cpp knows
  bool fenced = false;
};

std::deque<BlockHistory> histories(1);  // of the blocks that run side by side
BlockHistory* history = &histories[0];
std::uint32_t last_serial = 0, first_of_launch = 1, now = 0;
std::unordered_map<std::uint32_t, unsigned> block_numbers;  // by serial number, of this launch
std::unordered_map<const void*, std::set<std::uint32_t>> released;
const char* library = nullptr;
std::uint64_t touches = 0;
std::chrono::steady_clock::time_point started;

bool ordered(const Access& before) {
  if (before.block == history->serial) return before.time < seen_of(before.thread);
  if (running->cooperative) return grid_ordered(before.block, before.thread, before.time);
  return history->acquired.count(before.block) != 0;
}

// Threads `first` to `first + count` of those in `mask` (of 32; 0: all) have seen the same.
void share_clocks(unsigned first, unsigned count, unsigned mask, unsigned from) {
  auto& seen = history->seen;
  if (seen.empty()) return;
  for (unsigned slot = from; slot < kClock; ++slot) {
    std::uint32_t latest = 0;
    for (unsigned i = 0; i < count; ++i) {
      if (!mask || mask >> i & 1) latest = std::max(latest, seen[first + i][slot]);
    }
    for (unsigned i = 0; i < count; ++i) {
      if (!mask || mask >> i & 1) seen[first + i][slot] = latest;
    }
  }
}

void need_clocks() {
  if (history->seen.empty()) history->seen.assign(block_shape.count(), Clock(kClock, 0));
}

bool conflicts(const Access& before, Kind kind, bool in_shared) {
  // Each block has shared memory of its own; earlier launches are over.
  if (before.kind == Kind::none || before.block < (in_shared ? history->serial : first_of_launch)) return false;
  if (before.block == history->serial && before.thread == current->number) return false;
  if (before.kind == Kind::atomic && kind == Kind::atomic) return false;
  return !ordered(before);
}

const char* verb(Kind kind) {
  return kind == Kind::read ? "reads" : kind == Kind::atomic ? "atomically changes" : "writes";
}

[[noreturn]] void report_race(const Area& area, std::size_t element, const Access& before, Kind kind,
                              const char* where) {
  const bool same = before.block == history->serial;
  const bool copied = before.thread >= kMostThreads;
  const unsigned number = same ? ~0u : block_numbers[before.block];
  const std::string other = copied ? "a tensor copy" : place_of(number, before.thread);
  char there[24] = "";  // what the emulator itself did, as cp.async's landing, has no place in the kernel
  if (before.code) std::snprintf(there, sizeof there, " at <0x%x>", before.code);
  const char* const missing = !same    ? "order of blocks"
                              : copied ? "wait for its mbarrier"
                              : before.thread / kWarp == current->number / kWarp ? "__syncwarp"
                                                                                 : "barrier";
  fail("a race: %s %s %zu of %s%s that %s %s%s, with no %s between", verb(kind), area.shift ? "element" : "byte",
       element, &area == &shared_area() ? "shared memory" : "an argument", where, other.c_str(), verb(before.kind),
       there, missing);
}

void remember_read(Cell& cell, const Access& mine) {
  Access& last = cell.reads[0];
  Access& other = cell.reads[1];
  const auto warp = [](const Access& a) { return a.thread / kWarp; };
  if (last.kind != Kind::none && last.block >= first_of_launch) {
    if (last.block != mine.block) {
      cell.reads[2] = last;
    } else if (last.thread != mine.thread) {
      const bool free = other.kind == Kind::none || other.block != mine.block || warp(other) == warp(mine);
      if (free || warp(last) != warp(mine)) other = last;
    }
  }
  last = mine;
}

void check(Area& area, const char* address, std::size_t bytes, Kind kind, std::uint32_t code, const char* site) {
  char where[160];
  if (site) {
    std::snprintf(where, sizeof where, " at %s", site);
  } else {
    std::snprintf(where, sizeof where, " at <0x%x>", code);
  }
  const bool in_shared = &area == &shared_area();
  const std::ptrdiff_t offset = address - area.data;
  if (in_shared) {
    const char* const why = outside_of_shared(static_cast<std::size_t>(offset), bytes);
    if (*why) fail("%s %s%s", verb(kind), why, where);
  } else if (offset < 0 || static_cast<std::size_t>(offset) + bytes > area.bytes) {
    fail("%s %zu bytes at byte %td of an argument of %zu bytes%s", verb(kind), bytes, offset, area.bytes, where);
  }
#if defined(__SANITIZE_ADDRESS__)
  return;  // plain accesses are not reported: nothing is known of who wrote what
#endif
  if (!area.cells) {
    area.cells = static_cast<Cell*>(std::calloc((area.bytes >> area.shift) + 1, sizeof(Cell)));
    if (!area.cells) fail("the emulator has no memory to check %zu bytes", area.bytes);
  }
  Access mine;
  mine.block = history->serial, mine.time = now, mine.code = code, mine.kind = kind;
  mine.thread = static_cast<std::uint16_t>(current->number);
  const auto first = static_cast<std::size_t>(offset) >> area.shift;
  const auto last = (static_cast<std::size_t>(offset) + bytes - 1) >> area.shift;
  for (std::size_t i = first; i <= last; ++i) {
    Cell& cell = area.cells[i];
    const bool reads = kind == Kind::read || kind == Kind::atomic;
    if (in_shared && reads && cell.write.kind == Kind::pending && cell.write.block == history->serial) {
      fail("%s shared memory that a cp.async copy is still to fill%s", verb(kind), where);
    }
    if (in_shared && reads && (cell.write.block != history->serial || cell.write.kind == Kind::none)) {
      fail("%s shared memory that no thread of the block has written%s", verb(kind), where);
    }
    if (conflicts(cell.write, kind, in_shared)) report_race(area, i, cell.write, kind, where);
    if (kind == Kind::read) {
      remember_read(cell, mine);
      continue;
    }
    for (Access& read : cell.reads) {
      if (conflicts(read, kind, in_shared)) report_race(area, i, read, kind, where);
      read = Access();
    }
    cell.write = mine;
  }
}

[[maybe_unused]] void reported(const void* pointer, std::size_t bytes, Kind kind, const void* code) {
  const auto* const address = static_cast<const char*>(pointer);
  // Most accesses are to the thread's own stack.
  const auto* const stack = static_cast<const char*>(current->fiber->stack);
  if (address >= stack && address < stack + current->fiber->size) return;
  if ((++touches & 0xfffff) == 0) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - started;
    if (spent.count() > kMostSeconds) fail("the kernel runs for more than %.0f seconds", kMostSeconds);
  }
  Area* const area = find_area(address);
  if (area) check(*area, address, bytes, kind, static_cast<std::uint32_t>(static_cast<const char*>(code) - library), nullptr);
}

}  // namespace

void checks_start_launch() {
  first_of_launch = last_serial + 1;
  block_numbers.clear(), released.clear();
  checks_select(0);
  Dl_info info;
  library = dladdr(reinterpret_cast<const void*>(running->invoke), &info) ? static_cast<const char*>(info.dli_fbase) : nullptr;
  started = std::chrono::steady_clock::now();
}

void checks_select(std::size_t slot) {
  while (histories.size() <= slot) histories.emplace_back();
  history = &histories[slot];
}

void checks_start_block() {
  history->serial = ++last_serial;
  history->last_barrier = ++now;
  const auto at = block_index.x + grid_shape.x * (block_index.y + grid_shape.y * block_index.z);
  block_numbers[history->serial] = at;
  history->acquired.clear();
  history->seen.clear();
  history->fenced = false;
}

std::uint32_t block_serial() { return history->serial; }

std::uint32_t tick() { return ++now; }

std::uint32_t last_barrier() { return history->last_barrier; }

// Up to which time the running thread sees the accesses of `other`, of its block.
std::uint32_t seen_of(unsigned other) {
  const unsigned self = current->number, warp = self / kWarp;
  std::uint32_t time = history->seen.empty() ? 0 : history->seen[self][other];
  if (other >= kMostThreads) return time;
  time = std::max(time, history->last_barrier);
  if (other / kWarp != warp) return time;
  return std::max({time, history->last_of_warp[warp], history->last_of_lanes[self][other % kWarp]});
}

void checks_barrier() {
  history->last_barrier = ++now;
  share_clocks(0, static_cast<unsigned>(history->seen.size()), 0, kMostThreads);
}

void checks_warp(unsigned first_thread, unsigned mask) {
  ++now;
  const auto lanes = static_cast<unsigned>(block_shape.count()) - first_thread;
  share_clocks(first_thread, std::min(lanes, kWarp), mask, 0);
  if (mask == (lanes < kWarp ? (1u << lanes) - 1 : 0xffffffffu)) {
    history->last_of_warp[first_thread / kWarp] = now;
    return;
  }
  for (unsigned a = 0; a < kWarp; ++a) {
    for (unsigned b = 0; b < kWarp; ++b) {
      if (mask >> a & mask >> b & 1) history->last_of_lanes[first_thread + a][b] = now;
    }
  }
}

void forget_cells(Area& area) {
  std::free(area.cells);
  area.cells = nullptr;
}

void touch(const void* address, std::size_t bytes, Kind kind, const char* site) {
  Area* const area = find_area(static_cast<const char*>(address));
  if (area) check(*area, static_cast<const char*>(address), bytes, kind, 0, site);
}

void clock_release(Clock& into) {
  need_clocks();
  if (into.empty()) into.assign(kClock, 0);
  ++now;
  const auto threads = static_cast<unsigned>(block_shape.count());
  for (unsigned slot = 0; slot < kClock; ++slot) {
    if (slot < threads || slot >= kMostThreads) into[slot] = std::max(into[slot], seen_of(slot));
  }
  into[current->number] = now;
}

void clock_release_engine(Clock& into, unsigned engine) {
  if (into.empty()) into.assign(kClock, 0);
  into[kMostThreads + engine] = ++now;
}

void clock_acquire(unsigned thread, const Clock& from) {
  need_clocks();
  if (from.empty()) return;
  Clock& mine = history->seen[thread];
  for (unsigned slot = 0; slot < kClock; ++slot) mine[slot] = std::max(mine[slot], from[slot]);
}

void proxy_fence() { history->last_proxy_fence[current->number] = ++now; }

void engine_wrote(const void* address, std::size_t bytes, unsigned engine) {
  const Area& area = shared_area();
  if (!area.cells) return;
  Access written;
  written.block = history->serial, written.time = now, written.kind = Kind::write;
  written.thread = static_cast<std::uint16_t>(kMostThreads + engine);
  const auto first = static_cast<std::size_t>(static_cast<const char*>(address) - area.data);
  for (std::size_t i = first; i < first + bytes; ++i) area.cells[i].write = written;
}

void async_read(const void* address, std::size_t bytes, const char* site) {
  touch(address, bytes, Kind::read, site);
  const Area& area = shared_area();
  if (!area.cells) return;
  const auto first = static_cast<std::size_t>(static_cast<const char*>(address) - area.data);
  for (std::size_t i = first; i < first + bytes; ++i) {
    const Access& write = area.cells[i].write;
    if (write.thread < kMostThreads && write.time >= history->last_proxy_fence[write.thread]) {
      fail("%s: %s wrote byte %zu of its operands, with no fence.proxy.async since", site,
           place_of(~0u, write.thread).c_str(), i - first);
    }
  }
}

void fence() {
  history->fenced = true;
  if (running->cooperative) grid_fence();
}

void atomic_done(const void* address) {
  if (running->cooperative) {
    grid_acquire(address);
    grid_release(address, false);
    return;
  }
  auto& serials = released[address];
  history->acquired.insert(serials.begin(), serials.end());
  if (history->fenced) serials.insert(history->serial);
}

}  // namespace pf_emulator

#if !defined(__SANITIZE_ADDRESS__)  // which the compiler refuses to combine with these

// ---------------------------------------------------------------- what the compiler calls

#define PF_CALLED(name, bytes)                                                                               \
  void __tsan_read##name(void* address) {                                                                    \
    pf_emulator::reported(address, bytes, pf_emulator::Kind::read, __builtin_return_address(0));             \
  }                                                                                                          \
  void __tsan_write##name(void* address) {                                                                   \
    pf_emulator::reported(address, bytes, pf_emulator::Kind::write, __builtin_return_address(0));            \
  }                                                                                                          \
  void __tsan_unaligned_read##name(void* address) {                                                          \
    pf_emulator::reported(address, bytes, pf_emulator::Kind::read, __builtin_return_address(0));             \
  }                                                                                                          \
  void __tsan_unaligned_write##name(void* address) {                                                         \
    pf_emulator::reported(address, bytes, pf_emulator::Kind::write, __builtin_return_address(0));            \
  }

extern "C" {
PF_CALLED(1, 1)
PF_CALLED(2, 2)
PF_CALLED(4, 4)
PF_CALLED(8, 8)
PF_CALLED(16, 16)
void __tsan_read_range(void* address, unsigned long bytes) {
  if (bytes) pf_emulator::reported(address, bytes, pf_emulator::Kind::read, __builtin_return_address(0));
}
void __tsan_write_range(void* address, unsigned long bytes) {
  if (bytes) pf_emulator::reported(address, bytes, pf_emulator::Kind::write, __builtin_return_address(0));
}
// What clang makes of memcpy and its like.
void* __tsan_memcpy(void* target, const void* source, std::size_t bytes) {
  const void* const code = __builtin_return_address(0);
  if (bytes) pf_emulator::reported(source, bytes, pf_emulator::Kind::read, code);
  if (bytes) pf_emulator::reported(target, bytes, pf_emulator::Kind::write, code);
  return std::memcpy(target, source, bytes);
}
void* __tsan_memmove(void* target, const void* source, std::size_t bytes) {
  const void* const code = __builtin_return_address(0);
  if (bytes) pf_emulator::reported(source, bytes, pf_emulator::Kind::read, code);
  if (bytes) pf_emulator::reported(target, bytes, pf_emulator::Kind::write, code);
  return std::memmove(target, source, bytes);
}
void* __tsan_memset(void* target, int value, std::size_t bytes) {
  if (bytes) pf_emulator::reported(target, bytes, pf_emulator::Kind::write, __builtin_return_address(0));
  return std::memset(target, value, bytes);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}

#endif
