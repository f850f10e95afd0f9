// The padded window of one image tile that direct convolutions work on, and the masks of the form without a window.
#pragma once

#include <type_traits>

#include "depthwise.h"
#include "isa/lanes.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {

PYFRAME_INLINE std::int64_t at_least(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
PYFRAME_INLINE std::int64_t at_most(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
PYFRAME_INLINE std::int64_t between(std::int64_t v, std::int64_t low, std::int64_t high) {
  return at_most(at_least(v, low), high);
}

template <class T> PYFRAME_INLINE void zero_row(T* to, std::int64_t n) {
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  for (; i + L <= n; i += L) store<T>(to + i, Vec<T>{});
  if (i < n) store_part<T>(to + i, Vec<T>{}, n - i);
}
// Copies n elements; with `whole` also the last vector is stored whole, zeros behind the last element.
template <class T> PYFRAME_INLINE void copy_row(T* to, const T* from, std::int64_t n, bool whole) {
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  for (; i + L <= n; i += L) store<T>(to + i, load(from + i));
  if (i == n) return;
  const Vec<T> last = load_part(from + i, n - i);
  whole ? store<T>(to + i, last) : store_part<T>(to + i, last, n - i);
}

// even[i] = from[2 i], odd[i] = from[2 i + 1] for n elements of `from`; with `whole` as in copy_row.
template <class T> PYFRAME_INLINE void split_row(T* even, T* odd, const T* from, std::int64_t n, bool whole) {
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    const Vec<T> a = load(from + i), b = load(from + i + L);
    store<T>(even + i / 2, alternate<T, 0>(a, b));
    store<T>(odd + i / 2, alternate<T, 1>(a, b));
  }
  const std::int64_t rest = n - i;
  if (rest <= 0) return;
  const Vec<T> a = rest >= L ? load(from + i) : load_part(from + i, rest);
  const Vec<T> b = rest > L ? load_part(from + i + L, rest - L) : Vec<T>{};
  if (whole) {
    store<T>(even + i / 2, alternate<T, 0>(a, b));
    store<T>(odd + i / 2, alternate<T, 1>(a, b));
  } else {
    store_part<T>(even + i / 2, alternate<T, 0>(a, b), (rest + 1) / 2);
    store_part<T>(odd + i / 2, alternate<T, 1>(a, b), rest / 2);
  }
}
// to[2 i] = even[i], to[2 i + 1] = odd[i] for n elements of `to`; whole vectors may be read.
template <class T> PYFRAME_INLINE void merge_row(T* to, const T* even, const T* odd, std::int64_t n) {
  constexpr int L = kLanes<T>;
  std::int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    const Vec<T> a = load(even + i / 2), b = load(odd + i / 2);
    store<T>(to + i, interleaved<T, 0>(a, b));
    store<T>(to + i + L, interleaved<T, 1>(a, b));
  }
  const std::int64_t rest = n - i;
  if (rest <= 0) return;
  const Vec<T> a = load(even + i / 2), b = load(odd + i / 2), low = interleaved<T, 0>(a, b);
  if (rest < L) return store_part<T>(to + i, low, rest);
  store<T>(to + i, low);
  if (rest > L) store_part<T>(to + i + L, interleaved<T, 1>(a, b), rest - L);
}

// Copies the rows `row` and columns `column` on of an image into a window, with zeros where there is no image (left as
// they are without `margins`). With a stride along the width, element c of a row goes to residue c % stride:
// neighbouring outputs then read neighbours.
template <class T>
PYFRAME_INLINE void fill_window(const DepthwisePlan& p, const T* image, std::int64_t row, std::int64_t column, T* window,
                                bool margins) {
  constexpr int L = kLanes<T>;
  const std::int64_t height = p.axis[1].from, width = p.axis[2].from, stride = p.axis[2].stride;
  const std::int64_t low = between(-column, 0, p.pitch), high = between(width - column, low, p.pitch);
  // Whole vectors are cheaper to store, and to load again soon after, than parts.
  const std::int64_t end = stride == 1 ? low + (high - low + L - 1) / L * L
                                       : (low + 1) / 2 + ((high - low + 1) / 2 + L - 1) / L * L;
  const bool whole = end <= p.lane;
  for (std::int64_t r = 0; r < p.rows; ++r, window += p.pitch) {
    const std::int64_t source = row + r;
    if (source < 0 || source >= height || low == high) {
      if (margins) zero_row(window, p.pitch);
      continue;
    }
    const T* const from = image + source * width + column;
    if (stride == 1) {
      if (margins) zero_row(window, low);
      copy_row(window + low, from + low, high - low, whole);
      if (margins) zero_row(window + high, p.pitch - high);
      continue;
    }
    if (margins) zero_row(window, p.pitch);
    std::int64_t c = low;
    if (stride == 2) {
      if (c % 2) {
        window[p.lane + c / 2] = from[c];
        ++c;
      }
      if (c < high) split_row(window + c / 2, window + p.lane + c / 2, from + c, high - c, whole);
      continue;
    }
    for (; c < high; ++c) window[c % stride * p.lane + c / stride] = from[c];
  }
}

