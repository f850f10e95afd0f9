#include "depthwise.h"

#include "isa/depthwise_weight.h"
#include "isa/depthwise_window.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// `R` rows of a tile for a kernel whose size the compiler knows. With `Shared`, a row of the window is loaded once for
// all the rows that it belongs to.
template <class T, int H, int W, int R, bool Shared>
PYFRAME_INLINE void sized_rows(const Tile<T>& t, const Vec<T>* w, int64_t row) {
  constexpr int L = kLanes<T>;
  const T* const window = t.window + row * t.row_stride * t.pitch;
  T* const to = t.to + row * t.to_pitch;
  for (int64_t c = 0; c < t.columns; c += L) {
    const int64_t count = t.columns - c;
    Vec<T> total[R];
    for (int r = 0; r < R; ++r) total[r] = t.add ? load_up_to(to + r * t.to_pitch + c, count) : splat(t.first);
    if constexpr (Shared) {
#pragma GCC unroll 16
      for (int i = 0; i < R + H - 1; ++i) {
#pragma GCC unroll 16
        for (int b = 0; b < W; ++b) {
          const Vec<T> v = load(window + i * t.pitch + t.place[b] + c);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            if (i - r >= 0 && i - r < H) total[r] += w[(i - r) * W + b] * v;
          }
        }
      }
    } else {
#pragma GCC unroll 16
      for (int a = 0; a < H; ++a) {
#pragma GCC unroll 16
        for (int b = 0; b < W; ++b) {
          const T* const line = window + a * t.row_spread * t.pitch + t.place[b] + c;
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) total[r] += w[a * W + b] * load(line + r * t.row_stride * t.pitch);
        }
      }
    }
    for (int r = 0; r < R; ++r) store_up_to<T>(to + r * t.to_pitch + c, total[r], count);
  }
}

template <class T, int H, int W>
void sized(const Tile<T>& t) {
  Vec<T> w[H * W];
  for (int i = 0; i < H * W; ++i) w[i] = splat(t.weight[i]);
  int64_t row = 0;
  if (t.row_stride == 1 && (t.row_spread == 1 || H == 1)) {
    for (; row + 4 <= t.rows; row += 4) sized_rows<T, H, W, 4, true>(t, w, row);
    for (; row + 2 <= t.rows; row += 2) sized_rows<T, H, W, 2, true>(t, w, row);
  }
  for (; row + 2 <= t.rows; row += 2) sized_rows<T, H, W, 2, false>(t, w, row);  // two chains of sums
  for (; row < t.rows; ++row) sized_rows<T, H, W, 1, false>(t, w, row);
}

// Any kernel: R rows of V vectors at once.
template <class T, int R, int V>
PYFRAME_INLINE void any_block(const Tile<T>& t, int64_t row, int64_t c) {
  constexpr int L = kLanes<T>;
  Vec<T> total[R][V];
  T* const to = t.to + row * t.to_pitch + c;
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      const int64_t count = t.columns - c - v * L;
      total[r][v] = !t.add ? splat(t.first) : count > 0 ? load_up_to(to + r * t.to_pitch + v * L, count) : Vec<T>{};
    }
  }
  for (int64_t a = 0; a < t.height; ++a) {
    const T* const line = t.window + (row * t.row_stride + a * t.row_spread) * t.pitch + c;
    for (int64_t b = 0; b < t.width; ++b) {
      const Vec<T> w = splat(t.weight[a * t.width + b]);
      const T* const at = line + t.place[b];
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) total[r][v] += w * load(at + r * t.row_stride * t.pitch + v * L);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      const int64_t count = t.columns - c - v * L;
      if (count > 0) store_up_to<T>(to + r * t.to_pitch + v * L, total[r][v], count);
    }
  }
}

