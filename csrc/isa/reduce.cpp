#include "reduce.h"

#include <utility>

#include "isa/rows.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// The larger (smaller) of two.
template <class T, bool Largest>
PYFRAME_INLINE Vec<T> beyond(Vec<T> x, Vec<T> best) {  // `best` where either is NaN
  return Largest ? vmax<T>(x, best) : vmin<T>(x, best);
}

// Of a row without NaN; `suspect` gets NaN lanes where there is one, or an infinity.
template <class T, bool Largest>
PYFRAME_INLINE Vec<T> extreme_vector(const T* x, int64_t n, Vec<T>& suspect) {
  constexpr int L = kLanes<T>;
  const T worst = (Largest ? -1 : 1) * static_cast<T>(__builtin_inf());
  Vec<T> a = splat(worst), b = a, c = a, d = a;
  Vec<T> e{}, f{}, g{}, h{};
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    const Vec<T> p = load(x + i), q = load(x + i + L), r = load(x + i + 2 * L), t = load(x + i + 3 * L);
    a = beyond<T, Largest>(p, a);
    b = beyond<T, Largest>(q, b);
    c = beyond<T, Largest>(r, c);
    d = beyond<T, Largest>(t, d);
    e = p * T(0) + e;
    f = q * T(0) + f;
    g = r * T(0) + g;
    h = t * T(0) + h;
  }
  for (; i + L <= n; i += L) {
    const Vec<T> p = load(x + i);
    a = beyond<T, Largest>(p, a);
    e = p * T(0) + e;
  }
  if (i < n) {
    const Vec<T> p = load_part(x + i, n - i, x[i]);
    b = beyond<T, Largest>(p, b);
    f = p * T(0) + f;
  }
  suspect = (e + f) + (g + h);
  return beyond<T, Largest>(beyond<T, Largest>(a, b), beyond<T, Largest>(c, d));
}

template <class T, bool Largest>
PYFRAME_INLINE T extreme_row(const T* x, int64_t n) {
  Vec<T> suspect;
  const Vec<T> best = extreme_vector<T, Largest>(x, n, suspect);
  if (__builtin_expect(any(suspect != suspect), 0)) {
    constexpr int L = kLanes<T>;
    Mask<T> nan{};
    int64_t i = 0;
    for (; i + L <= n; i += L) nan |= load(x + i) != load(x + i);
    for (; i < n; ++i) nan[0] |= x[i] != x[i] ? -1 : 0;
    if (any(nan)) return static_cast<T>(__builtin_nan(""));
  }
  return Largest ? hmax<T>(best) : hmin<T>(best);
}

// Σ term(x), in eight accumulators that are emptied into a double every kSumBlock elements; `filler` has no term.
template <class T, class Term>
PYFRAME_INLINE double total_row(const T* x, int64_t n, T filler, Term term) {
  constexpr int L = kLanes<T>;
  double total = 0;
  int64_t i = 0;
  while (i < n) {
    const int64_t end = n - i > kSumBlock ? i + kSumBlock : n;
    Vec<T> a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{};
    for (; i + 8 * L <= end; i += 8 * L) {
      a += term(load(x + i));
      b += term(load(x + i + L));
      c += term(load(x + i + 2 * L));
      d += term(load(x + i + 3 * L));
      e += term(load(x + i + 4 * L));
      f += term(load(x + i + 5 * L));
      g += term(load(x + i + 6 * L));
      h += term(load(x + i + 7 * L));
    }
    for (; i + L <= end; i += L) a += term(load(x + i));
    if (i < end) {
      b += term(load_part(x + i, end - i, filler));
      i = end;
    }
    total += static_cast<double>(hsum<T>(((a + b) + (c + d)) + ((e + f) + (g + h))));
  }
  return total;
}

template <class T>
PYFRAME_INLINE double product_row(const T* x, int64_t n) {
  constexpr int L = kLanes<T>;
  Vec<T> a = splat(T(1)), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a *= load(x + i);
    b *= load(x + i + L);
    c *= load(x + i + 2 * L);
    d *= load(x + i + 3 * L);
  }
  for (; i + L <= n; i += L) a *= load(x + i);
  if (i < n) b *= load_part(x + i, n - i, T(1));
  const auto times = [](auto p, auto q) __attribute__((always_inline)) { return p * q; };
  return static_cast<double>(fold_lanes<T>((a * b) * (c * d), times));
}

