// mbarriers: who waits for what, and which accesses they order.
#include "asynchronous.h"
#include "internal.h"

#include <algorithm>

namespace pf_emulator {
namespace {

constexpr unsigned kMostCount = (1u << 20) - 1;

struct Phases {
  unsigned count = 0, pending = 0;  // arrivals of a phase, and those still to come
  long long bytes = 0;              // that tensor copies are still to bring
  unsigned phase = 0;
  unsigned engine = 0;        // the copies that arrive here order what they write among themselves
  unsigned by = 0;            // the thread that initialised it
  bool known_to_copies = false;
  Clock gathering, completed;  // what the threads that arrived had seen
  std::vector<Thread*> waiting;
};

std::map<const void*, Phases> barriers;

Phases& find(const void* barrier, const char* site) {
  touch(barrier, 8, Kind::atomic, site);
  const auto found = barriers.find(barrier);
  if (found == barriers.end()) fail("%s: this is no mbarrier that was initialised", site);
  return found->second;
}

// Lets a thread go on if its phase is over. It sees what led to that, and not what happens until it runs.
void look(const Phases& b, Thread& thread) {
  if (thread.phase_over || (b.phase & 1) == thread.parity) return;
  thread.phase_over = true;
  clock_acquire(thread.number, b.completed);
}

void complete_if_due(Phases& b) {
  if (b.pending != 0 || b.bytes != 0) return;
  ++b.phase;
  b.pending = b.count;
  b.completed.swap(b.gathering);
  b.gathering.clear();
  for (Thread* const thread : b.waiting) look(b, *thread);
}

}  // namespace

void barriers_start_block() { barriers.clear(); }

void start_phases(const void* barrier, unsigned count, const char* site) {
  if (running->cooperative) fail("%s: the emulator has no mbarriers in a cooperative launch", site);
  if (!is_shared(barrier) || reinterpret_cast<std::uintptr_t>(barrier) % 8) {
    fail("%s: an mbarrier lies in shared memory, at a multiple of 8 bytes", site);
  }
  if (count == 0 || count > kMostCount) fail("%s: %u arrivals; 1 to %u are possible", site, count, kMostCount);
  if (barriers.count(barrier)) fail("%s: this mbarrier has been initialised already", site);
  if (barriers.size() == kEngines) fail("%s: the emulator has at most %u mbarriers for a block", site, kEngines);
  touch(barrier, 8, Kind::write, site);
  Phases b;
  b.count = b.pending = count, b.by = current->number;
  b.engine = static_cast<unsigned>(barriers.size());
  barriers[barrier] = b;
}

void fence_phases() {
  for (auto& [address, b] : barriers) b.known_to_copies |= b.by == current->number;
}

void arrive(const void* barrier, unsigned bytes, const char* site) {
  Phases& b = find(barrier, site);
  clock_release(b.gathering);
  b.bytes += bytes;
  --b.pending;
  if (b.pending == 0 && b.bytes < 0) fail("%s: copies have brought %lld bytes more than expected", site, -b.bytes);
  complete_if_due(b);
}


void wait_for_phase(const void* barrier, unsigned parity, const char* site) {
  Phases& b = find(barrier, site);
  if (parity > 1) fail("%s: a parity is 0 or 1, not %u", site, parity);
  current->parity = parity, current->phase_over = false;
  look(b, *current);
  b.waiting.push_back(current);
  // Also where the phase is over: others run first, and what is wrong to rely on goes wrong.
  suspend(State::at_phase, site);
  b.waiting.erase(std::find(b.waiting.begin(), b.waiting.end(), current));
}

unsigned engine_of(const void* barrier, const char* site) {
  const Phases& b = find(barrier, site);
  if (!b.known_to_copies) {
    fail("%s: no fence of the mbarrier's initialisation, which the copy engine may not see yet", site);
  }
  return b.engine;
}

void bytes_landed(const void* barrier, std::uint64_t bytes) {
  Phases& b = barriers.at(barrier);
  clock_release_engine(b.gathering, b.engine);
  b.bytes -= static_cast<long long>(bytes);
  complete_if_due(b);
}

}  // namespace pf_emulator