template <class T>
void any_size(const Tile<T>& t) {
  constexpr int L = kLanes<T>;
  int64_t row = 0;
  if (t.columns <= 2 * L) {
    for (; row + 4 <= t.rows; row += 4) {
      for (int64_t c = 0; c < t.columns; c += L) any_block<T, 4, 1>(t, row, c);
    }
  }
  for (; row < t.rows; ++row) {
    int64_t c = 0;
    for (; c + 4 * L <= t.columns; c += 4 * L) any_block<T, 1, 4>(t, row, c);
    for (; c < t.columns; c += L) any_block<T, 1, 1>(t, row, c);
  }
}

template <class T>
PYFRAME_INLINE void run_tile(const Tile<T>& t) {
  const int64_t size = t.height * 16 + (t.width < 16 ? t.width : 15);
  if (size == 0x33) return sized<T, 3, 3>(t);
  if constexpr (sizeof(T) == 4) {  // others are rare in float64, and a third of what there is to compile here
    switch (size) {
      case 0x11: return sized<T, 1, 1>(t);
      case 0x12: return sized<T, 1, 2>(t);
      case 0x21: return sized<T, 2, 1>(t);
      case 0x22: return sized<T, 2, 2>(t);
      case 0x23: return sized<T, 2, 3>(t);
      case 0x32: return sized<T, 3, 2>(t);
      case 0x55: return sized<T, 5, 5>(t);
    }
  }
  any_size<T>(t);
}

// V vectors of the flat form: to[i] (+)= Σ weight[tap] · from[i + shift[tap]] under the masks. Several chains of sums, as
// each addition of one waits for the one before.
template <class T, int V>
void flat_vectors(const T* from, T* to, int64_t count, const T* weight, const int64_t* shift, const LaneMask<T>* masks,
                  int64_t taps, bool add, T first) {
  constexpr int L = kLanes<T>;
  Vec<T> total[V];
  for (int v = 0; v < V; ++v) total[v] = add ? load_up_to(to + v * L, count - v * L) : splat(first);
  for (int64_t k = 0; k < taps; ++k) {
    const Vec<T> w = splat(weight[k]);
    for (int v = 0; v < V; ++v) total[v] = add_masked<T>(total[v], w, from + v * L + shift[k], masks[v * taps + k]);
  }
  for (int v = 0; v < V; ++v) store_up_to<T>(to + v * L, total[v], count - v * L);
}
template <class T>
PYFRAME_INLINE void flat_image(const T* from, T* to, int64_t pixels, const T* weight, const int64_t* shift,
                               const LaneMask<T>* masks, int64_t taps, bool add, T first) {
  constexpr int L = kLanes<T>;
  int64_t i = 0;
  for (; i + 3 * L < pixels; i += 4 * L, masks += 4 * taps) {
    flat_vectors<T, 4>(from + i, to + i, pixels - i, weight, shift, masks, taps, add, first);
  }
  switch ((pixels - i + L - 1) / L) {
    case 1: flat_vectors<T, 1>(from + i, to + i, pixels - i, weight, shift, masks, taps, add, first); break;
    case 2: flat_vectors<T, 2>(from + i, to + i, pixels - i, weight, shift, masks, taps, add, first); break;
    case 3: flat_vectors<T, 3>(from + i, to + i, pixels - i, weight, shift, masks, taps, add, first); break;
  }
}

// Counts (image, group, depth, tile row, tile column), the last one fastest.
struct Place {
  int64_t image, group, depth, row, column;
};
PYFRAME_INLINE Place place_of(const DepthwisePlan& p, int64_t item) {
  Place at;
  at.column = item % p.tiles[1];
  item /= p.tiles[1];
  at.row = item % p.tiles[0];
  item /= p.tiles[0];
  at.depth = item % p.axis[0].to;
  item /= p.axis[0].to;
  at.group = item % p.groups;
  at.image = item / p.groups;
  return at;
}
PYFRAME_INLINE void advance(const DepthwisePlan& p, Place& at) {
  if (++at.column < p.tiles[1]) return;
  at.column = 0;
  if (++at.row < p.tiles[0]) return;
  at.row = 0;
  if (++at.depth < p.axis[0].to) return;
  at.depth = 0;
  if (++at.group < p.groups) return;
  at.group = 0;
  ++at.image;
}

