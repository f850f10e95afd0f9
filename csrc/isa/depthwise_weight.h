// The weight's gradient of direct convolutions: for each tap, the sum of products of the output's gradient with the
// shifted input. Sums stay in vectors, a vector per tap and pair of channels, until all images are through.
#pragma once

#include "depthwise.h"
#include "isa/depthwise_window.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// sums[b] += Σ gradient · window over a tile, for W neighbouring taps of one row of the kernel.
template <class T, int W>
PYFRAME_INLINE void weight_row(const Tile<T>& t, const T* gradient, int64_t gradient_pitch, const int64_t* place,
                               Vec<T>* sums) {
  constexpr int L = kLanes<T>;
  Vec<T> total[W]{};
  const int64_t whole = t.columns / L * L, rest = t.columns - whole;
  const Mask<T> keep = first_lanes<T>(rest);
  for (int64_t r = 0; r < t.rows; ++r) {
    const T* const g = gradient + r * gradient_pitch;
    const T* const line = t.window + r * t.row_stride * t.pitch;
    for (int64_t c = 0; c < whole; c += L) {
      const Vec<T> v = load(g + c);
#pragma GCC unroll 8
      for (int b = 0; b < W; ++b) total[b] += v * load(line + place[b] + c);
    }
    if (rest) {
      const Vec<T> v = load_part(g + whole, rest);
#pragma GCC unroll 8
      for (int b = 0; b < W; ++b) total[b] += v * (keep ? load(line + place[b] + whole) : Vec<T>{});
    }
  }
  for (int b = 0; b < W; ++b) sums[b] += total[b];
}

// The nine sums of a 3×3 kernel: R rows of the gradient at once, each row of the window loaded once for all of them.
template <class T, int R, bool Rest>
PYFRAME_INLINE void weight_nine_rows(const Tile<T>& t, const T* g, int64_t g_pitch, int64_t row, int64_t c, int64_t rest,
                                     Mask<T> keep, Vec<T>* total) {
  const T* const line = t.window + row * t.row_stride * t.pitch + c;
  Vec<T> v[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const T* const at = g + (row + r) * g_pitch + c;
    v[r] = Rest ? load_part(at, rest) : load(at);
  }
#pragma GCC unroll 16
  for (int i = 0; i < R + 2; ++i) {
#pragma GCC unroll 3
    for (int b = 0; b < 3; ++b) {
      const T* const at = line + i * (R == 1 ? t.row_spread : 1) * t.pitch + t.place[b];
      const Vec<T> x = Rest ? (keep ? load(at) : Vec<T>{}) : load(at);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        if (i - r >= 0 && i - r < 3) total[(i - r) * 3 + b] += v[r] * x;
      }
    }
  }
}
template <class T>
void weight_nine(const Tile<T>& t, const T* g, int64_t g_pitch, Vec<T>* sums) {
  constexpr int L = kLanes<T>;
  Vec<T> total[9]{};
  const int64_t whole = t.columns / L * L, rest = t.columns - whole;
  const Mask<T> keep = first_lanes<T>(rest);
  const int64_t fours = t.row_stride == 1 && t.row_spread == 1 ? t.rows / 4 * 4 : 0;
  if (whole) {
    for (int64_t row = 0; row < fours; row += 4) {
      for (int64_t c = 0; c < whole; c += L) weight_nine_rows<T, 4, false>(t, g, g_pitch, row, c, 0, keep, total);
    }
    for (int64_t row = fours; row < t.rows; ++row) {
      for (int64_t c = 0; c < whole; c += L) weight_nine_rows<T, 1, false>(t, g, g_pitch, row, c, 0, keep, total);
    }
  }
  if (rest) {
    for (int64_t row = 0; row < fours; row += 4) {
      weight_nine_rows<T, 4, true>(t, g, g_pitch, row, whole, rest, keep, total);
    }
    for (int64_t row = fours; row < t.rows; ++row) {
      weight_nine_rows<T, 1, true>(t, g, g_pitch, row, whole, rest, keep, total);
    }
  }
  for (int i = 0; i < 9; ++i) sums[i] += total[i];
}

