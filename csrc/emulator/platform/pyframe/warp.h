// Barriers and warp functions.
#pragma once

#include <cstring>

#include "runtime.h"

// The emulator's own code is not checked as a kernel's accesses are.
#define PF_OWN __attribute__((no_sanitize("thread"))) inline

#define PF_TEXT_(x) #x
#define PF_TEXT(x) PF_TEXT_(x)
#define PF_SITE(what) what " at " __FILE__ ":" PF_TEXT(__LINE__)

#define __syncthreads() ::pf_emulator::sync_threads(PF_SITE("__syncthreads"))
#define __syncthreads_count(predicate) ::pf_emulator::sync_threads_count(PF_SITE("__syncthreads_count"), (predicate))
#define __syncthreads_or(predicate) \
  (::pf_emulator::sync_threads_count(PF_SITE("__syncthreads_or"), (predicate)) != 0)
#define __syncthreads_and(predicate) \
  (::pf_emulator::sync_threads_count(PF_SITE("__syncthreads_and"), !(predicate)) == 0)
#define __syncwarp(...) ::pf_emulator::sync_warp(PF_SITE("__syncwarp"), ##__VA_ARGS__)
#define __activemask() static_assert(false, "__activemask: name the lanes instead")
#define __shfl_sync(...) ::pf_emulator::shuffle(PF_SITE("__shfl_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) ::pf_emulator::shuffle_up(PF_SITE("__shfl_up_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) ::pf_emulator::shuffle_down(PF_SITE("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) ::pf_emulator::shuffle_xor(PF_SITE("__shfl_xor_sync"), __VA_ARGS__)
#define __ballot_sync(...) ::pf_emulator::ballot(PF_SITE("__ballot_sync"), __VA_ARGS__)
#define __any_sync(...) (::pf_emulator::ballot(PF_SITE("__any_sync"), __VA_ARGS__) != 0)
#define __all_sync(mask, predicate) (::pf_emulator::ballot(PF_SITE("__all_sync"), mask, !(predicate)) == 0)
#define __match_any_sync(...) ::pf_emulator::match_any(PF_SITE("__match_any_sync"), __VA_ARGS__)
#define __reduce_add_sync(...) ::pf_emulator::reduce(PF_SITE("__reduce_add_sync"), ::pf_emulator::Plus(), __VA_ARGS__)
#define __reduce_min_sync(...) ::pf_emulator::reduce(PF_SITE("__reduce_min_sync"), ::pf_emulator::Less(), __VA_ARGS__)
#define __reduce_max_sync(...) ::pf_emulator::reduce(PF_SITE("__reduce_max_sync"), ::pf_emulator::More(), __VA_ARGS__)

namespace pf_emulator {

PF_OWN unsigned lane() { return current->number % kWarp; }

PF_OWN void sync_warp(const char* site, unsigned mask = 0xffffffffu) {
  // The last warp of a block may be short; CUDA's default mask means the lanes there are.
  if (mask == 0xffffffffu) {
    const unsigned first = current->number - lane(), count = static_cast<unsigned>(block_shape.count()) - first;
    if (count < kWarp) mask = (1u << count) - 1;
  }
  exchange(mask, nullptr, 0, site, true);
}

template <class T>
PF_OWN T take(const Slot* slots, unsigned source, unsigned mask, const char* site) {
  if (source >= kWarp || !(mask >> source & 1)) {
    fail("%s reads lane %u, which its mask 0x%x does not name", site, source, mask);
  }
  T value;
  std::memcpy(&value, slots[source].bytes, sizeof(T));
  return value;
}

template <class T>
PF_OWN const Slot* hand_over(const char* site, unsigned mask, const T& value, int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  if (width < 1 || width > 32 || (width & (width - 1))) fail("%s: width %d is no power of two up to 32", site, width);
  return exchange(mask, &value, sizeof(T), site);
}

template <class T>
PF_OWN T shuffle(const char* site, unsigned mask, T value, int source, int width = 32) {
  const Slot* const slots = hand_over(site, mask, value, width);
  const unsigned segment = lane() & ~(width - 1u);
  return take<T>(slots, segment | (static_cast<unsigned>(source) & (width - 1u)), mask, site);
}

template <class T>
PF_OWN T shuffle_up(const char* site, unsigned mask, T value, unsigned delta, int width = 32) {
  const Slot* const slots = hand_over(site, mask, value, width);
  return (lane() & (width - 1u)) < delta ? value : take<T>(slots, lane() - delta, mask, site);
}

template <class T>
PF_OWN T shuffle_down(const char* site, unsigned mask, T value, unsigned delta, int width = 32) {
  const Slot* const slots = hand_over(site, mask, value, width);
  const bool beyond = (lane() & (width - 1u)) + delta >= static_cast<unsigned>(width);
  return beyond ? value : take<T>(slots, lane() + delta, mask, site);
}

template <class T>
PF_OWN T shuffle_xor(const char* site, unsigned mask, T value, int bits, int width = 32) {
  const Slot* const slots = hand_over(site, mask, value, width);
  const unsigned source = lane() ^ static_cast<unsigned>(bits);
  return (source & ~(width - 1u)) > (lane() & ~(width - 1u)) ? value : take<T>(slots, source, mask, site);
}

PF_OWN unsigned ballot(const char* site, unsigned mask, bool predicate) {
  const Slot* const slots = exchange(mask, &predicate, sizeof predicate, site);
  unsigned found = 0;
  for (unsigned other = 0; other < kWarp; ++other) {
    if (mask >> other & 1 && slots[other].bytes[0]) found |= 1u << other;
  }
  return found;
}

template <class T>
PF_OWN unsigned match_any(const char* site, unsigned mask, T value) {
  const Slot* const slots = exchange(mask, &value, sizeof value, site);
  unsigned found = 0;
  for (unsigned other = 0; other < kWarp; ++other) {
    if (mask >> other & 1 && std::memcmp(slots[other].bytes, &value, sizeof value) == 0) found |= 1u << other;
  }
  return found;
}

struct Plus {
  template <class T>
  T operator()(T a, T b) const { return static_cast<T>(static_cast<unsigned>(a) + static_cast<unsigned>(b)); }
};
struct Less {
  template <class T>
  T operator()(T a, T b) const { return b < a ? b : a; }
};
struct More {
  template <class T>
  T operator()(T a, T b) const { return a < b ? b : a; }
};

template <class Combine, class T>
PF_OWN T reduce(const char* site, Combine combine, unsigned mask, T value) {
  const Slot* const slots = exchange(mask, &value, sizeof value, site);
  bool first = true;
  T total = value;
  for (unsigned other = 0; other < kWarp; ++other) {
    if (!(mask >> other & 1)) continue;
    const T theirs = take<T>(slots, other, mask, site);
    total = first ? theirs : combine(total, theirs);
    first = false;
  }
  return total;
}

}  // namespace pf_emulator