template <class T>
void correlate_flat(const DepthwisePlan& p, const T* from, const T* weight, const T* bias, T* to, int64_t begin,
                    int64_t end, T* scratch) {
  LaneMask<T>* const masks = reinterpret_cast<LaneMask<T>*>(scratch);
  fill_masks<T>(p, masks);
  int64_t shift[kMostFlatTaps];
  flat_shifts(p, shift);
  const int64_t taps = p.kernel[1] * p.kernel[2], pixels = p.axis[1].to * p.axis[2].to;
  const bool turned = p.axis[1].phase[0].tap_step < 0;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t group = item % p.groups;
    for (int64_t m = 0; m < p.outs; ++m) {
      T* const image = to + (item * p.outs + m) * pixels;
      const T first = bias ? bias[group * p.outs + m] : T{};
      for (int64_t i = 0; i < p.ins; ++i) {
        const T* const source = from + (item * p.ins + i) * pixels;
        const T* w = weight + group * p.ins * p.outs * taps + m * p.out_weights + i * p.in_weights;
        T reversed[kMostFlatTaps];
        if (turned) {
          for (int64_t k = 0; k < taps; ++k) reversed[k] = w[taps - 1 - k];
          w = reversed;
        }
        flat_image<T>(source, image, pixels, w, shift, masks, taps, i > 0, first);
      }
    }
  }
}

// One tile of one destination channel for all phases of height and width: adds what one source image, whose window is
// there, contributes through one tap of the depth; without a weight it fills the tile with `first`.
template <class T>
void run_phases(const DepthwisePlan& p, const Place& at, const T* window, const T* weight, T* image,
                               T* spare, T* taps, bool add, T first) {
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t row = at.row * p.tile[0], column = at.column * p.tile[1];
  const int64_t spare_pitch = (p.tile[1] + 15) / 16 * 16;
  int64_t place[kMostWidth];
  for (int64_t i = 0; i < h.phases; ++i) {
    const DepthwisePhase& tall = h.phase[i];
    for (int64_t j = 0; j < w.phases; ++j) {
      const DepthwisePhase& wide = w.phase[j];
      Tile<T> t;
      t.rows = at_most(p.tile[0], (h.to - i + h.phases - 1) / h.phases - row);
      t.columns = at_most(p.tile[1], (w.to - j + w.phases - 1) / w.phases - column);
      if (t.rows <= 0 || t.columns <= 0) continue;
      if (w.phases > 1) {
        t.to = spare + (i * w.phases + j) * p.tile[0] * spare_pitch;
        t.to_pitch = spare_pitch;
        t.columns = (t.columns + kLanes<T> - 1) / kLanes<T> * kLanes<T>;  // there is room for whole vectors
      } else {
        t.to = image + (row * h.phases + i) * w.to + column;
        t.to_pitch = h.phases * w.to;
      }
      t.window = window + (tall.first - h.low) * p.pitch;
      t.pitch = p.pitch;
      t.row_stride = h.stride;
      t.row_spread = h.spread;
      t.add = add;
      t.first = first;
      t.height = weight ? tall.taps : 0;
      t.width = wide.taps;
      for (int64_t b = 0; b < wide.taps; ++b) {
        const int64_t c = wide.first - w.low + b * w.spread;
        place[b] = w.stride == 1 ? c : c % w.stride * p.lane + c / w.stride;
      }
      t.place = place;
      T* k = taps;
      for (int64_t a = 0; a < t.height; ++a) {
        const T* const line = weight + (tall.first_tap + a * tall.tap_step) * p.kernel[2] + wide.first_tap;
        for (int64_t b = 0; b < wide.taps; ++b) *k++ = line[b * wide.tap_step];
      }
      t.weight = taps;
      run_tile(t);
    }
  }
}