template <class T>
PYFRAME_INLINE void weight_tile(Tile<T> t, const T* gradient, int64_t gradient_pitch, Vec<T>* sums) {
  if (t.height == 3 && t.width == 3) return weight_nine(t, gradient, gradient_pitch, sums);
  constexpr int kMost = sizeof(T) == 4 ? 8 : 4;  // float64 is rare: half of the code
  for (int64_t a = 0; a < t.height; ++a, t.window += t.row_spread * t.pitch) {
    for (int64_t b = 0, count; b < t.width; b += count, sums += count) {
      const int64_t* const place = t.place + b;
      count = at_most(t.width - b, kMost);
      if constexpr (kMost == 8) {
        switch (count) {
          case 5: weight_row<T, 5>(t, gradient, gradient_pitch, place, sums); continue;
          case 6: weight_row<T, 6>(t, gradient, gradient_pitch, place, sums); continue;
          case 7: weight_row<T, 7>(t, gradient, gradient_pitch, place, sums); continue;
          case 8: weight_row<T, 8>(t, gradient, gradient_pitch, place, sums); continue;
        }
      }
      switch (count) {
        case 1: weight_row<T, 1>(t, gradient, gradient_pitch, place, sums); break;
        case 2: weight_row<T, 2>(t, gradient, gradient_pitch, place, sums); break;
        case 3: weight_row<T, 3>(t, gradient, gradient_pitch, place, sums); break;
        default: weight_row<T, 4>(t, gradient, gradient_pitch, place, sums); break;
      }
    }
  }
}

// The flat form: W sums over a whole image.
template <class T, int W>
PYFRAME_INLINE void weight_flat(const T* gradient, const T* from, int64_t pixels, const int64_t* shift,
                                const LaneMask<T>* masks, int64_t taps, Vec<T>* sums) {
  constexpr int L = kLanes<T>;
  Vec<T> total[W]{};
  for (int64_t i = 0; i < pixels; i += L, masks += taps) {
    const Vec<T> g = load_up_to(gradient + i, pixels - i);
#pragma GCC unroll 9
    for (int k = 0; k < W; ++k) total[k] = add_masked<T>(total[k], g, from + i + shift[k], masks[k]);
  }
  for (int k = 0; k < W; ++k) sums[k] += total[k];
}
template <class T>
PYFRAME_INLINE void weight_image(const T* gradient, const T* from, int64_t pixels, const int64_t* shift,
                                 const LaneMask<T>* masks, int64_t taps, Vec<T>* sums) {
  int64_t k = 0;
  for (; k + 9 <= taps; k += 9) weight_flat<T, 9>(gradient, from, pixels, shift + k, masks + k, taps, sums + k);
  for (; k + 3 <= taps; k += 3) weight_flat<T, 3>(gradient, from, pixels, shift + k, masks + k, taps, sums + k);
  for (; k < taps; ++k) weight_flat<T, 1>(gradient, from, pixels, shift + k, masks + k, taps, sums + k);
}

PYFRAME_INLINE void weight_places(const DepthwisePlan& p, int64_t* place) {
  const DepthwiseAxis& w = p.axis[2];
  for (int64_t b = 0; b < p.kernel[2]; ++b) {
    const int64_t c = b * w.spread;
    place[b] = c % w.stride * p.lane + c / w.stride;
  }
}

// All images of a block of groups where an image is one window.
template <class T>
void weight_small(const DepthwisePlan& p, const T* from, const T* gradient, int64_t begin, int64_t end, int64_t first,
                  int64_t last, T* window, Vec<T>* sums) {
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t kernel = p.kernel[1] * p.kernel[2], slice = h.from * w.from, to_slice = h.to * w.to;
  int64_t place[kMostWidth];
  weight_places(p, place);
  T* const windows[2] = {window, window + (p.window + 15) / 16 * 16};
  Tile<T> t{};
  t.pitch = p.pitch;
  t.row_stride = h.stride;
  t.row_spread = h.spread;
  t.place = place;
  t.height = p.kernel[1];
  t.width = p.kernel[2];
  t.rows = h.to;
  t.columns = w.to;
  const int64_t groups = end - begin, images = (last - first) * groups;
  const auto plane = [&](int64_t i) __attribute__((always_inline)) {
    return (first + i / groups) * p.groups + begin + i % groups;
  };
  const auto fill = [&](int64_t i) __attribute__((always_inline)) {
    fill_window(p, from + plane(i) * slice, h.low, w.low, windows[i % 2], i < 2);
  };
  fill(0);
  for (int64_t i = 0; i < images; ++i) {
    if (i + 1 < images) fill(i + 1);
    t.window = windows[i % 2];
    for (int64_t m = 0; m < p.outs; ++m) {
      const T* const g = gradient + (plane(i) * p.outs + m) * to_slice;
      weight_tile<T>(t, g, w.to, sums + (i % groups * p.outs + m) * kernel);
    }
  }
}

