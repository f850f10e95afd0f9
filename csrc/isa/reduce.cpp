#include "reduce.h"

#include <type_traits>
#include <utility>

#include "isa/gemm_half.h"
#include "isa/lanes.h"
#include "isa/rows.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// What elements in memory are computed as.
template <class S> struct ElementOf { using Type = S; };
template <> struct ElementOf<Float16> { using Type = float; };
template <> struct ElementOf<BFloat16> { using Type = float; };
template <class S> using Element = typename ElementOf<S>::Type;

template <class S> PYFRAME_INLINE Vec<Element<S>> read(const S* from) {
  if constexpr (kIsHalf<S>) return widen(from);
  else return load(from);
}
// The first `count` elements; the others are `filler`.
template <class S> PYFRAME_INLINE Vec<Element<S>> read_part(const S* from, int64_t count, Element<S> filler) {
  if constexpr (kIsHalf<S>) {
    S few[kLanes<float>] = {};
    __builtin_memcpy(few, from, static_cast<std::size_t>(count) * sizeof(S));
    return first_lanes<float>(count) ? widen(few) : splat(filler);
  } else {
    return load_part(from, count, filler);
  }
}

// Two vectors of elements, in any order: bfloat16 is widened with an instruction each where the order is free.
template <class S> PYFRAME_INLINE void read_two(const S* from, Vec<Element<S>>& a, Vec<Element<S>>& b) {
  if constexpr (std::is_same_v<S, BFloat16>) {
    const Vec<std::uint32_t> pairs = load(reinterpret_cast<const std::uint32_t*>(from));
    a = (Vec<float>)(pairs << 16);
    b = (Vec<float>)(pairs & 0xffff0000u);
  } else {
    a = read(from);
    b = read(from + kLanes<Element<S>>);
  }
}

// The smallest element is minus the largest of -x: one code for both, in which `sign` is what turns elements around.
template <class T> PYFRAME_INLINE Mask<T> turning(bool largest) {
  return largest ? Mask<T>{} : (Mask<T>)splat(static_cast<T>(-0.0));
}
template <class T> PYFRAME_INLINE Vec<T> turned(Vec<T> v, Mask<T> sign) { return (Vec<T>)((Mask<T>)v ^ sign); }

// The largest of a row without NaN; `suspect` gets NaN lanes where there is one, or an infinity.
template <class S, class T = Element<S>>
PYFRAME_INLINE Vec<T> extreme_vector(const S* x, int64_t n, Mask<T> sign, Vec<T>& suspect) {
  constexpr int L = kLanes<T>;
  Vec<T> best[4], odd[4];
  for (int k = 0; k < 4; ++k) {
    best[k] = splat(-static_cast<T>(__builtin_inf()));
    odd[k] = Vec<T>{};
  }
  const auto take = [&](int k, Vec<T> v) __attribute__((always_inline)) {
    best[k] = vmax<T>(turned<T>(v, sign), best[k]);  // `best` where v is NaN
    odd[k] = v * T(0) + odd[k];
  };
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
#pragma GCC unroll 2
    for (int k = 0; k < 4; k += 2) {
      Vec<T> p, q;
      read_two(x + i + k * L, p, q);
      take(k, p);
      take(k + 1, q);
    }
  }
  for (; i + L <= n; i += L) take(0, read(x + i));
  if (i < n) take(1, read_part(x + i, n - i, read_part(x + i, 1, T(0))[0]));
  suspect = (odd[0] + odd[1]) + (odd[2] + odd[3]);
  return vmax<T>(vmax<T>(best[0], best[1]), vmax<T>(best[2], best[3]));
}

template <class S, class T = Element<S>>
__attribute__((noinline)) T extreme_row(const S* x, int64_t n, bool largest) {
  const Mask<T> sign = turning<T>(largest);
  Vec<T> suspect;
  const Vec<T> best = extreme_vector<S>(x, n, sign, suspect);
  if (__builtin_expect(any(suspect != suspect), 0)) {
    constexpr int L = kLanes<T>;
    Mask<T> nan{};
    for (int64_t i = 0; i < n; i += L) {
      const Vec<T> v = n - i < L ? read_part(x + i, n - i, T(0)) : read(x + i);
      nan |= v != v;
    }
    if (any(nan)) return static_cast<T>(__builtin_nan(""));
  }
  return largest ? hmax<T>(best) : -hmax<T>(best);
}