template <class T>
double row(const T* x, int64_t n, Fold fold, T mean) {
  switch (fold) {
    case Fold::sum: return total_row<T>(x, n, T(0), [](Vec<T> v) __attribute__((always_inline)) { return v; });
    case Fold::square_spread: {
      const Vec<T> c = splat(mean);
      return total_row<T>(x, n, mean, [=](Vec<T> v) __attribute__((always_inline)) { return (v - c) * (v - c); });
    }
    case Fold::max: return static_cast<double>(extreme_row<T, true>(x, n));
    case Fold::prod: return product_row<T>(x, n);
    default: return static_cast<double>(extreme_row<T, false>(x, n));
  }
}

// Rows whose sum is kept in one accumulator before it is added to the total: bounds the rounding error.
constexpr int64_t kRowBlock = 128;

template <class T, Fold kind>
PYFRAME_INLINE Vec<T> fold_two(Vec<T> a, Vec<T> b) {
  if constexpr (kind == Fold::max || kind == Fold::min) return beyond<T, kind == Fold::max>(a, b);
  else if constexpr (kind == Fold::prod) return a * b;
  else return a + b;
}

// Some vectors of columns down all rows, in registers: `Width` vectors beside each other, or one of `count` elements.
// `Rows` rows at a time have their own accumulators, so that a narrow strip does not wait for its own additions. With
// `more`, the result so far is in `out`. Returns false where NaN may have been lost from an extreme.
template <class T, Fold kind, int Width, int Rows, bool Whole>
PYFRAME_INLINE bool fold_strip(const T* x, int64_t rows, int64_t inner, int64_t count, const T* mean, bool more, T* out) {
  constexpr int L = kLanes<T>;
  constexpr bool kSum = kind == Fold::sum || kind == Fold::square_spread, kExtreme = kind == Fold::max || kind == Fold::min;
  const auto get = [=](const T* from, int v) __attribute__((always_inline)) {
    return Whole ? load(from + v * L) : load_part(from, count);
  };
  const Vec<T> start = splat(kSum ? T(0) : kind == Fold::prod ? T(1) : (kind == Fold::max ? T(-1) : T(1)) * static_cast<T>(__builtin_inf()));
  Vec<T> total[Width], part[Rows][Width], center[Width], suspect[Width];
  for (int v = 0; v < Width; ++v) {
    total[v] = more ? get(out, v) : start;
    suspect[v] = Vec<T>{};
    if constexpr (kind == Fold::square_spread) center[v] = get(mean, v);
  }
  for (int64_t r = 0; r < rows;) {
    const int64_t stop = kSum && rows - r > kRowBlock ? r + kRowBlock : rows;
    for (int k = 0; k < Rows; ++k) {
      for (int v = 0; v < Width; ++v) part[k][v] = start;
    }
    const auto one = [&](const T* row, int k) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int v = 0; v < Width; ++v) {
        Vec<T> y = get(row, v);
        if constexpr (kExtreme) suspect[v] = y * T(0) + suspect[v];
        if constexpr (kind == Fold::square_spread) y = (y - center[v]) * (y - center[v]);
        part[k][v] = fold_two<T, kind>(y, part[k][v]);
      }
    };
    for (; r + Rows <= stop; r += Rows) {
      const T* const row = x + r * inner;
      // Rows far apart are no stream that a processor would follow by itself.
      for (int b = 0; Whole && b < Width * kVectorBytes; b += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(row + 8 * Rows * inner) + b);
      }
#pragma GCC unroll 4
      for (int k = 0; k < Rows; ++k) one(row + k * inner, k);
    }
    for (; r < stop; ++r) one(x + r * inner, 0);
    for (int v = 0; v < Width; ++v) {
      for (int k = 1; k < Rows; ++k) part[0][v] = fold_two<T, kind>(part[0][v], part[k][v]);
      total[v] = fold_two<T, kind>(total[v], part[0][v]);
    }
  }
  for (int v = 0; v < Width; ++v) {
    if constexpr (Whole) store<T>(out + v * L, total[v]);
    else store_part<T>(out, total[v], count);
  }
  bool clean = true;
  for (int v = 0; kExtreme && v < Width; ++v) clean &= !any(suspect[v] != suspect[v]);
  return clean;
}

