#include "reduce.h"

#include "isa/rows.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// The larger (smaller) of two, NaN if there is one.
template <class T, bool Largest>
PYFRAME_INLINE Vec<T> extreme(Vec<T> x, Vec<T> best) {
  const Mask<T> wins = Largest ? x > best : x < best;
  return (wins | (x != x)) ? x : best;
}

template <class T, bool Largest>
PYFRAME_INLINE T extreme_row(const T* x, int64_t n) {
  constexpr int L = kLanes<T>;
  const T worst = (Largest ? -1 : 1) * static_cast<T>(__builtin_inf());
  Vec<T> a = splat(worst), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * L <= n; i += 4 * L) {
    a = extreme<T, Largest>(load(x + i), a);
    b = extreme<T, Largest>(load(x + i + L), b);
    c = extreme<T, Largest>(load(x + i + 2 * L), c);
    d = extreme<T, Largest>(load(x + i + 3 * L), d);
  }
  for (; i + L <= n; i += L) a = extreme<T, Largest>(load(x + i), a);
  if (i < n) b = extreme<T, Largest>(load_part(x + i, n - i, worst), b);
  a = extreme<T, Largest>(extreme<T, Largest>(a, b), extreme<T, Largest>(c, d));
  if (any(a != a)) return static_cast<T>(__builtin_nan(""));
  return Largest ? hmax<T>(a) : hmin<T>(a);
}

template <class T>
double row(const T* x, int64_t n, Fold fold, T mean) {
  switch (fold) {
    case Fold::sum:
      return sum_row<T>(
          n, [=](int64_t i) __attribute__((always_inline)) { return load(x + i); },
          [=](int64_t i, int64_t m) __attribute__((always_inline)) { return load_part(x + i, m); });
    case Fold::square_spread: {
      const Vec<T> c = splat(mean);
      return sum_row<T>(
          n,
          [=](int64_t i) __attribute__((always_inline)) {
            const Vec<T> d = load(x + i) - c;
            return d * d;
          },
          [=](int64_t i, int64_t m) __attribute__((always_inline)) {
            const Vec<T> d = load_part(x + i, m, mean) - c;
            return d * d;
          });
    }
    case Fold::max: return static_cast<double>(extreme_row<T, true>(x, n));
    default: return static_cast<double>(extreme_row<T, false>(x, n));
  }
}

// Rows whose sum is kept in one accumulator before it is added to the total: bounds the rounding error.
constexpr int64_t kRowBlock = 128;
// Columns that one call folds at most: their accumulators stay in the first cache level.
constexpr int64_t kMostColumns = 1024;

template <class T, Fold kind>
PYFRAME_INLINE Vec<T> fold_two(Vec<T> a, Vec<T> b) {
  if constexpr (kind == Fold::max || kind == Fold::min) return extreme<T, kind == Fold::max>(a, b);
  else return a + b;
}

// Folds four rows (or `rows` < 4) into the accumulators. Reading whole rows keeps the memory's prefetchers busy.
template <class T, Fold kind, int Rows>
PYFRAME_INLINE void fold_rows(const T* x, int64_t inner, int64_t count, const T* mean, T* into) {
  constexpr int L = kLanes<T>;
  const auto term = [](Vec<T> v, Vec<T> m) __attribute__((always_inline)) {
    if constexpr (kind == Fold::square_spread) return (v - m) * (v - m);
    else return v;
  };
  const auto all = [&](auto get, int64_t j) __attribute__((always_inline)) {
    Vec<T> m{};
    if constexpr (kind == Fold::square_spread) m = get(mean + j);
    Vec<T> v = term(get(x + j), m);
    if constexpr (Rows == 4) {
      v = fold_two<T, kind>(v, term(get(x + inner + j), m));
      v = fold_two<T, kind>(v, fold_two<T, kind>(term(get(x + 2 * inner + j), m), term(get(x + 3 * inner + j), m)));
    }
    return fold_two<T, kind>(v, get(into + j));
  };
  int64_t j = 0;
  for (; j + L <= count; j += L) {
    store<T>(into + j, all([](const T* p) __attribute__((always_inline)) { return load(p); }, j));
  }
  if (j < count) {
    const int64_t rest = count - j;
    store_part<T>(into + j, all([=](const T* p) __attribute__((always_inline)) { return load_part(p, rest); }, j), rest);
  }
}

template <class T, Fold kind>
void fold_columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, const T* mean, T* out) {
  constexpr bool kSum = kind == Fold::sum || kind == Fold::square_spread;
  alignas(64) T part[kMostColumns];
  for (; begin < end; begin += kMostColumns) {
    const int64_t count = end - begin < kMostColumns ? end - begin : kMostColumns;
    const T start = kSum ? T{0} : (kind == Fold::max ? -1 : 1) * static_cast<T>(__builtin_inf());
    T* const total = out + begin;
    for (int64_t j = 0; j < count; ++j) total[j] = start;
    T* const into = kSum ? part : total;
    for (int64_t r = 0; r < rows;) {
      const int64_t stop = rows - r > kRowBlock ? r + kRowBlock : rows;
      if constexpr (kSum) __builtin_memset(part, 0, static_cast<std::size_t>(count) * sizeof(T));
      for (; r + 4 <= stop; r += 4) fold_rows<T, kind, 4>(x + r * inner + begin, inner, count, mean + begin, into);
      for (; r < stop; ++r) fold_rows<T, kind, 1>(x + r * inner + begin, inner, count, mean + begin, into);
      if constexpr (kSum) {
        for (int64_t j = 0; j < count; ++j) total[j] += part[j];
      }
    }
  }
}

template <class T>
void columns(const T* x, int64_t rows, int64_t inner, int64_t begin, int64_t end, Fold fold, const T* mean, T* out) {
  switch (fold) {
    case Fold::sum: return fold_columns<T, Fold::sum>(x, rows, inner, begin, end, x, out);
    case Fold::max: return fold_columns<T, Fold::max>(x, rows, inner, begin, end, x, out);
    case Fold::min: return fold_columns<T, Fold::min>(x, rows, inner, begin, end, x, out);
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
  while (!(x[found] == best || (best != best && x[found] != x[found]))) ++found;
  return found;
}

template <class T>
void cumsum(const T* x, T* y, int64_t n, int64_t inner, int64_t begin, int64_t end, bool reverse) {
  constexpr int L = kLanes<T>;
  const int64_t step = reverse ? -inner : inner, first = reverse ? (n - 1) * inner : 0;
  if (inner == 1) {
    T total = 0;
    for (int64_t i = 0, at = first; i < n; ++i, at += step) y[at] = total += x[at];
    return;
  }
  for (int64_t j = begin; j < end; j += L) {
    const int64_t count = end - j;
    Vec<T> total{};
    for (int64_t i = 0, at = first + j; i < n; ++i, at += step) {
      if (count >= L) {
        total += load(x + at);
        store<T>(y + at, total);
      } else {
        total += load_part(x + at, count);
        store_part<T>(y + at, total, count);
      }
    }
  }
}

template <class T>
constexpr ReduceKernels<T> kernels() {
  return {row<T>, columns<T>, arg<T>, cumsum<T>};
}

}  // namespace

extern const ReduceTable reduce_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