// Σ term(x), in eight accumulators that are emptied into a double every kSumBlock elements; `filler` has no term.
template <class S, class Term, class T = Element<S>>
PYFRAME_INLINE double total_row(const S* x, int64_t n, T filler, Term term) {
  constexpr int L = kLanes<T>;
  double total = 0;
  int64_t i = 0;
  while (i < n) {
    const int64_t end = n - i > kSumBlock ? i + kSumBlock : n;
    Vec<T> a[8] = {};
    for (; i + 8 * L <= end; i += 8 * L) {
#pragma GCC unroll 8
      for (int k = 0; k < 8; k += 2) {
        Vec<T> p, q;
        read_two(x + i + k * L, p, q);
        a[k] += term(p);
        a[k + 1] += term(q);
      }
    }
    for (; i + L <= end; i += L) a[0] += term(read(x + i));
    if (i < end) {
      a[1] += term(read_part(x + i, end - i, filler));
      i = end;
    }
    total += static_cast<double>(hsum<T>(((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]))));
  }
  return total;
}

template <class T>
PYFRAME_INLINE double product_row(const T* x, int64_t n) {
  constexpr int L = kLanes<T>;
  const Vec<T> one = splat(T(1));
  Vec<T> a[8] = {one, one, one, one, one, one, one, one};
  int64_t i = 0;
  for (; i + 8 * L <= n; i += 8 * L) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) a[k] *= load(x + i + k * L);
  }
  for (; i + L <= n; i += L) a[0] *= load(x + i);
  if (i < n) a[1] *= load_part(x + i, n - i, T(1));
  const auto times = [](auto p, auto q) __attribute__((always_inline)) { return p * q; };
  return static_cast<double>(fold_lanes<T>(((a[0] * a[1]) * (a[2] * a[3])) * ((a[4] * a[5]) * (a[6] * a[7])), times));
}

template <class S, class T = Element<S>>
double row(const void* row, int64_t n, Fold fold, T mean) {
  const S* const x = static_cast<const S*>(row);
  switch (fold) {
    case Fold::sum: return total_row(x, n, T(0), [](Vec<T> v) __attribute__((always_inline)) { return v; });
    case Fold::square_spread: {
      const Vec<T> c = splat(mean);
      return total_row(x, n, mean, [=](Vec<T> v) __attribute__((always_inline)) { return (v - c) * (v - c); });
    }
    case Fold::prod:
      if constexpr (kIsHalf<S>) return 0;  // not wanted of halves
      else return product_row(x, n);
    default: return static_cast<double>(extreme_row(x, n, fold == Fold::max));
  }
}

// Rows whose sum is kept in one accumulator before it is added to the total: bounds the rounding error.
constexpr int64_t kRowBlock = 128;

template <class T, Fold kind>
PYFRAME_INLINE Vec<T> fold_two(Vec<T> a, Vec<T> b) {
  if constexpr (kind == Fold::max) return vmax<T>(a, b);  // b where either is NaN
  else if constexpr (kind == Fold::prod) return a * b;
  else return a + b;
}

