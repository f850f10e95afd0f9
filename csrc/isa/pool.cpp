#include "pool.h"

#include "isa/lanes.h"
#include "isa/rows.h"
#include "isa/short_rows.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

PYFRAME_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
PYFRAME_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
PYFRAME_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The taps of output `o` along a dimension that lie inside the image: first to last, which starts at `start`.
struct Taps {
  int64_t first, last, start;
};
PYFRAME_INLINE Taps taps(const PoolShape& s, int dim, int64_t o) {
  if (s.stride[dim] == 0) {  // adaptive
    const int64_t from = o * s.size[dim] / s.out[dim];
    return {0, ceil_div((o + 1) * s.size[dim], s.out[dim]) - from, from};
  }
  const int64_t start = o * s.stride[dim] - s.padding[dim], step = s.dilation[dim];
  const int64_t first = start < 0 ? ceil_div(-start, step) : 0;
  const int64_t room = s.size[dim] - start;
  return {first, room > 0 ? least(s.kernel[dim], ceil_div(room, step)) : 0, start};
}

// Outputs of a row of which all taps lie inside the image.
struct Inside {
  int64_t first, last;
};
PYFRAME_INLINE Inside inside(const PoolShape& s) {
  if (s.stride[2] == 0) return {0, 0};
  const int64_t reach = (s.kernel[2] - 1) * s.dilation[2], room = s.size[2] + s.padding[2] - reach - 1;
  const int64_t last = room < 0 ? 0 : least(s.out[2], room / s.stride[2] + 1);
  const int64_t first = least(ceil_div(s.padding[2], s.stride[2]), last);
  return {first, last};
}

// Up to kLanes elements with a distance of 1 or 2; a whole vector with distance 2 reads one element further than it uses.
template <class T, int Stride, bool Whole>
PYFRAME_INLINE Vec<T> load_spaced(const T* p, int64_t count) {
  constexpr int L = kLanes<T>;
  if constexpr (Stride == 1) {
    return Whole ? load(p) : load_part(p, count);
  } else {
    if constexpr (Whole) return alternate<T, 0>(load(p), load(p + L));
    const int64_t used = 2 * count - 1;
    const Vec<T> high = used > L ? load_part(p + L, used - L) : Vec<T>{};
    return alternate<T, 0>(used < L ? load_part(p, used) : load(p), high);
  }
}

// Places are 64-bit integers, of which a vector's worth fills one or two registers.
template <class T>
PYFRAME_INLINE Mask<T> load_places(const int64_t* from, int64_t count) {
  constexpr int L = kLanes<T>, N = kLanes<int64_t>;
  typedef int64_t Wide __attribute__((vector_size(L * 8)));
  int64_t parts[L];
  for (int i = 0; i < L; i += N) {
    const int64_t used = least(count - i, N);
    store<int64_t>(parts + i, used == N ? load(from + i) : load_part(from + i, most(used, 0)));
  }
  Wide wide;
  __builtin_memcpy(&wide, parts, sizeof wide);
  return __builtin_convertvector(wide, Mask<T>);
}
template <class T>
PYFRAME_INLINE void store_places(int64_t* to, Mask<T> where, int64_t count) {
  constexpr int L = kLanes<T>, N = kLanes<int64_t>;
  typedef int64_t Wide __attribute__((vector_size(L * 8)));
  const Wide wide = __builtin_convertvector(where, Wide);
  int64_t parts[L];
  __builtin_memcpy(parts, &wide, sizeof wide);
  for (int i = 0; i < L; i += N) {
    const int64_t used = least(count - i, N);
    if (used == N) store<int64_t>(to + i, load(parts + i));
    else if (used > 0) store_part<int64_t>(to + i, load(parts + i), used);
  }
}

template <class T>
PYFRAME_INLINE void max_one(const PoolShape& s, const T* x, const Taps& d, const Taps& h, int64_t o, T* y,
                            int64_t* place) {
  const Taps w = taps(s, 2, o);
  T best = -static_cast<T>(__builtin_inf());
  int64_t found = -1;
  for (int64_t a = d.first; a < d.last; ++a) {
    for (int64_t b = h.first; b < h.last; ++b) {
      const int64_t row = ((d.start + a * s.dilation[0]) * s.size[1] + h.start + b * s.dilation[1]) * s.size[2] + w.start;
      for (int64_t c = w.first; c < w.last; ++c) {
        const int64_t at = row + c * s.dilation[2];
        const T v = x[at];
        if (found < 0 || v > best || v != v) {
          best = v;
          found = at;
        }
      }
    }
  }
  *y = best;
  if (place) *place = found;
}

