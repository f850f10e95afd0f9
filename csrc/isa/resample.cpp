#include "resample.h"

#include <type_traits>

#include "isa/lanes.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// Shuffles of two vectors by numbers known only at run time are one or two instructions from AVX2 on.
#if defined(__AVX2__)
constexpr bool kShuffles = true;
#else
constexpr bool kShuffles = false;
#endif

// What L neighbouring outputs read for one tap: the lanes `from` of the 2 L inputs at `base`.
template <class T>
struct Picks {
  Mask<T>* from;
  Vec<T>* weight;
  int64_t* base;
  bool close;   // all inputs lie within 2 L of the first
  bool closer;  // and even within L
};

template <class T>
Picks<T> picks_of(const ResampleAxis<T>& axis, char* scratch) {
  constexpr int L = kLanes<T>;
  const int64_t blocks = (axis.to + L - 1) / L, count = blocks * axis.taps;
  Picks<T> p;
  p.from = reinterpret_cast<Mask<T>*>(scratch);
  p.weight = reinterpret_cast<Vec<T>*>(p.from + count);
  p.base = reinterpret_cast<int64_t*>(p.weight + count);
  p.close = kShuffles;
  p.closer = kShuffles;
  for (int64_t i = 0; i < count && p.close; ++i) {
    const int64_t first = i / axis.taps * L, used = axis.to - first < L ? axis.to - first : L;
    const int64_t* const index = axis.index + i % axis.taps * axis.to + first;
    int64_t low = index[0], high = index[0];
    for (int64_t k = 1; k < used; ++k) {
      low = index[k] < low ? index[k] : low;
      high = index[k] > high ? index[k] : high;
    }
    p.close = high - low < 2 * L;
    p.closer = p.closer && high - low < L;
    p.base[i] = low;
    typename Bits<T>::type lanes[L] = {};
    T weights[L] = {};
    for (int64_t k = 0; k < used; ++k) {
      lanes[k] = static_cast<typename Bits<T>::type>(index[k] - low);
      weights[k] = axis.weight[i % axis.taps * axis.to + first + k];
    }
    __builtin_memcpy(p.from + i, lanes, sizeof lanes);
    __builtin_memcpy(p.weight + i, weights, sizeof weights);
  }
  return p;
}

template <class T, bool Closer>
PYFRAME_INLINE void shuffled_row(const Picks<T>& p, int64_t taps, const T* row, T* y, int64_t n) {
  constexpr int L = kLanes<T>;
  const Mask<T>* from = p.from;
  const Vec<T>* weight = p.weight;
  const int64_t* base = p.base;
  for (int64_t o = 0; o < n; o += L) {
    Vec<T> total{};
    for (int64_t t = 0; t < taps; ++t, ++from, ++weight, ++base) {
      Vec<T> v;
      if constexpr (Closer) v = __builtin_shuffle(load(row + *base), *from);
      else v = __builtin_shuffle(load(row + *base), load(row + *base + L), *from);
      total = t ? total + *weight * v : *weight * v;
    }
    if (o + L <= n) store<T>(y + o, total);
    else store_part<T>(y + o, total, n - o);
  }
}

template <class T>
PYFRAME_INLINE void picked_row(const ResampleAxis<T>& axis, const T* row, T* y) {
  for (int64_t o = 0; o < axis.to; ++o) {
    T total = axis.weight[o] * row[axis.index[o]];
    for (int64_t i = axis.to + o; i < axis.taps * axis.to; i += axis.to) total += axis.weight[i] * row[axis.index[i]];
    y[o] = total;
  }
}

template <class T>
PYFRAME_INLINE void copy_elements(T* to, const T* from, int64_t n) {
  __builtin_memcpy(to, from, static_cast<std::size_t>(n) * sizeof(T));
}

// y = Σ weight · row over the taps of output row o of the height.
template <class T>
PYFRAME_INLINE void combined_row(const ResampleAxis<T>& axis, int64_t o, const T* image, int64_t n, T* y) {
  constexpr int L = kLanes<T>;
  if (!axis.taps) return copy_elements(y, image + o * n, n);
  const int64_t* const index = axis.index + o;
  const T* const weight = axis.weight + o;
  if (axis.taps == 1 && weight[0] == 1) return copy_elements(y, image + index[0] * n, n);
  int64_t c = 0;
  const auto block = [&](auto vectors, bool part) __attribute__((always_inline)) {
    constexpr int V = decltype(vectors)::value;
    const int64_t count = n - c;
    Vec<T> total[V]{};
    for (int64_t t = 0; t < axis.taps; ++t) {
      const T w = weight[t * axis.to];
      if (t && w == 0) continue;  // a place that a shorter window does not use
      const T* const row = image + index[t * axis.to] * n + c;
      for (int v = 0; v < V; ++v) {
        const Vec<T> value = part ? load_part(row, count) : load(row + v * L);
        total[v] = t ? total[v] + splat(w) * value : splat(w) * value;
      }
    }
    if (part) return store_part<T>(y + c, total[0], count);
    for (int v = 0; v < V; ++v) store<T>(y + c + v * L, total[v]);
  };
  for (; c + 4 * L <= n; c += 4 * L) block(std::integral_constant<int, 4>{}, false);
  for (; c + L <= n; c += L) block(std::integral_constant<int, 1>{}, false);
  if (c < n) block(std::integral_constant<int, 1>{}, true);
}

template <class T>
PYFRAME_INLINE bool same_taps(const ResampleAxis<T>& axis, int64_t a, int64_t b) {
  if (!axis.taps) return false;
  for (int64_t t = 0; t < axis.taps; ++t, a += axis.to, b += axis.to) {
    if (axis.index[a] != axis.index[b] || axis.weight[a] != axis.weight[b]) return false;
  }
  return true;
}

template <class T>
void run(const ResampleShape<T>& s, const T* x, T* y, int64_t begin, int64_t end, void* scratch) {
  const ResampleAxis<T>&h = s.height, &w = s.width;
  Picks<T> picks{};
  if (w.taps) picks = picks_of(w, static_cast<char*>(scratch));
  // Whole vectors are read from here on, also at the end of a row.
  T* const row = reinterpret_cast<T*>(static_cast<char*>(scratch) + (w.to + 64) * w.taps * (3 * sizeof(T) + 8) / 64 * 64);
  for (int64_t i = 0; i < w.from + 64; ++i) row[i] = T{};
  const int64_t blocks = (h.to + kResampleRows - 1) / kResampleRows;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t plane = item / blocks, first = item % blocks * kResampleRows;
    const int64_t last = first + kResampleRows < h.to ? first + kResampleRows : h.to;
    const T* const image = x + plane * h.from * w.from;
    T* const result = y + plane * h.to * w.to;
    for (int64_t o = first; o < last; ++o) {
      T* const to = result + o * w.to;
      if (o > first && same_taps(h, o - 1, o)) {
        copy_elements(to, to - w.to, w.to);
        continue;
      }
      if (!w.taps) {
        combined_row(h, o, image, w.from, to);
        continue;
      }
      combined_row(h, o, image, w.from, row);
      if (!picks.close) picked_row(w, row, to);
      else if (picks.closer) shuffled_row<T, true>(picks, w.taps, row, to, w.to);
      else shuffled_row<T, false>(picks, w.taps, row, to, w.to);
    }
  }
}

}  // namespace

extern const ResampleTable resample_table = {{run<float>}, {run<double>}};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