// Some vectors of columns down all rows, in registers: `Width` vectors beside each other, or one of `count` elements.
// `Rows` rows at a time have their own accumulators, so that a narrow strip does not wait for its own additions. With
// `more`, the result so far is in `out`. Returns false where NaN may have been lost from an extreme.
template <class S, Fold kind, int Width, int Rows, bool Whole, class T = Element<S>>
PYFRAME_INLINE bool fold_strip(const S* x, int64_t rows, int64_t inner, int64_t count, const T* mean, Mask<T> sign,
                               bool more, T* out) {
  constexpr int L = kLanes<T>;
  constexpr bool kSum = kind == Fold::sum || kind == Fold::square_spread, kExtreme = kind == Fold::max;
  const auto get = [=](const auto* from, int v) __attribute__((always_inline)) {
    return Whole ? read(from + v * L) : read_part(from, count, T(0));
  };
  const Vec<T> start = splat(kSum ? T(0) : kind == Fold::prod ? T(1) : -static_cast<T>(__builtin_inf()));
  Vec<T> total[Width], part[Rows][Width], center[Width], suspect[Width];
  for (int v = 0; v < Width; ++v) {
    total[v] = more ? turned<T>(get(out, v), sign) : start;
    suspect[v] = Vec<T>{};
    if constexpr (kind == Fold::square_spread) center[v] = get(mean, v);
  }
  for (int64_t r = 0; r < rows;) {
    const int64_t stop = kSum && rows - r > kRowBlock ? r + kRowBlock : rows;
    for (int k = 0; k < Rows; ++k) {
      for (int v = 0; v < Width; ++v) part[k][v] = kSum || k > 0 ? start : total[v];
    }
    const auto one = [&](const S* row, int k) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int v = 0; v < Width; ++v) {
        Vec<T> y = get(row, v);
        if constexpr (kExtreme) {
          suspect[v] = y * T(0) + suspect[v];
          y = turned<T>(y, sign);
        }
        if constexpr (kind == Fold::square_spread) y = (y - center[v]) * (y - center[v]);
        part[k][v] = fold_two<T, kind>(y, part[k][v]);
      }
    };
    for (; r + Rows <= stop; r += Rows) {
      const S* const row = x + r * inner;
      // Rows far apart are no stream that a processor would follow by itself.
      for (int b = 0; Whole && b < Width * L * static_cast<int>(sizeof(S)); b += 64) {
        __builtin_prefetch(reinterpret_cast<const char*>(row + 8 * Rows * inner) + b);
      }
#pragma GCC unroll 4
      for (int k = 0; k < Rows; ++k) one(row + k * inner, k);
    }
    for (; r < stop; ++r) one(x + r * inner, 0);
    for (int v = 0; v < Width; ++v) {
      for (int k = 1; k < Rows; ++k) part[0][v] = fold_two<T, kind>(part[0][v], part[k][v]);
      total[v] = kSum ? total[v] + part[0][v] : part[0][v];
    }
  }
  bool clean = true;
  for (int v = 0; v < Width; ++v) {
    const Vec<T> result = turned<T>(total[v], sign);
    if constexpr (Whole) store<T>(out + v * L, result);
    else store_part<T>(out, result, count);
    if constexpr (kExtreme) clean &= !any(suspect[v] != suspect[v]);
  }
  return clean;
}

template <class S, Fold kind, class T = Element<S>>
void fold_columns(const S* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, bool largest, const T* mean,
                  T* out) {
  // float32 has strips of every width; for the others the widest and the narrowest are enough code.
  constexpr bool kEvery = sizeof(S) == 4;
  constexpr int L = kLanes<T>, kWide = sizeof(S) < 8 && kVectorBytes == 64 ? 8 : 4;
  // Rows that the second cache level holds, so that all strips of them are read from memory once and in order.
  constexpr int64_t kBlockBytes = 128 << 10;
  const int64_t fit = kBlockBytes / ((end - begin) * static_cast<int64_t>(sizeof(S))), block = fit < 16 ? 16 : fit;
  const Mask<T> sign = turning<T>(largest);
  bool clean = true;
  for (int64_t r = 0; r < rows; r += block) {
    const S* const from = x + r * inner;
    const int64_t n = rows - r < block ? rows - r : block;
    const bool more = r > 0;
    int64_t j = begin;
    for (; j + kWide * L <= end; j += kWide * L) {
      clean &= fold_strip<S, kind, kWide, 1, true>(from + j, n, inner, 0, mean + j, sign, more, out + j);
    }
    if constexpr (kEvery) {
      for (; kWide > 4 && j + 4 * L <= end; j += 4 * L) {
        clean &= fold_strip<S, kind, 4, 1, true>(from + j, n, inner, 0, mean + j, sign, more, out + j);
      }
      for (; j + 2 * L <= end; j += 2 * L) {
        clean &= fold_strip<S, kind, 2, 2, true>(from + j, n, inner, 0, mean + j, sign, more, out + j);
      }
    }
    for (; j + L <= end; j += L) {
      clean &= fold_strip<S, kind, 1, 4, true>(from + j, n, inner, 0, mean + j, sign, more, out + j);
    }
    if (j < end) {
      clean &= fold_strip<S, kind, 1, 1, false>(from + j, n, inner, end - j, mean + j, sign, more, out + j);
    }
  }
  if (__builtin_expect(clean, 1)) return;
  for (int64_t r = 0; r < rows; ++r) {  // infinities, or NaN: those win
    for (int64_t i = begin; i < end; ++i) {
      const T v = read_part(x + r * inner + i, 1, T(0))[0];
      out[i] = v != v ? v : out[i];
    }
  }
}

