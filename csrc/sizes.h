// How much work is worth a thread, and which outputs are too large for the caches.
#pragma once

#include <cstdint>

namespace pyframe {

// The least number of elements worth giving to a thread.
constexpr std::int64_t kGrain = 16 << 10;

// The same in rows of n elements.
inline std::int64_t row_grain(std::int64_t n) { return kGrain / (n > 0 ? n : 1) + 1; }

// Outputs from this size on are written past the caches: whoever reads them next would not find them there.
constexpr std::int64_t kPastCacheBytes = 24 << 20;

template <class T>
bool exceeds_cache(std::int64_t elements) {
  return elements * static_cast<std::int64_t>(sizeof(T)) >= kPastCacheBytes;
}

}  // namespace pyframe
