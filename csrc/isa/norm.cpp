#include "norm.h"

#include "isa/norm_rows.h"
#include "isa/pieces.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// ---- channels: runs of s elements, one after the other

template <class T>
void sums(const T* x, int64_t count, int64_t s, double* out) {
  for (int64_t c = 0; c < count; ++c) out[c] += row_sum(x + c * s, s);
}

template <class T>
void spreads(const T* x, int64_t count, int64_t s, const T* mean, double* out) {
  for (int64_t c = 0; c < count; ++c) out[c] += row_spread(x + c * s, s, mean[c]);
}

template <class T>
void scale(const T* x, T* y, int64_t count, int64_t s, const T* mean, const T* a, const T* b, bool past_cache) {
  for (int64_t c = 0; c < count; ++c, x += s, y += s) {
    const Vec<T> vc = splat(mean[c]), va = splat(a[c]), vb = splat(b[c]);
    write_row<T>(
        y, s, past_cache, LAMBDA(int64_t i) { return (load(x + i) - vc) * va + vb; },
        LAMBDA(int64_t i, int64_t p) { return (load_part(x + i, p) - vc) * va + vb; });
  }
}

template <class T>
void dots(const T* g, const T* x, int64_t count, int64_t s, const T* mean, double* out) {
  for (int64_t c = 0; c < count; ++c, g += s, x += s) {
    const Vec<T> vc = splat(mean[c]);
    const T center = mean[c];
    double both[2];
    two_sums<T>(
        s, both,
        LAMBDA(int64_t i, Vec<T>& a, Vec<T>& b) {
          const Vec<T> v = load(g + i);
          a += v;
          b += v * (load(x + i) - vc);
        },
        LAMBDA(int64_t i, int64_t p, Vec<T>& a, Vec<T>& b) {
          const Vec<T> v = load_part(g + i, p);
          a += v;
          b += v * (load_part(x + i, p, center) - vc);
        });
    out[2 * c] += both[0];
    out[2 * c + 1] += both[1];
  }
}

template <class T>
void grad(const T* g, const T* x, T* gx, int64_t count, int64_t s, const T* mean, const T* a, const T* k, const T* m,
          bool past_cache) {
  for (int64_t c = 0; c < count; ++c, g += s, x += s, gx += s) {
    const Vec<T> vc = splat(mean[c]), va = splat(a[c]), vk = splat(k[c]), vm = splat(m[c]);
    write_row<T>(
        gx, s, past_cache, LAMBDA(int64_t i) { return (load(g + i) * va - vm) - (load(x + i) - vc) * vk; },
        LAMBDA(int64_t i, int64_t p) { return (load_part(g + i, p) * va - vm) - (load_part(x + i, p) - vc) * vk; });
  }
}

// ---- columns: a matrix with rows of `step` elements

// R rows at a time stay in registers, so that their mean and spread take one look at them; they are joined with those of
// the rows before (Chan, Golub, LeVeque 1983).
template <class T, int R>
PYFRAME_INLINE void join_rows(const T* x, int64_t before, int64_t n, int64_t step, T* mean, T* spread) {
  const T each = T{1} / R, share = static_cast<T>(R) / static_cast<T>(before + R);
  const T weight = static_cast<T>(before) * share;
  over_row<T>(n, [=](int64_t j, auto part) __attribute__((always_inline)) {
    Vec<T> v[R], m{}, q{};
    for (int r = 0; r < R; ++r) m += v[r] = part.get(x + r * step + j);
    m *= each;
    for (int r = 0; r < R; ++r) q += (v[r] - m) * (v[r] - m);
    if (before) {
      const Vec<T> old = part.get(mean + j), delta = m - old;
      m = old + delta * share;
      q = part.get(spread + j) + (q + delta * delta * weight);
    }
    part.put(mean + j, m);
    part.put(spread + j, q);
  });
}

template <class T>
void column_stats(const T* x, int64_t rows, int64_t n, int64_t step, T* mean, T* spread) {
  constexpr int kTogether = 8;
  int64_t r = 0;
  for (; r + kTogether <= rows; r += kTogether) join_rows<T, kTogether>(x + r * step, r, n, step, mean, spread);
  for (; r < rows; ++r) join_rows<T, 1>(x + r * step, r, n, step, mean, spread);
}