// All tiles of one image and group, added to the group's sums.
template <class T>
PYFRAME_INLINE void weight_group(const DepthwisePlan& p, const T* from, const T* gradient, int64_t plane, T* window,
                                 Vec<T>* sums) {
  const DepthwiseAxis &d = p.axis[0], &h = p.axis[1], &w = p.axis[2];
  const int64_t kernel = p.kernel[1] * p.kernel[2], taps = p.kernel[0] * kernel;
  int64_t place[kMostWidth];
  weight_places(p, place);
  Tile<T> t{};
  t.window = window;
  t.pitch = p.pitch;
  t.row_stride = h.stride;
  t.row_spread = h.spread;
  t.place = place;
  t.height = p.kernel[1];
  t.width = p.kernel[2];
  for (int64_t depth = 0; depth < d.to; ++depth) {
    for (int64_t row = 0; row < h.to; row += p.tile[0]) {
      for (int64_t column = 0; column < w.to; column += p.tile[1]) {
        t.rows = at_most(p.tile[0], h.to - row);
        t.columns = at_most(p.tile[1], w.to - column);
        for (int64_t i = 0; i < p.ins; ++i) {
          for (int64_t a = 0; a < p.kernel[0]; ++a) {
            const int64_t z = depth * d.stride + d.low + a * d.spread;
            if (z < 0 || z >= d.from) continue;
            const T* const source = from + ((plane * p.ins + i) * d.from + z) * h.from * w.from;
            fill_window(p, source, row * h.stride + h.low, column * w.stride + w.low, window, true);
            for (int64_t m = 0; m < p.outs; ++m) {
              const T* const g = gradient + (((plane * p.outs + m) * d.to + depth) * h.to + row) * w.to + column;
              weight_tile<T>(t, g, w.to, sums + (m * p.ins + i) * taps + a * kernel);
            }
          }
        }
      }
    }
  }
}

template <class T>
void weight(const DepthwisePlan& p, const T* from, const T* gradient, T* weights, int64_t begin, int64_t end,
            int64_t first, int64_t last, T* scratch) {
  const int64_t kernel = p.kernel[1] * p.kernel[2], per_group = p.ins * p.outs * p.kernel[0] * kernel;
  const int64_t pixels = p.axis[1].to * p.axis[2].to;
  Vec<T>* const sums = reinterpret_cast<Vec<T>*>(scratch);
  const int64_t count = (end - begin) * per_group;
  for (int64_t i = 0; i < count; ++i) sums[i] = Vec<T>{};
  T* const rest = scratch + count * kLanes<T>;
  const bool flat = flat_form<T>(p);
  LaneMask<T>* const masks = reinterpret_cast<LaneMask<T>*>(rest);
  int64_t shift[kMostFlatTaps];
  if (flat) {
    fill_masks<T>(p, masks);
    flat_shifts(p, shift);
  }
  const bool small = !flat && one_window(p);
  if (small) weight_small(p, from, gradient, begin, end, first, last, rest, sums);
  for (int64_t image = first; image < last && !small; ++image) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t plane = image * p.groups + group;
      Vec<T>* const own = sums + (group - begin) * per_group;
      if (!flat) {
        weight_group(p, from, gradient, plane, rest, own);
        continue;
      }
      for (int64_t m = 0; m < p.outs; ++m) {
        for (int64_t i = 0; i < p.ins; ++i) {
          weight_image<T>(gradient + (plane * p.outs + m) * pixels, from + (plane * p.ins + i) * pixels, pixels, shift,
                          masks, kernel, own + (m * p.ins + i) * kernel);
        }
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) weights[begin * per_group + i] = hsum<T>(sums[i]);
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
