// Sums of many short rows: four at once, since adding up the lanes of one vector costs as much as reading several.
#pragma once

#include "isa/rows.h"

namespace pyframe {
namespace PYFRAME_ISA {

constexpr std::int64_t kShortRow = 256;  // elements up to which one accumulator per row is accurate and fast enough

template <class T> PYFRAME_INLINE Vec<T> lanes_of_row(const T* x, std::int64_t n) {
  constexpr int L = kLanes<T>;
  Vec<T> total{};
  std::int64_t i = 0;
  for (; i + L <= n; i += L) total += load(x + i);
  return i < n ? total + load_part(x + i, n - i) : total;
}

// The upper half of the lanes added to the lower one until four are left.
template <class T, int Lanes> PYFRAME_INLINE void fold_to_four(const T* lanes, T* four) {
  typedef T Half __attribute__((vector_size(Lanes / 2 * sizeof(T))));
  Half low, high;
  __builtin_memcpy(&low, lanes, sizeof low);
  __builtin_memcpy(&high, lanes + Lanes / 2, sizeof high);
  if constexpr (Lanes == 4) {
    __builtin_memcpy(four, lanes, 4 * sizeof(T));
  } else {
    low += high;
    T rest[Lanes / 2];
    __builtin_memcpy(rest, &low, sizeof low);
    fold_to_four<T, Lanes / 2>(rest, four);
  }
}

// y[r] = factor · Σ of row r of x, for rows of n elements.
template <class T> PYFRAME_INLINE void sum_short_rows(const T* x, T* y, std::int64_t rows, std::int64_t n, T factor) {
  constexpr int L = kLanes<T>;
  std::int64_t r = 0;
  if constexpr (L >= 4) {
    typedef T Four __attribute__((vector_size(4 * sizeof(T))));
    typedef typename Bits<T>::type Places __attribute__((vector_size(4 * sizeof(T))));
    for (; r + 4 <= rows; r += 4) {
      Four v[4];
      for (int k = 0; k < 4; ++k) {
        const Vec<T> lanes = lanes_of_row(x + (r + k) * n, n);
        T all[L], four[4];
        __builtin_memcpy(all, &lanes, sizeof lanes);
        fold_to_four<T, L>(all, four);
        __builtin_memcpy(v + k, four, sizeof four);
      }
      const Four a = __builtin_shuffle(v[0], v[1], Places{0, 4, 1, 5}) + __builtin_shuffle(v[0], v[1], Places{2, 6, 3, 7});
      const Four b = __builtin_shuffle(v[2], v[3], Places{0, 4, 1, 5}) + __builtin_shuffle(v[2], v[3], Places{2, 6, 3, 7});
      const Four sum = __builtin_shuffle(a, b, Places{0, 1, 4, 5}) + __builtin_shuffle(a, b, Places{2, 3, 6, 7});
      const Four scaled = sum * factor;
      __builtin_memcpy(y + r, &scaled, sizeof scaled);
    }
  }
  for (; r < rows; ++r) y[r] = hsum<T>(lanes_of_row(x + r * n, n)) * factor;
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
