// Layer and RMS norm of rows: forward, and the gradients of the input, the weights and the biases in one sweep.
#pragma once

#include "isa/rows.h"
#include "norm.h"

#define LAMBDA(...) [=](__VA_ARGS__) __attribute__((always_inline))

namespace pyframe {
namespace PYFRAME_ISA {

using std::int64_t;

// Two sums in one pass, emptied into doubles at fixed distances like sum_row's.
template <class T, class Full, class Part>
PYFRAME_INLINE void two_sums(int64_t n, double* out, Full full, Part part) {
  constexpr int L = kLanes<T>;
  double first = 0, second = 0;
  int64_t i = 0;
  while (i < n) {
    const int64_t end = n - i > kSumBlock ? i + kSumBlock : n;
    Vec<T> a{}, b{}, c{}, d{};
    for (; i + 2 * L <= end; i += 2 * L) {
      full(i, a, b);
      full(i + L, c, d);
    }
    for (; i + L <= end; i += L) full(i, a, b);
    if (i < end) {
      part(i, end - i, c, d);
      i = end;
    }
    first += static_cast<double>(hsum<T>(a + c));
    second += static_cast<double>(hsum<T>(b + d));
  }
  out[0] = first;
  out[1] = second;
}

template <class T>
PYFRAME_INLINE double row_sum(const T* x, int64_t n) {
  return sum_row<T>(
      n, LAMBDA(int64_t i) { return load(x + i); }, LAMBDA(int64_t i, int64_t m) { return load_part(x + i, m); });
}

template <class T>
PYFRAME_INLINE double row_spread(const T* x, int64_t n, T mean) {
  const Vec<T> c = splat(mean);
  return sum_row<T>(
      n,
      LAMBDA(int64_t i) {
        const Vec<T> d = load(x + i) - c;
        return d * d;
      },
      LAMBDA(int64_t i, int64_t m) {
        const Vec<T> d = load_part(x + i, m, mean) - c;
        return d * d;
      });
}

// y = (x - mean) · rstd · w + b, where HasW and HasB say which of these there are.
template <class T, bool HasW, bool HasB>
PYFRAME_INLINE void layer_write(const T* x, const T* w, const T* b, T* y, int64_t n, T mean, T rstd, bool past_cache) {
  const Vec<T> vm = splat(mean), vs = splat(rstd);
  write_row<T>(
      y, n, past_cache,
      LAMBDA(int64_t i) {
        prefetch_row(x + i + n);
        Vec<T> v = (load(x + i) - vm) * vs;
        if constexpr (HasW) v = v * load(w + i);
        if constexpr (HasB) v = v + load(b + i);
        return v;
      },
      LAMBDA(int64_t i, int64_t p) {
        Vec<T> v = (load_part(x + i, p) - vm) * vs;
        if constexpr (HasW) v = v * load_part(w + i, p);
        if constexpr (HasB) v = v + load_part(b + i, p);
        return v;
      });
}

template <class T>
void layer(const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, int64_t rows, int64_t n, double eps,
           bool past_cache) {
  const double count = static_cast<double>(n);
  T centers[kRowsTogether] = {};
  for (int64_t first = 0, together; first < rows; first += together) {
    together = rows_together<T>(n, rows - first);
    const T* const from = x + first * n;
    for (int64_t q = 0; mean && q < together; ++q) {
      mean[first + q] = centers[q] = static_cast<T>(row_sum(from + q * n, n) / count);
    }
    for (int64_t q = 0; q < together; ++q) {
      rstd[first + q] = static_cast<T>(1 / __builtin_sqrt(row_spread(from + q * n, n, centers[q]) / count + eps));
    }
    for (int64_t q = 0; q < together; ++q) {
      const T* const xq = from + q * n;
      const T m = centers[q], s = rstd[first + q];
      T* const yq = y + (first + q) * n;
      if (w && b) layer_write<T, true, true>(xq, w, b, yq, n, m, s, past_cache);
      else if (w) layer_write<T, true, false>(xq, w, b, yq, n, m, s, past_cache);
      else if (b) layer_write<T, false, true>(xq, w, b, yq, n, m, s, past_cache);
      else layer_write<T, false, false>(xq, w, b, yq, n, m, s, past_cache);
    }
  }
  if (past_cache) stream_end();
}

// What the gradient of one row needs: gx = g · w · rstd - m - (x - mean) · k.
template <class T>
struct RowFactors {
  T mean, rstd, k, m;
};

template <class T, bool Weighted>
PYFRAME_INLINE RowFactors<T> row_factors(const T* g, const T* x, const T* w, T mean, T rstd, int64_t n, bool centered) {
  const Vec<T> c = splat(mean);
  double total[2];  // Σ h and Σ h · (x - mean) with h = g · w
  two_sums<T>(
      n, total,
      LAMBDA(int64_t i, Vec<T>& a, Vec<T>& b) {
        Vec<T> h = load(g + i);
        if constexpr (Weighted) h = h * load(w + i);
        a += h;
        b += h * (load(x + i) - c);
      },
      LAMBDA(int64_t i, int64_t p, Vec<T>& a, Vec<T>& b) {
        Vec<T> h = load_part(g + i, p);
        if constexpr (Weighted) h = h * load_part(w + i, p);
        a += h;
        b += h * (load_part(x + i, p, mean) - c);
      });
  // gx = rstd · (h - mean(h) - z · mean(h · z)) with z = (x - mean) · rstd; without centering mean(h) does not count.
  const double r = rstd, count = static_cast<double>(n);
  return {mean, rstd, static_cast<T>(r * r * r * total[1] / count),
          centered ? static_cast<T>(r * total[0] / count) : T{0}};
}

// The gradients of R rows at once: their share in Σ g · z and Σ g, [gw gb gw gb ...] by vectors in `sums`, is loaded and
// stored once for all of them. Interleaved, the two never lie 4 KB apart, which would make loads wait for stores.
template <class T, bool Weighted, int R>
PYFRAME_INLINE void rows_grad(const T* g, const T* x, const T* w, T* gx, T* sums, const RowFactors<T>* f, int64_t n,
                              int64_t step, bool past_cache) {
  constexpr int L = kLanes<T>;
  Vec<T> c[R], s[R], k[R], m[R];
  for (int r = 0; r < R; ++r) {
    c[r] = splat(f[r].mean);
    s[r] = splat(f[r].rstd);
    k[r] = splat(f[r].k);
    m[r] = splat(f[r].m);
  }
  // Within a page, and from memory, the hardware's prefetchers do as well.
  const bool pages = !past_cache && step * static_cast<int64_t>(sizeof(T)) >= 4096;
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    // Rows of a power of two lie at equal distances from pages: a load behind the stores would often wait for one of
    // them that it has the lower 12 bits of the address in common with.
    Vec<T> v[R], d[R];
    for (int r = 0; r < R; ++r) {
      v[r] = load(g + r * step + i);
      d[r] = load(x + r * step + i) - c[r];
      if (pages) {
        prefetch_row(g + (r + R) * step + i);
        prefetch_row(x + (r + R) * step + i);
      }
    }
    Vec<T> a = load(sums + 2 * i), b = load(sums + 2 * i + L), weight{};
    if constexpr (Weighted) weight = load(w + i);
    for (int r = 0; r < R; ++r) {
      Vec<T> out = v[r] * s[r];
      a += out * d[r];
      b += v[r];
      if constexpr (Weighted) out = out * weight;
      v[r] = (out - m[r]) - d[r] * k[r];
    }
    for (int r = 0; r < R; ++r) {
      if (past_cache) stream<T>(gx + r * step + i, v[r]);
      else store<T>(gx + r * step + i, v[r]);
    }
    store<T>(sums + 2 * i, a);
    store<T>(sums + 2 * i + L, b);
  }
  if (i == n) return;
  Vec<T> a = load(sums + 2 * i), b = load(sums + 2 * i + L);
  for (int r = 0; r < R; ++r) {
    const Vec<T> v = load_part(g + r * step + i, n - i), d = load_part(x + r * step + i, n - i, f[r].mean) - c[r];
    const Vec<T> t = v * s[r];
    a += t * d;
    b += v;
    Vec<T> out = t;
    if constexpr (Weighted) out = out * load_part(w + i, n - i);
    store_part<T>(gx + r * step + i, (out - m[r]) - d * k[r], n - i);
  }
  store<T>(sums + 2 * i, a);
  store<T>(sums + 2 * i + L, b);
}

template <class T, bool Weighted>
void layer_rows_backward(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, T* sums, int64_t rows,
                         int64_t n, int64_t step, int64_t stat_step, bool past_cache) {
  constexpr int kTogether = 4;
  RowFactors<T> f[kTogether];
  for (int64_t r = 0; r < rows; r += kTogether) {
    const int64_t count = rows - r < kTogether ? rows - r : kTogether;
    for (int64_t q = 0; q < count; ++q) {
      const int64_t at = (r + q) * step, stat = (r + q) * stat_step;
      f[q] = row_factors<T, Weighted>(g + at, x + at, w, mean ? mean[stat] : T{}, rstd[stat], n, mean != nullptr);
    }
    const int64_t at = r * step;
    if (count == kTogether) {
      rows_grad<T, Weighted, kTogether>(g + at, x + at, w, gx + at, sums, f, n, step, past_cache);
      continue;
    }
    for (int64_t q = 0; q < count; ++q) {
      const int64_t to = at + q * step;
      rows_grad<T, Weighted, 1>(g + to, x + to, w, gx + to, sums, f + q, n, step, past_cache);
    }
  }
}

// total[j] += values[j] for the lanes of one vector; a number of steps known here makes vectors of it.
template <class T>
PYFRAME_INLINE void add_lanes(const T* __restrict values, double* __restrict total) {
  for (int j = 0; j < kLanes<T>; ++j) total[j] += static_cast<double>(values[j]);
}

template <class T>
void layer_backward(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, double* gw, double* gb,
                    T* scratch, int64_t rows, int64_t n, int64_t step, int64_t stat_step, bool past_cache) {
  constexpr int L = kLanes<T>;
  const int64_t padded = (n + L - 1) / L * L;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(gx) | static_cast<std::uintptr_t>(step) * sizeof(T);
  past_cache = past_cache && address % kVectorBytes == 0;
  for (int64_t r = 0; r < rows; r += kNormStep) {
    const int64_t count = rows - r < kNormStep ? rows - r : kNormStep, at = r * step, stat = r * stat_step;
    for (int64_t i = 0; i < 2 * padded; i += L) store<T>(scratch + i, Vec<T>{});
    const T* const means = mean ? mean + stat : nullptr;
    if (w) layer_rows_backward<T, true>(g + at, x + at, means, rstd + stat, w, gx + at, scratch, count, n, step,
                                        stat_step, past_cache);
    else layer_rows_backward<T, false>(g + at, x + at, means, rstd + stat, w, gx + at, scratch, count, n, step,
                                       stat_step, past_cache);
    int64_t i = 0;
    for (; i + L <= n; i += L) {
      add_lanes(scratch + 2 * i, gw + i);
      add_lanes(scratch + 2 * i + L, gb + i);
    }
    for (int64_t j = 0; j < n - i; ++j) {
      gw[i + j] += static_cast<double>(scratch[2 * i + j]);
      gb[i + j] += static_cast<double>(scratch[2 * i + L + j]);
    }
  }
  if (past_cache) stream_end();
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