// Up to kLanes neighbouring outputs from number `o` on, all of whose taps lie inside the image's width.
template <class T, int Stride, bool Whole>
PYFRAME_INLINE void max_vector(const PoolShape& s, const T* x, const Taps& d, const Taps& h, int64_t o, int64_t count,
                               T* y, int64_t* places) {
  using Index = Mask<T>;
  const Index lane = lane_numbers<T, 0, Stride>();
  const int64_t column = o * Stride - s.padding[2];
  Vec<T> best{};
  Index where{};
  bool started = false;
  for (int64_t a = d.first; a < d.last; ++a) {
    for (int64_t b = h.first; b < h.last; ++b) {
      const int64_t row = ((d.start + a * s.dilation[0]) * s.size[1] + h.start + b * s.dilation[1]) * s.size[2] + column;
      for (int64_t c = 0; c < s.kernel[2]; ++c) {
        const int64_t at = row + c * s.dilation[2];
        const Vec<T> v = load_spaced<T, Stride, Whole>(x + at, count);
        const Index here = lane + static_cast<typename Bits<T>::type>(at);
        if (!started) {
          best = v;
          where = here;
          started = true;
          continue;
        }
        const Index wins = (v > best) | (v != v);
        best = wins ? v : best;
        where = wins ? here : where;
      }
    }
  }
  if constexpr (Whole) store<T>(y + o, best);
  else store_part<T>(y + o, best, count);
  store_places<T>(places + o, where, Whole ? kLanes<T> : count);
}

// The same without places. NaN wins here too; of equal values the first stays.
template <class T, int Stride, bool Whole>
PYFRAME_INLINE void max_vector_values(const PoolShape& s, const T* x, const Taps& d, const Taps& h, int64_t o,
                                      int64_t count, T* y) {
  const int64_t column = o * Stride - s.padding[2];
  Vec<T> best = splat(-static_cast<T>(__builtin_inf()));
  for (int64_t a = d.first; a < d.last; ++a) {
    for (int64_t b = h.first; b < h.last; ++b) {
      const T* const row =
          x + ((d.start + a * s.dilation[0]) * s.size[1] + h.start + b * s.dilation[1]) * s.size[2] + column;
      for (int64_t c = 0; c < s.kernel[2]; ++c) {
        const Vec<T> v = load_spaced<T, Stride, Whole>(row + c * s.dilation[2], count);
        best = v != v ? v : vmax<T>(v, best);
      }
    }
  }
  if constexpr (Whole) store<T>(y + o, best);
  else store_part<T>(y + o, best, count);
}

// How far from the start of an output's column the last element is that its window reads.
PYFRAME_INLINE int64_t furthest(const PoolShape& s, const Taps& d, const Taps& h) {
  return ((d.start + (d.last - 1) * s.dilation[0]) * s.size[1] + h.start + (h.last - 1) * s.dilation[1]) * s.size[2] +
         (s.kernel[2] - 1) * s.dilation[2];
}

// Cuts the outputs `first` to `last` of a row into vectors: calls whole(o), and part(o, count) at the end of the row or
// where a whole vector would read past the array.
template <class T, int Stride, class Full, class Part>
PYFRAME_INLINE int64_t over_outputs(const PoolShape& s, int64_t reach, int64_t readable, int64_t first, int64_t last,
                                    Full whole, Part part) {
  constexpr int L = kLanes<T>;
  int64_t o = first;
  for (; o + L <= last && reach + (o + L) * Stride - s.padding[2] <= readable; o += L) whole(o);
  for (; o < last; o += L) part(o, least(L, last - o));
  return last;
}

