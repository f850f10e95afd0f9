// Cooperative launches: blocks that run side by side and wait for each other by counts in global memory.
//
// Which accesses of another block a thread may rely on is known by time and thread, not by block: blocks tell each
// other many times, and what one does after it told is seen only when it tells again.
#include "internal.h"

#include <algorithm>
#include <map>

namespace pf_emulator {
namespace {

using Clocks = std::map<std::uint32_t, Clock>;  // by the serial number of a block: up to which time, by its threads

// What a thread has heard, at an address. The others of its block know it behind a barrier.
struct Heard {
  const void* address;
  unsigned thread;
  std::uint32_t time;
  Clocks clocks;
};

std::map<std::uint32_t, std::vector<Heard>> heard_by;           // by block
std::map<const void*, Clocks> told;                             // by address
std::map<std::pair<std::uint32_t, unsigned>, Clocks> at_fence;  // by block and thread

void merge(Clocks& into, const Clocks& from) {
  for (const auto& [serial, clock] : from) {
    Clock& mine = into[serial];
    mine.resize(std::max(mine.size(), clock.size()));
    for (std::size_t i = 0; i < clock.size(); ++i) mine[i] = std::max(mine[i], clock[i]);
  }
}

bool knows(const Heard& heard) { return heard.thread == current->number || heard.time < seen_of(heard.thread); }

// All that the running thread has seen, its own accesses included.
Clocks all_seen() {
  Clocks found;
  for (const Heard& heard : heard_by[block_serial()]) {
    if (knows(heard)) merge(found, heard.clocks);
  }
  Clock& own = found[block_serial()];
  own.resize(block_shape.count());
  for (unsigned other = 0; other < own.size(); ++other) own[other] = std::max(own[other], seen_of(other));
  own[current->number] = tick();
  return found;
}

void need_cooperative(const char* site) {
  if (running->cooperative) return;
  fail("%s: the blocks of an ordinary launch need not run at the same time; it has to be a cooperative one", site);
}

}  // namespace

void grid_checks_start_launch() { heard_by.clear(), told.clear(), at_fence.clear(); }

void grid_fence() { at_fence[{block_serial(), current->number}] = all_seen(); }

void grid_release(const void* address, bool all) {
  if (all) {
    merge(told[address], all_seen());
    return;
  }
  const auto found = at_fence.find({block_serial(), current->number});
  if (found != at_fence.end()) merge(told[address], found->second);
}

void grid_acquire(const void* address) {
  const auto found = told.find(address);
  if (found == told.end()) return;
  std::vector<Heard>& heard = heard_by[block_serial()];
  // What is told at an address only grows: of what the whole block knows, the latest is enough.
  std::uint32_t known = 0;
  for (const Heard& one : heard) {
    if (one.address == address && one.time < last_barrier()) known = std::max(known, one.time);
  }
  const auto superseded = [&](const Heard& one) { return one.address == address && one.time < known; };
  heard.erase(std::remove_if(heard.begin(), heard.end(), superseded), heard.end());
  heard.push_back({address, current->number, tick(), found->second});
}

bool grid_ordered(std::uint32_t block, unsigned thread, std::uint32_t time) {
  for (const Heard& heard : heard_by[block_serial()]) {
    const auto found = heard.clocks.find(block);
    if (found != heard.clocks.end() && thread < found->second.size() && time < found->second[thread] && knows(heard)) {
      return true;
    }
  }
  return false;
}

void count_arrival(unsigned* counter, const char* site) {
  need_cooperative(site);
  touch(counter, sizeof *counter, Kind::atomic, site);
  ++*counter;
  grid_release(counter, true);
}

void wait_for_arrivals(const unsigned* counter, unsigned arrivals, const char* site) {
  need_cooperative(site);
  touch(counter, sizeof *counter, Kind::atomic, site);
  current->arrived = counter, current->expected = arrivals;
  suspend(State::at_grid, site);  // also where they have arrived: others run first
  grid_acquire(counter);
}

}  // namespace pf_emulator