// Brings the phases of the width together.
template <class T>
PYFRAME_INLINE void merge_phases(const DepthwisePlan& p, const Place& at, T* image, const T* spare) {
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t pitch = (p.tile[1] + 15) / 16 * 16, size = p.tile[0] * pitch;
  const int64_t row = at.row * p.tile[0] * h.phases, column = at.column * p.tile[1] * w.phases;
  const int64_t rows = at_most(p.tile[0] * h.phases, h.to - row);
  const int64_t columns = at_most(p.tile[1] * w.phases, w.to - column);
  for (int64_t r = 0; r < rows; ++r) {
    const T* const from = spare + r % h.phases * w.phases * size + r / h.phases * pitch;
    T* const to = image + (row + r) * w.to + column;
    if (w.phases == 2) {
      merge_row(to, from, from + size, columns);
      continue;
    }
    for (int64_t c = 0; c < columns; ++c) to[c] = from[c % w.phases * size + c / w.phases];
  }
}

template <class T>
void correlate_small(const DepthwisePlan& p, const T* from, const T* weight, const T* bias, T* to, int64_t begin,
                     int64_t end, T* scratch) {
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t room = (p.window + 15) / 16 * 16;
  T* const windows[2] = {scratch, scratch + room};
  T* const spare = scratch + 2 * room;
  T* const taps = spare + p.spare;
  const int64_t slice = h.from * w.from, kernel = p.kernel[1] * p.kernel[2], to_slice = h.to * w.to;
  const auto fill = [&](int64_t item) __attribute__((always_inline)) {
    fill_window(p, from + item * slice, h.low, w.low, windows[item % 2], item < begin + 2);
  };
  fill(begin);
  Place at{};
  for (int64_t item = begin; item < end; ++item) {
    if (item + 1 < end) fill(item + 1);
    at.group = item % p.groups;
    for (int64_t m = 0; m < p.outs; ++m) {
      T* const image = to + (item * p.outs + m) * to_slice;
      const T first = bias ? bias[at.group * p.outs + m] : T{};
      const T* const k = weight + at.group * p.outs * kernel + m * p.out_weights;
      run_phases<T>(p, at, windows[item % 2], k, image, spare, taps, false, first);
      if (w.phases > 1) merge_phases(p, at, image, spare);
    }
  }
}

template <class T>
void correlate(const DepthwisePlan& p, const T* from, const T* weight, const T* bias, T* to, int64_t begin, int64_t end,
               T* scratch) {
  if (flat_form<T>(p)) return correlate_flat(p, from, weight, bias, to, begin, end, scratch);
  if (one_window(p)) return correlate_small(p, from, weight, bias, to, begin, end, scratch);
  const DepthwiseAxis &d = p.axis[0], &h = p.axis[1], &w = p.axis[2];
  const int64_t room = (p.window + 15) / 16 * 16;  // for the window of each source channel
  T* const spare = scratch + p.ins * room;
  T* const taps = spare + p.spare;
  const int64_t slice = h.from * w.from, kernel = p.kernel[1] * p.kernel[2], to_slice = h.to * w.to;
  Place at = place_of(p, begin);
  for (int64_t item = begin; item < end; ++item, advance(p, at)) {
    const DepthwisePhase& deep = d.phase[at.depth % d.phases];
    const int64_t start = at.depth / d.phases * d.stride + deep.first;
    const int64_t row = at.row * p.tile[0] * h.stride + h.low, column = at.column * p.tile[1] * w.stride + w.low;
    const int64_t plane = at.image * p.groups + at.group;
    for (int64_t m = 0; m < p.outs; ++m) {
      T* const image = to + ((plane * p.outs + m) * d.to + at.depth) * to_slice;
      const T first = bias ? bias[at.group * p.outs + m] : T{};
      bool add = false;
      for (int64_t i = 0; i < p.ins; ++i) {
        const T* const channel = weight + at.group * p.ins * p.outs * p.kernel[0] * kernel + m * p.out_weights +
                                 i * p.in_weights;
        for (int64_t a = 0; a < deep.taps; ++a) {
          const int64_t z = start + a * d.spread;
          if (z < 0 || z >= d.from) continue;
          const T* const source = from + ((plane * p.ins + i) * d.from + z) * slice;
          T* const window = scratch + i * room;
          if (m == 0 || deep.taps > 1) fill_window(p, source, row, column, window, true);
          const T* const k = channel + (deep.first_tap + a * deep.tap_step) * kernel;
          run_phases<T>(p, at, window, k, image, spare, taps, add, first);
          add = true;
        }
      }
      if (!add) run_phases<T>(p, at, scratch, nullptr, image, spare, taps, false, first);
      if (w.phases > 1) merge_phases(p, at, image, spare);
    }
  }
}