template <class T, int Stride>
PYFRAME_INLINE int64_t max_vectors(const PoolShape& s, const T* x, int64_t readable, const Taps& d, const Taps& h,
                                   int64_t first, int64_t last, T* y, int64_t* places) {
  if (!places) {
    return over_outputs<T, Stride>(
        s, furthest(s, d, h), readable, first, last,
        [&](int64_t o) __attribute__((always_inline)) { max_vector_values<T, Stride, true>(s, x, d, h, o, kLanes<T>, y); },
        [&](int64_t o, int64_t m) __attribute__((always_inline)) {
          max_vector_values<T, Stride, false>(s, x, d, h, o, m, y);
        });
  }
  return over_outputs<T, Stride>(
      s, furthest(s, d, h), readable, first, last,
      [&](int64_t o) __attribute__((always_inline)) { max_vector<T, Stride, true>(s, x, d, h, o, kLanes<T>, y, places); },
      [&](int64_t o, int64_t m) __attribute__((always_inline)) {
        max_vector<T, Stride, false>(s, x, d, h, o, m, y, places);
      });
}

constexpr int64_t kMostColumns = 1024;

// A row of outputs whose windows share few columns: first the maximum of every column of the image, in vectors, then of
// the columns of each window. Of equal values the first in the image counts, of several NaN the last.
template <class T>
PYFRAME_INLINE void max_columns(const PoolShape& s, const T* x, const Taps& d, const Taps& h, T* y, int64_t* places) {
  constexpr int L = kLanes<T>;
  using Index = Mask<T>;
  using Integer = typename Bits<T>::type;
  T tops[kMostColumns + L];
  Integer rows[kMostColumns + L];
  for (int64_t c = 0; c < s.size[2]; c += L) {
    Vec<T> best{};
    Index where{};
    bool started = false;
    for (int64_t a = d.first; a < d.last; ++a) {
      for (int64_t b = h.first; b < h.last; ++b) {
        const int64_t row = ((d.start + a * s.dilation[0]) * s.size[1] + h.start + b * s.dilation[1]) * s.size[2];
        const Vec<T> v = c + L <= s.size[2] ? load(x + row + c) : load_part(x + row + c, s.size[2] - c);
        const Index here = static_cast<Integer>(row) - Index{};
        const Index wins = (v > best) | (v != v);
        best = started ? (wins ? v : best) : v;
        where = started ? (wins ? here : where) : here;
        started = true;
      }
    }
    store<T>(tops + c, best);
    __builtin_memcpy(rows + c, &where, sizeof where);
  }
  for (int64_t o = 0; o < s.out[2]; ++o) {
    const Taps w = taps(s, 2, o);
    int64_t at = w.start + w.first * s.dilation[2];
    T best = tops[at];
    int64_t found = rows[at] + at;
    for (int64_t c = w.first + 1; c < w.last; ++c) {
      at = w.start + c * s.dilation[2];
      const T v = tops[at];
      const int64_t place = rows[at] + at;
      const bool wins = v != v ? best == best || place > found : v > best || (v == best && place < found);
      best = wins ? v : best;
      found = wins ? place : found;
    }
    y[o] = best;
    if (places) places[o] = found;
  }
}

template <class T>
void max_plane(const PoolShape& s, const T* x, int64_t readable, T* y, int64_t* places) {
  const Inside in = inside(s);
  const bool columns = (s.stride[2] == 0 || s.stride[2] > 2) && s.size[2] <= kMostColumns;
  for (int64_t i = 0; i < s.out[0]; ++i) {
    const Taps d = taps(s, 0, i);
    for (int64_t j = 0; j < s.out[1]; ++j, y += s.out[2], places += places ? s.out[2] : 0) {
      const Taps h = taps(s, 1, j);
      if (columns && d.last > d.first && h.last > h.first) {
        max_columns(s, x, d, h, y, places);
        continue;
      }
      int64_t o = 0;
      for (; o < in.first; ++o) max_one(s, x, d, h, o, y + o, places ? places + o : nullptr);
      if (s.stride[2] == 1) o = max_vectors<T, 1>(s, x, readable, d, h, o, in.last, y, places);
      else if (s.stride[2] == 2) o = max_vectors<T, 2>(s, x, readable, d, h, o, in.last, y, places);
      for (; o < s.out[2]; ++o) max_one(s, x, d, h, o, y + o, places ? places + o : nullptr);
    }
  }
}