template <class T, int R>
PYFRAME_INLINE void dot_rows(const T* g, const T* x, bool first, int64_t n, int64_t step, const T* mean, T* sums, T* dots) {
  over_row<T>(n, [=](int64_t j, auto part) __attribute__((always_inline)) {
    const Vec<T> c = part.get(mean + j);
    Vec<T> s{}, d{};
    for (int r = 0; r < R; ++r) {
      const Vec<T> v = part.get(g + r * step + j);
      s += v;
      d += v * (part.get(x + r * step + j) - c);
    }
    part.put(sums + j, first ? s : part.get(sums + j) + s);
    part.put(dots + j, first ? d : part.get(dots + j) + d);
  });
}

template <class T>
void column_dots(const T* g, const T* x, int64_t rows, int64_t n, int64_t step, const T* mean, T* sums, T* dots) {
  constexpr int kTogether = 4;
  int64_t r = 0;
  for (; r + kTogether <= rows; r += kTogether) {
    dot_rows<T, kTogether>(g + r * step, x + r * step, r == 0, n, step, mean, sums, dots);
  }
  for (; r < rows; ++r) dot_rows<T, 1>(g + r * step, x + r * step, r == 0, n, step, mean, sums, dots);
}

template <class T>
void columns_scale(const T* x, T* y, int64_t rows, int64_t n, const T* mean, const T* a, const T* b, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    write_row<T>(
        y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - load(mean + i)) * load(a + i) + load(b + i); },
        LAMBDA(int64_t i, int64_t p) {
          return (load_part(x + i, p) - load_part(mean + i, p)) * load_part(a + i, p) + load_part(b + i, p);
        });
  }
  if (past_cache) stream_end();
}

template <class T>
void columns_grad(const T* g, const T* x, T* gx, int64_t rows, int64_t n, const T* mean, const T* a, const T* k,
                  const T* m, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, g += n, x += n, gx += n) {
    write_row<T>(
        gx, n, past_cache,
        LAMBDA(int64_t i) {
          return (load(g + i) * load(a + i) - load(m + i)) - (load(x + i) - load(mean + i)) * load(k + i);
        },
        LAMBDA(int64_t i, int64_t p) {
          return (load_part(g + i, p) * load_part(a + i, p) - load_part(m + i, p)) -
                 (load_part(x + i, p) - load_part(mean + i, p)) * load_part(k + i, p);
        });
  }
  if (past_cache) stream_end();
}

template <class T>
void add_to_double(const T* values, double* total, int64_t n) {
  for (int64_t j = 0; j < n; ++j) total[j] += static_cast<double>(values[j]);
}

template <class T>
void join_moments(const T* means, const T* spreads, int64_t blocks, int64_t rows, int64_t n, int64_t step, double* mean,
                  double* spread) {
  const double all = static_cast<double>(rows), last = static_cast<double>(rows - (blocks - 1) * kNormStep);
  for (int64_t j = 0; j < n; ++j) mean[j] = spread[j] = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    const double share = (b + 1 < blocks ? static_cast<double>(kNormStep) : last) / all;
    for (int64_t j = 0; j < n; ++j) mean[j] += static_cast<double>(means[b * step + j]) * share;
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const double count = b + 1 < blocks ? static_cast<double>(kNormStep) : last;
    for (int64_t j = 0; j < n; ++j) {
      const double delta = static_cast<double>(means[b * step + j]) - mean[j];
      spread[j] += static_cast<double>(spreads[b * step + j]) + delta * delta * count;
    }
  }
}

template <class T>
constexpr NormKernels<T> kernels() {
  return {sums<T>,           spreads<T>,       scale<T>,        dots<T>,           grad<T>,
          layer<T>,          layer_backward<T>, column_stats<T>, column_dots<T>,    columns_scale<T>,
          columns_grad<T>,   add_to_double<T>,  join_moments<T>};
}

}  // namespace

extern const NormTable norm_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