template <class T, Fold kind>
void fold_columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, const T* mean, T* out) {
  constexpr int L = kLanes<T>, kWide = kVectorBytes == 64 ? 8 : 4;
  // Rows that the second cache level holds, so that all strips of them are read from memory once and in order.
  constexpr int64_t kBlockBytes = 128 << 10;
  const int64_t fit = kBlockBytes / ((end - begin) * static_cast<int64_t>(sizeof(T))), block = fit < 16 ? 16 : fit;
  bool clean = true;
  for (int64_t r = 0; r < rows; r += block) {
    const T* const from = x + r * inner;
    const int64_t n = rows - r < block ? rows - r : block;
    const bool more = r > 0;
    int64_t j = begin;
    for (; j + kWide * L <= end; j += kWide * L) {
      clean &= fold_strip<T, kind, kWide, 1, true>(from + j, n, inner, 0, mean + j, more, out + j);
    }
    if constexpr (kWide > 4) {
      for (; j + 4 * L <= end; j += 4 * L) {
        clean &= fold_strip<T, kind, 4, 1, true>(from + j, n, inner, 0, mean + j, more, out + j);
      }
    }
    for (; j + 2 * L <= end; j += 2 * L) {
      clean &= fold_strip<T, kind, 2, 2, true>(from + j, n, inner, 0, mean + j, more, out + j);
    }
    for (; j + L <= end; j += L) clean &= fold_strip<T, kind, 1, 4, true>(from + j, n, inner, 0, mean + j, more, out + j);
    if (j < end) clean &= fold_strip<T, kind, 1, 1, false>(from + j, n, inner, end - j, mean + j, more, out + j);
  }
  if constexpr (kind == Fold::max || kind == Fold::min) {
    if (__builtin_expect(clean, 1)) return;
    for (int64_t r = 0; r < rows; ++r) {  // infinities, or NaN: those win
      for (int64_t i = begin; i < end; ++i) out[i] = x[r * inner + i] != x[r * inner + i] ? x[r * inner + i] : out[i];
    }
  }
}

template <class T>
void columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, Fold fold, const T* mean, T* out) {
  switch (fold) {
    case Fold::sum: return fold_columns<T, Fold::sum>(x, rows, inner, begin, end, x, out);
    case Fold::max: return fold_columns<T, Fold::max>(x, rows, inner, begin, end, x, out);
    case Fold::min: return fold_columns<T, Fold::min>(x, rows, inner, begin, end, x, out);
    case Fold::prod: return fold_columns<T, Fold::prod>(x, rows, inner, begin, end, x, out);
    case Fold::square_spread:
      return fold_columns<T, Fold::square_spread>(x, rows, inner, begin, end, mean, out);
  }
}

template <class T>
int64_t arg(const T* x, int64_t n, bool largest) {
  // First the value, in blocks so that the search for its place reads the cache; of equal ones the first block wins.
  constexpr int64_t kBlock = 4096;
  int64_t found = 0;
  T best = x[0];
  for (int64_t b = 0; b < n; b += kBlock) {
    const int64_t count = n - b < kBlock ? n - b : kBlock;
    const T value = largest ? extreme_row<T, true>(x + b, count) : extreme_row<T, false>(x + b, count);
    if (b == 0 || (largest ? value > best : value < best) || value != value) {
      best = value;
      found = b;
      if (value != value) break;
    }
  }
  constexpr int L = kLanes<T>;
  while (found + L <= n) {
    const Vec<T> v = load(x + found);
    if (any((v == best) | (v != v))) break;
    found += L;
  }
  while (!(x[found] == best || (best != best && x[found] != x[found]))) ++found;
  return found;
}

// The index of the extreme element of each column.
template <class T, bool Largest>
void arg_columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, int64_t* out) {
  constexpr int L = kLanes<T>;
  using Index = typename Bits<T>::type;
  for (; begin < end; begin += 4 * L) {
    const int64_t count = end - begin < 4 * L ? end - begin : 4 * L;
    Vec<T> best[4];
    Mask<T> at[4];
    const auto get = [=](const T* from, int v) __attribute__((always_inline)) {
      const int64_t left = count - v * L;
      return left >= L ? load(from + v * L) : left > 0 ? load_part(from + v * L, left) : Vec<T>{};
    };
    const T* row = x + begin;
    for (int v = 0; v < 4; ++v) {
      best[v] = get(row, v);
      at[v] = Mask<T>{};
    }
    const bool full = count == 4 * L;
    for (int64_t r = 1; r < rows; ++r) {
      row += inner;
      const Mask<T> here = splat(static_cast<Index>(r));
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const Vec<T> y = full ? load(row + v * L) : get(row, v);
        const Mask<T> wins = ((Largest ? y > best[v] : y < best[v]) | (y != y)) & (best[v] == best[v]);
        best[v] = wins ? y : best[v];
        at[v] = wins ? here : at[v];
      }
    }
    for (int64_t j = 0; j < count; ++j) out[begin + j] = at[j / L][j % L];
  }
}
template <class T>
void arg_of_columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, bool largest, int64_t* out) {
  largest ? arg_columns<T, true>(x, rows, inner, begin, end, out) : arg_columns<T, false>(x, rows, inner, begin, end, out);
}