// Windows that lie side by side without gaps, two columns wide: every element of gx is written once, in order.
template <class T>
PYFRAME_INLINE void max_backward_pairs(const PoolShape& s, const T* g, const int64_t* places, T* gx) {
  constexpr int L = kLanes<T>;
  using Index = Mask<T>;
  const int64_t row = s.size[2], slice = s.size[1] * row;
  for (int64_t i = 0; i < s.out[0] * s.kernel[0]; ++i) {
    for (int64_t j = 0; j < s.out[1] * s.kernel[1]; ++j) {
      const int64_t from = (i / s.kernel[0] * s.out[1] + j / s.kernel[1]) * s.out[2], line = i * slice + j * row;
      for (int64_t o = 0; o < s.out[2]; o += L) {
        const int64_t count = least(s.out[2] - o, L);
        const Index at = load_places<T>(places + from + o, count) - static_cast<typename Bits<T>::type>(line + 2 * o);
        const Vec<T> v = count == L ? load(g + from + o) : load_part(g + from + o, count);
        const Vec<T> even = at == lane_numbers<T, 0, 2>() ? v : Vec<T>{};
        const Vec<T> odd = at == lane_numbers<T, 1, 2>() ? v : Vec<T>{};
        const Vec<T> low = interleaved<T, 0>(even, odd), high = interleaved<T, 1>(even, odd);
        T* const to = gx + line + 2 * o;
        if (count == L) {
          store<T>(to, low);
          store<T>(to + L, high);
        } else if (2 * count < L) {
          store_part<T>(to, low, 2 * count);
        } else {
          store<T>(to, low);
          store_part<T>(to + L, high, 2 * count - L);
        }
      }
      for (int64_t c = 2 * s.out[2]; c < row; ++c) gx[line + c] = 0;
    }
    for (int64_t c = s.out[1] * s.kernel[1] * row; c < slice; ++c) gx[i * slice + c] = 0;
  }
  for (int64_t c = s.out[0] * s.kernel[0] * slice; c < s.size[0] * slice; ++c) gx[c] = 0;
}

PYFRAME_INLINE bool side_by_side(const PoolShape& s) {
  for (int d = 0; d < 3; ++d) {
    const bool one = s.kernel[d] == 1;
    if (s.kernel[d] != s.stride[d] || s.padding[d] || (s.dilation[d] != 1 && !one)) return false;
    if (s.out[d] * s.kernel[d] > s.size[d]) return false;  // a last window hangs over the end
  }
  return s.kernel[2] == 2;
}

template <class T>
void max_backward(const PoolShape& s, const T* g, const int64_t* places, T* gx) {
  if (side_by_side(s) && s.out[2] >= kLanes<T>) return max_backward_pairs(s, g, places, gx);
  const int64_t outputs = s.out[0] * s.out[1] * s.out[2], pixels = s.size[0] * s.size[1] * s.size[2];
  __builtin_memset(gx, 0, static_cast<std::size_t>(pixels) * sizeof(T));
  bool apart = true;  // no element is in two windows
  for (int i = 0; i < 3; ++i) apart = apart && s.stride[i] > (s.kernel[i] - 1) * s.dilation[i];
  if (apart) {
    for (int64_t i = 0; i < outputs; ++i) gx[places[i]] = g[i];
  } else {
    for (int64_t i = 0; i < outputs; ++i) gx[places[i]] += g[i];
  }
}

template <class T, int Stride, bool Whole>
PYFRAME_INLINE void average_vector(const PoolShape& s, const T* x, const Taps& d, const Taps& h, int64_t o,
                                   int64_t count, T factor, const T* factors, T* y) {
  const int64_t column = o * Stride - s.padding[2];
  Vec<T> total{};
  for (int64_t a = d.first; a < d.last; ++a) {
    for (int64_t b = h.first; b < h.last; ++b) {
      const T* const row = x + ((d.start + a) * s.size[1] + h.start + b) * s.size[2] + column;
      for (int64_t c = 0; c < s.kernel[2]; ++c) total += load_spaced<T, Stride, Whole>(row + c, count);
    }
  }
  if constexpr (Whole) store<T>(y + o, total * (load(factors + o) * factor));
  else store_part<T>(y + o, total * (load_part(factors + o, count) * factor), count);
}

