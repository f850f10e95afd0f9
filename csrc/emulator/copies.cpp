// cp.async: copies to shared memory that land when they are waited for, and not before.
#include "internal.h"

#include <algorithm>
#include <cstring>

namespace pf_emulator {
namespace {

void land(const PendingCopy& copy) {
  std::memcpy(copy.target, copy.values, copy.bytes);
  touch(copy.target, copy.bytes, Kind::write, "the wait for a cp.async copy");
}

}  // namespace

void copy_async(void* target, const void* source, unsigned bytes, unsigned used, const char* site) {
  if (bytes != 4 && bytes != 8 && bytes != 16) fail("%s: %u bytes; 4, 8 and 16 are possible", site, bytes);
  if (used > bytes) fail("%s: %u of %u bytes", site, used, bytes);
  if (!is_shared(target)) fail("%s: the target is not in shared memory", site);
  const auto misaligned = [bytes](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % bytes != 0; };
  if (misaligned(target) || misaligned(source)) fail("%s: an address is no multiple of %u bytes", site, bytes);
  PendingCopy copy{target, bytes, current->group, {}};
  if (used) {
    touch(source, used, Kind::read, site);
    std::memcpy(copy.values, source, used);
  }
  // From here on nobody may read the target, and nobody may still be reading it.
  touch(target, bytes, Kind::pending, site);
  std::memset(target, kPoison, bytes);
  current->copies.push_back(copy);
}

void copy_commit() { ++current->group; }

void copy_wait(unsigned most_pending) {
  auto& copies = current->copies;
  const auto done = [&](const PendingCopy& copy) { return copy.group + most_pending < current->group; };
  for (const PendingCopy& copy : copies) {
    if (done(copy)) land(copy);
  }
  copies.erase(std::remove_if(copies.begin(), copies.end(), done), copies.end());
}

void copy_wait_all() {
  for (const PendingCopy& copy : current->copies) land(copy);
  current->copies.clear();
}

void copies_at_exit() {
  if (!current->copies.empty()) fail("ends with %zu cp.async copies that it did not wait for", current->copies.size());
}

}  // namespace pf_emulator