// -- running sums and products

template <class T, bool Product> PYFRAME_INLINE Vec<T> accumulate(Vec<T> a, Vec<T> b) { return Product ? a * b : a + b; }

// v moved up by K lanes, the identity in front.
template <class T, int K, bool Product, std::size_t... I>
PYFRAME_INLINE Vec<T> moved(Vec<T> v, std::index_sequence<I...>) {
  const Vec<T> identity = splat(T(Product));
  return __builtin_shufflevector(identity, v, (static_cast<int>(I) < K ? static_cast<int>(I) : kLanes<T> + static_cast<int>(I) - K)...);
}
template <class T, std::size_t... I> PYFRAME_INLINE Vec<T> reversed(Vec<T> v, std::index_sequence<I...>) {
  return __builtin_shufflevector(v, v, (kLanes<T> - 1 - static_cast<int>(I))...);
}
template <class T> using Lanes = std::make_index_sequence<static_cast<std::size_t>(kLanes<T>)>;
// The running sums of one vector, by doubling the distance.
template <class T, bool Product> PYFRAME_INLINE Vec<T> scan_lanes(Vec<T> v) {
  v = accumulate<T, Product>(v, moved<T, 1, Product>(v, Lanes<T>{}));
  if constexpr (kLanes<T> > 2) v = accumulate<T, Product>(v, moved<T, 2, Product>(v, Lanes<T>{}));
  if constexpr (kLanes<T> > 4) v = accumulate<T, Product>(v, moved<T, 4, Product>(v, Lanes<T>{}));
  if constexpr (kLanes<T> > 8) v = accumulate<T, Product>(v, moved<T, 8, Product>(v, Lanes<T>{}));
  return v;
}

// A row: each vector by itself, then what came before is added to all of it.
template <class T, bool Product>
void scan_row(const T* x, T* y, int64_t n, bool reverse) {
  constexpr int L = kLanes<T>;
  T total = T(Product);
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const int64_t at = reverse ? n - i - L : i;
    Vec<T> v = load(x + at);
    if (reverse) v = reversed<T>(v, Lanes<T>{});
    v = accumulate<T, Product>(scan_lanes<T, Product>(v), splat(total));
    total = v[L - 1];
    store<T>(y + at, reverse ? reversed<T>(v, Lanes<T>{}) : v);
  }
  for (; i < n; ++i) {
    const int64_t at = reverse ? n - 1 - i : i;
    y[at] = total = Product ? total * x[at] : total + x[at];
  }
}

template <class T, bool Product>
void scan_columns(const T* x, T* y, int64_t n, int64_t inner, int64_t begin, int64_t end, bool reverse) {
  constexpr int L = kLanes<T>;
  const int64_t step = reverse ? -inner : inner, first = reverse ? (n - 1) * inner : 0;
  for (int64_t j = begin; j < end; j += L) {
    const int64_t count = end - j;
    Vec<T> total = splat(T(Product));
    for (int64_t i = 0, at = first + j; i < n; ++i, at += step) {
      if (count >= L) {
        total = accumulate<T, Product>(total, load(x + at));
        store<T>(y + at, total);
      } else {
        total = accumulate<T, Product>(total, load_part(x + at, count));
        store_part<T>(y + at, total, count);
      }
    }
  }
}

template <class T>
void scan(const T* x, T* y, int64_t n, int64_t inner, int64_t begin, int64_t end, bool reverse, bool product) {
  if (inner == 1) return product ? scan_row<T, true>(x, y, n, reverse) : scan_row<T, false>(x, y, n, reverse);
  if (product) return scan_columns<T, true>(x, y, n, inner, begin, end, reverse);
  scan_columns<T, false>(x, y, n, inner, begin, end, reverse);
}

template <class T>
constexpr ReduceKernels<T> kernels() {
  return {row<T>, columns<T>, arg<T>, arg_of_columns<T>, scan<T>};
}

}  // namespace

extern const ReduceTable reduce_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
