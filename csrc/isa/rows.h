// Loops over one row that several families share: folds with a fixed order, and stores that may go past the caches.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {

// Elements after which vector accumulators are emptied into a double: bounds the rounding error of long sums.
constexpr std::int64_t kSumBlock = 4096;

// Σ f(i-th vector of the row, in up to four accumulators): `f(i)` gives the vector at element i, `part(i, count)` the
// last one with zeros behind it.
template <class T, class Full, class Part>
PYFRAME_INLINE double sum_row(std::int64_t n, Full full, Part part) {
  constexpr int L = kLanes<T>;
  double total = 0;
  std::int64_t i = 0;
  while (i < n) {
    const std::int64_t end = n - i > kSumBlock ? i + kSumBlock : n;
    Vec<T> a{}, b{}, c{}, d{};
    for (; i + 4 * L <= end; i += 4 * L) {
      a += full(i);
      b += full(i + L);
      c += full(i + 2 * L);
      d += full(i + 3 * L);
    }
    for (; i + L <= end; i += L) a += full(i);
    if (i < end) {
      b += part(i, end - i);
      i = end;
    }
    total += static_cast<double>(hsum<T>((a + b) + (c + d)));
  }
  return total;
}

template <class T>
PYFRAME_INLINE T max_row(const T* x, std::int64_t n) {
  constexpr int L = kLanes<T>;
  const T lowest = -static_cast<T>(__builtin_inf());
  Vec<T> a = splat(lowest), b = a, c = a, d = a;
  std::int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a = vmax<T>(load(x + i), a);
    b = vmax<T>(load(x + i + L), b);
    c = vmax<T>(load(x + i + 2 * L), c);
    d = vmax<T>(load(x + i + 3 * L), d);
  }
  for (; i + L <= n; i += L) a = vmax<T>(load(x + i), a);
  if (i < n) b = vmax<T>(load_part(x + i, n - i, lowest), b);
  return hmax<T>(vmax<T>(vmax<T>(a, b), vmax<T>(c, d)));
}

// Short rows are worked on some at a time, step by step: the maximum, the sum and the logarithm of one row follow from
// each other with 30 to 60 cycles of latency each, which other rows fill. Together they stay in the first cache level.
constexpr int kRowsTogether = 8;
template <class T> PYFRAME_INLINE std::int64_t rows_together(std::int64_t n, std::int64_t left) {
  const std::int64_t most = n * static_cast<std::int64_t>(sizeof(T)) <= 2048 ? kRowsTogether : 1;
  return left < most ? left : most;
}

// Asks for a line of the row after this one: the hardware's prefetchers stop at the end of every page, and a row of
// 1024 floats is one page. Addresses past the end of the memory do no harm.
PYFRAME_INLINE void prefetch_row(const void* line) { __builtin_prefetch(line, 0, 2); }

// y[i] = f(i) for a row; past the caches if asked for and the address allows.
template <class T, class Full, class Part>
PYFRAME_INLINE void write_row(T* y, std::int64_t n, bool past_cache, Full full, Part part) {
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  if (past_cache && n >= 2 * L) {
    const std::int64_t misfit = (reinterpret_cast<std::uintptr_t>(y) & (kVectorBytes - 1)) / sizeof(T);
    if (misfit) {
      i = L - misfit;
      store_part<T>(y, part(0, i), i);
    }
    for (; i + L <= n; i += L) stream<T>(y + i, full(i));
  } else {
    for (; i + L <= n; i += L) store<T>(y + i, full(i));
  }
  if (i < n) store_part<T>(y + i, part(i, n - i), n - i);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
