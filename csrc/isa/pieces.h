// A row, vector by vector, of which the last may be shorter: one body serves all.
#pragma once

#include <cstdint>

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {

// One vector of up to kLanes elements.
template <class T, bool Whole>
struct Part {
  std::int64_t count;
  PYFRAME_INLINE Vec<T> get(const T* p) const { return Whole ? load(p) : load_part(p, count); }
  PYFRAME_INLINE void put(T* p, Vec<T> v) const {
    if constexpr (Whole) store<T>(p, v);
    else store_part<T>(p, v, count);
  }
};

// Calls body(i, part) for every vector of a row of n elements.
template <class T, class Body>
PYFRAME_INLINE void over_row(std::int64_t n, Body body) {
  constexpr int L = kLanes<T>;
  std::int64_t j = 0;
  for (; j + L <= n; j += L) body(j, Part<T, true>{L});
  if (j < n) body(j, Part<T, false>{n - j});
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