// Whether one window holds all that a source image contributes to a destination; then windows are filled one ahead of
// their use, since loads soon after stores that they only partly overlap wait for those to reach the cache.
PYFRAME_INLINE bool one_window(const DepthwisePlan& p) {
  return p.axis[0].from == 1 && p.axis[0].to == 1 && p.kernel[0] == 1 && p.axis[0].low == 0 && p.ins == 1 &&
         p.tiles[0] * p.tiles[1] == 1 && p.window <= kSmallWindow;
}

// Small images without a change of size are worked on as one flat row: a tap is a shift of all of it, and a mask per
// vector and tap says which elements still lie in the right row. Needs loads that leave masked memory alone.
#if defined(__AVX512F__)
constexpr bool kFlatForm = true;
template <class T> struct LaneMaskOf { using type = std::conditional_t<sizeof(T) == 4, std::uint16_t, std::uint8_t>; };
#elif defined(__AVX2__)
constexpr bool kFlatForm = true;
template <class T> struct LaneMaskOf { using type = Mask<T>; };
#else
constexpr bool kFlatForm = false;
template <class T> struct LaneMaskOf { using type = Mask<T>; };
#endif
template <class T> using LaneMask = typename LaneMaskOf<T>::type;

// total + factor · from[lanes of the mask]
template <class T>
PYFRAME_INLINE Vec<T> add_masked(Vec<T> total, Vec<T> factor, const T* from, LaneMask<T> mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return (Vec<T>)_mm512_mask3_fmadd_ps((__m512)factor, _mm512_maskz_loadu_ps(mask, from), (__m512)total, mask);
  } else {
    return (Vec<T>)_mm512_mask3_fmadd_pd((__m512d)factor, _mm512_maskz_loadu_pd(mask, from), (__m512d)total, mask);
  }
#elif defined(__AVX2__)
  Vec<T> v;
  if constexpr (sizeof(T) == 4) v = (Vec<T>)_mm256_maskload_ps(from, (__m256i)mask);
  else v = (Vec<T>)_mm256_maskload_pd(from, (__m256i)mask);
  return mask ? total + factor * v : total;
#else
  for (int i = 0; i < kLanes<T>; ++i) {
    if (mask[i]) total[i] += factor[i] * from[i];
  }
  return total;
#endif
}

// masks[vector * taps + tap]
template <class T> PYFRAME_INLINE void fill_masks(const DepthwisePlan& p, LaneMask<T>* masks) {
  constexpr int L = kLanes<T>;
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const std::int64_t width = w.to, pixels = h.to * width;
  for (std::int64_t first = 0; first < pixels; first += L) {
    for (std::int64_t a = 0; a < p.kernel[1]; ++a) {
      for (std::int64_t b = 0; b < p.kernel[2]; ++b) {
        LaneMask<T> mask{};
        for (int i = 0; i < L; ++i) {
          const std::int64_t row = (first + i) / width + h.low + a * h.spread;
          const std::int64_t column = (first + i) % width + w.low + b * w.spread;
          const bool in = first + i < pixels && row >= 0 && row < h.to && column >= 0 && column < width;
#if defined(__AVX512F__)
          if (in) mask = static_cast<LaneMask<T>>(mask | (1u << i));
#else
          mask[i] = in ? -1 : 0;
#endif
        }
        *masks++ = mask;
      }
    }
  }
}

constexpr int kMostWidth = 64;  // taps along the width whose places in a window are kept on the stack

// One tile: to[r, c] (+)= Σ weight[a, b] · window[r · row_stride + a · row_spread, place[b] + c].
template <class T>
struct Tile {
  T* to;
  int64_t to_pitch, rows, columns;
  const T* window;
  int64_t pitch, row_stride, row_spread;
  const int64_t* place;
  const T* weight;
  int64_t height, width;  // of the kernel
  bool add;               // to what `to` has, else to `first`
  T first;
};

template <class T> PYFRAME_INLINE Vec<T> load_up_to(const T* from, int64_t count) {
  return count >= kLanes<T> ? load(from) : load_part(from, count);
}
template <class T> PYFRAME_INLINE void store_up_to(T* to, Vec<T> v, int64_t count) {
  count >= kLanes<T> ? store<T>(to, v) : store_part<T>(to, v, count);
}

constexpr int kMostFlatTaps = 49;

template <class T>
PYFRAME_INLINE bool flat_form(const DepthwisePlan& p) {
  return kFlatForm && p.flat && p.kernel[1] * p.kernel[2] <= kMostFlatTaps;
}

PYFRAME_INLINE void flat_shifts(const DepthwisePlan& p, int64_t* shift) {
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  for (int64_t a = 0; a < p.kernel[1]; ++a) {
    for (int64_t b = 0; b < p.kernel[2]; ++b) *shift++ = (h.low + a * h.spread) * w.to + w.low + b * w.spread;
  }
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