template <class S, class T = Element<S>>
void columns(const void* at, int64_t rows, int64_t inner, int64_t begin, int64_t end, Fold fold, const T* mean,
             T* out) {
  const S* const x = static_cast<const S*>(at);
  switch (fold) {
    case Fold::sum: return fold_columns<S, Fold::sum>(x, rows, inner, begin, end, true, out, out);
    case Fold::prod:
      if constexpr (!kIsHalf<S>) fold_columns<S, Fold::prod>(x, rows, inner, begin, end, true, out, out);
      return;
    case Fold::square_spread:
      return fold_columns<S, Fold::square_spread>(x, rows, inner, begin, end, true, mean, out);
    default: return fold_columns<S, Fold::max>(x, rows, inner, begin, end, fold == Fold::max, out, out);
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
    const T value = extreme_row(x + b, count, largest);
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
template <class T>
void arg_columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, bool largest, int64_t* out) {
  constexpr int L = kLanes<T>;
  const Mask<T> sign = turning<T>(largest);
  using Index = typename Bits<T>::type;
  for (; begin < end; begin += 4 * L) {
    const int64_t count = end - begin < 4 * L ? end - begin : 4 * L;
    Vec<T> best[4];
    Mask<T> at[4];
    const auto get = [=](const T* from, int v) __attribute__((always_inline)) {
      const int64_t left = count - v * L;
      return turned<T>(left >= L ? load(from + v * L) : left > 0 ? load_part(from + v * L, left) : Vec<T>{}, sign);
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
        const Vec<T> y = full ? turned<T>(load(row + v * L), sign) : get(row, v);
        const Mask<T> wins = ((y > best[v]) | (y != y)) & (best[v] == best[v]);
        best[v] = wins ? y : best[v];
        at[v] = wins ? here : at[v];
      }
    }
    for (int64_t j = 0; j < count; ++j) out[begin + j] = at[j / L][j % L];
  }
}

template <class T>
int64_t within(const T* x, int64_t n, T bar, bool largest) {
  constexpr int L = kLanes<T>;
  const Mask<T> sign = turning<T>(largest);
  const Vec<T> limit = turned<T>(splat(bar), sign);
  const auto fits = [=](const T* from) __attribute__((always_inline)) { return turned<T>(load(from), sign) <= limit; };
  int64_t i = 0;
  while (i + 4 * L <= n && !any(~((fits(x + i) & fits(x + i + L)) & (fits(x + i + 2 * L) & fits(x + i + 3 * L))))) {
    i += 4 * L;
  }
  while (i + L <= n && !any(~fits(x + i))) i += L;
  return i;
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
  return {{row<T>, columns<T>}, arg<T>, arg_columns<T>, within<T>, scan<T>};
}

}  // namespace

extern const ReduceTable reduce_table = {
    kernels<float>(), kernels<double>(), {row<Float16>, columns<Float16>}, {row<BFloat16>, columns<BFloat16>}};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