template <class T, int Stride>
PYFRAME_INLINE int64_t average_vectors(const PoolShape& s, const T* x, int64_t readable, const Taps& d, const Taps& h,
                                       int64_t first, int64_t last, T factor, const T* factors, T* y) {
  return over_outputs<T, Stride>(
      s, furthest(s, d, h), readable, first, last,
      [&](int64_t o) __attribute__((always_inline)) {
        average_vector<T, Stride, true>(s, x, d, h, o, kLanes<T>, factor, factors, y);
      },
      [&](int64_t o, int64_t m) __attribute__((always_inline)) {
        average_vector<T, Stride, false>(s, x, d, h, o, m, factor, factors, y);
      });
}

template <class T>
PYFRAME_INLINE T row_total(const T* x, int64_t n) {
  if (n >= kLanes<T>) {
    return static_cast<T>(sum_row<T>(
        n, [=](int64_t i) __attribute__((always_inline)) { return load(x + i); },
        [=](int64_t i, int64_t m) __attribute__((always_inline)) { return load_part(x + i, m); }));
  }
  T total = 0;
  for (int64_t i = 0; i < n; ++i) total += x[i];
  return total;
}

template <class T>
PYFRAME_INLINE T average_one(const PoolShape& s, const T* x, const Taps& d, const Taps& h, int64_t o) {
  const Taps w = taps(s, 2, o);
  const int64_t count = most(w.last - w.first, 0);
  if (count == s.size[2] && h.last - h.first == s.size[1]) {  // whole planes lie one after the other
    return row_total(x + (d.start + d.first) * s.size[1] * s.size[2], most(d.last - d.first, 0) * s.size[1] * count);
  }
  T total = 0;
  for (int64_t a = d.first; a < d.last; ++a) {
    for (int64_t b = h.first; b < h.last; ++b) {
      total += row_total(x + ((d.start + a) * s.size[1] + h.start + b) * s.size[2] + w.start + w.first, count);
    }
  }
  return total;
}

template <class T>
void average_plane(const PoolShape& s, const T* x, int64_t readable, T* y, const T* const* factors) {
  const Inside in = inside(s);
  for (int64_t i = 0; i < s.out[0]; ++i) {
    const Taps d = taps(s, 0, i);
    for (int64_t j = 0; j < s.out[1]; ++j, y += s.out[2]) {
      const Taps h = taps(s, 1, j);
      const T factor = factors[0][i] * factors[1][j];
      int64_t o = 0;
      for (; o < in.first; ++o) y[o] = average_one(s, x, d, h, o) * (factors[2][o] * factor);
      if (s.stride[2] == 1) o = average_vectors<T, 1>(s, x, readable, d, h, o, in.last, factor, factors[2], y);
      else if (s.stride[2] == 2) o = average_vectors<T, 2>(s, x, readable, d, h, o, in.last, factor, factors[2], y);
      for (; o < s.out[2]; ++o) y[o] = average_one(s, x, d, h, o) * (factors[2][o] * factor);
    }
  }
}