// What the sums of one column of outputs, every so manieth row of them, read.
template <class T>
struct Column {
  const T *window, *weight, *first;
  int64_t row_stride, row_spread, column_spread;  // of the window
  int64_t height, width, row_step, column_step;         // of the taps, and between their weights
};

template <class T, int R>
void across_rows(const Column<T>& c, T* to, int64_t to_pitch) {
  Vec<T> total[R];
  for (int r = 0; r < R; ++r) total[r] = load(c.first);
  for (int64_t a = 0; a < c.height; ++a) {
    const T *at = c.window + a * c.row_spread, *weight = c.weight + a * c.row_step;
    for (int64_t b = 0; b < c.width; ++b, at += c.column_spread, weight += c.column_step) {
      const Vec<T> w = load(weight);
      for (int r = 0; r < R; ++r) total[r] += w * load(at + r * c.row_stride);
    }
  }
  for (int r = 0; r < R; ++r) store<T>(to + r * to_pitch, total[r]);
}

template <class T>
void across(const DepthwisePlan& p, const T* window, const T* weight, const T* first, T* to) {
  constexpr int L = kLanes<T>;
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t line = w.from * L, to_pitch = h.phases * w.to * L;
  Column<T> c;
  c.first = first;
  c.row_stride = h.stride * line, c.row_spread = h.spread * line, c.column_spread = w.spread * L;
  for (int64_t x = 0; x < w.to; ++x) {
    // The taps that see the image from this column.
    const DepthwisePhase& wide = w.phase[x % w.phases];
    const int64_t base = x / w.phases * w.stride + wide.first;
    const int64_t skipped = base < 0 ? (w.spread - 1 - base) / w.spread : 0;
    const int64_t seen = base < w.from ? (w.from - 1 - base) / w.spread + 1 : 0;
    c.width = at_least(at_most(seen, wide.taps) - skipped, 0);
    c.column_step = wide.tap_step * L;
    for (int64_t i = 0; i < h.phases; ++i) {
      const DepthwisePhase& tall = h.phase[i];
      const int64_t rows = (h.to - i + h.phases - 1) / h.phases;
      c.height = tall.taps, c.row_step = tall.tap_step * p.kernel[2] * L;
      c.weight = weight + (tall.first_tap * p.kernel[2] + wide.first_tap + skipped * wide.tap_step) * L;
      c.window = window + (p.above + tall.first) * line + (base + skipped * w.spread) * L;
      T* out = to + (i * w.to + x) * L;
      // Up to seven chains of sums, the rows of common images; fewer would wait for each other's additions.
      for (int64_t left = rows, count; left > 0; left -= count, c.window += count * c.row_stride, out += count * to_pitch) {
        count = left >= 7 ? 7 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        switch (count) {
          case 1: across_rows<T, 1>(c, out, to_pitch); break;
          case 2: across_rows<T, 2>(c, out, to_pitch); break;
          case 4: across_rows<T, 4>(c, out, to_pitch); break;
          default: across_rows<T, 7>(c, out, to_pitch); break;
        }
      }
    }
  }
}

}  // namespace

extern const DepthwiseTable depthwise_table = {{kLanes<float>, correlate<float>, weight<float>, across<float>}};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