// The shares of a row of outputs are spread over one row of columns, which all rows of the windows then add.
template <class T>
PYFRAME_INLINE void average_backward_rows(const PoolShape& s, const T* g, T* gx, const T* const* factors) {
  constexpr int L = kLanes<T>;
  const int64_t row = s.size[2];
  const Inside in = inside(s);
  T shares[kMostColumns + L];
  for (int64_t i = 0; i < s.out[0]; ++i) {
    const Taps d = taps(s, 0, i);
    for (int64_t j = 0; j < s.out[1]; ++j, g += s.out[2]) {
      const Taps h = taps(s, 1, j);
      const T factor = factors[0][i] * factors[1][j];
      const auto one = [&](int64_t o) __attribute__((always_inline)) {
        const Taps w = taps(s, 2, o);
        const T share = g[o] * (factors[2][o] * factor);
        for (int64_t c = w.first; c < w.last; ++c) shares[w.start + c] += share;
      };
      int64_t o = 0;
      if (s.kernel[2] == 2 && s.stride[2] == 2 && s.padding[2] == 0) {  // pairs of equal shares
        for (; o + L <= in.last; o += L) {
          const Vec<T> share = load(g + o) * (load(factors[2] + o) * factor);
          store<T>(shares + 2 * o, interleaved<T, 0>(share, share));
          store<T>(shares + 2 * o + L, interleaved<T, 1>(share, share));
        }
      }
      for (int64_t c = 2 * o; c < row; ++c) shares[c] = 0;
      for (; o < s.out[2]; ++o) one(o);
      for (int64_t a = d.first; a < d.last; ++a) {
        for (int64_t b = h.first; b < h.last; ++b) {
          T* const to = gx + ((d.start + a) * s.size[1] + h.start + b) * row;
          int64_t c = 0;
          for (; c + L <= row; c += L) store<T>(to + c, load(to + c) + load(shares + c));
          if (c < row) store_part<T>(to + c, load_part(to + c, row - c) + load_part(shares + c, row - c), row - c);
        }
      }
    }
  }
}

template <class T>
void average_backward(const PoolShape& s, const T* g, T* gx, const T* const* factors) {
  const int64_t row = s.size[2], pixels = s.size[0] * s.size[1] * row;
  const bool whole = s.out[0] * s.out[1] * s.out[2] == 1 && s.kernel[0] == s.size[0] && s.kernel[1] == s.size[1] &&
                     s.kernel[2] == row && s.padding[0] + s.padding[1] + s.padding[2] == 0;
  if (whole) {
    const Vec<T> share = splat(g[0] * (factors[2][0] * (factors[0][0] * factors[1][0])));
    return write_row<T>(
        gx, pixels, false, [=](int64_t) __attribute__((always_inline)) { return share; },
        [=](int64_t, int64_t) __attribute__((always_inline)) { return share; });
  }
  __builtin_memset(gx, 0, static_cast<std::size_t>(pixels) * sizeof(T));
  if (s.kernel[0] * s.kernel[1] > 1 && row <= kMostColumns) return average_backward_rows(s, g, gx, factors);
  const Inside in = inside(s);
  const bool long_taps = s.kernel[2] >= s.out[2];
  for (int64_t i = 0; i < s.out[0]; ++i) {
    const Taps d = taps(s, 0, i);
    for (int64_t j = 0; j < s.out[1]; ++j, g += s.out[2]) {
      const Taps h = taps(s, 1, j);
      const T factor = factors[0][i] * factors[1][j];
      for (int64_t a = d.first; a < d.last; ++a) {
        for (int64_t b = h.first; b < h.last; ++b) {
          T* const to = gx + ((d.start + a) * s.size[1] + h.start + b) * row;
          const auto one = [&](int64_t o) __attribute__((always_inline)) {
            const Taps w = taps(s, 2, o);
            const T share = g[o] * (factors[2][o] * factor);
            for (int64_t c = w.first; c < w.last; ++c) to[w.start + c] += share;
          };
          const int64_t first = long_taps ? s.out[2] : in.first, last = long_taps ? s.out[2] : in.last;
          for (int64_t o = 0; o < first; ++o) one(o);
          // Tap by tap, so that neighbouring outputs can be worked on at once.
          for (int64_t c = 0; c < s.kernel[2]; ++c) {
            T* const at = to + c - s.padding[2];
            for (int64_t o = first; o < last; ++o) at[o * s.stride[2]] += g[o] * (factors[2][o] * factor);
          }
          for (int64_t o = last; o < s.out[2]; ++o) one(o);
        }
      }
    }
  }
}

template <class T>
void average_whole(const T* x, T* y, int64_t planes, int64_t pixels, T factor) {
  if (pixels <= kShortRow) return sum_short_rows(x, y, planes, pixels, factor);
  for (int64_t p = 0; p < planes; ++p) y[p] = row_total(x + p * pixels, pixels) * factor;
}

template <class T>
constexpr PoolKernels<T> kernels() {
  return {max_plane<T>, max_backward<T>, average_plane<T>, average_backward<T>, average_whole<T>};
}

}  // namespace

extern const PoolTable pool_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
