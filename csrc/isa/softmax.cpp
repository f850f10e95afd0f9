#include "softmax.h"

#include "isa/rows.h"
#include "isa/vec_math.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// Rows of up to this many bytes are computed in a buffer that stays in the first cache level.
constexpr std::int64_t kBufferBytes = 32 << 10;
// Columns are worked on in strips, so that a strip of all rows stays in the second cache level if it can.
constexpr std::int64_t kStripBytes = 256 << 10;

template <class T> PYFRAME_INLINE T scalar_log(T x) { return vlog(splat(x))[0]; }

// out = exp(x - top), and the sum of that; `out` may be null.
template <class T, bool Store>
PYFRAME_INLINE double exp_row(const T* x, T top, T* out, std::int64_t n) {
  const Vec<T> shift = splat(top);
  return sum_row<T>(
      n,
      [=](std::int64_t i) __attribute__((always_inline)) {
        const Vec<T> e = vexp(load(x + i) - shift);
        if constexpr (Store) store<T>(out + i, e);
        return e;
      },
      [=](std::int64_t i, std::int64_t count) __attribute__((always_inline)) {
        // exp(-inf) = 0 fills the rest; -inf - (-inf) would not, but then the sum is NaN anyhow.
        const Vec<T> e = vexp(load_part(x + i, count, -static_cast<T>(__builtin_inf())) - shift);
        if constexpr (Store) store_part<T>(out + i, e, count);
        return e;
      });
}

template <class T>
void softmax_rows(const T* x, T* y, std::int64_t rows, std::int64_t n, bool log, bool past_cache) {
  alignas(64) T buffer[kBufferBytes / sizeof(T)];
  const bool buffered = n * static_cast<std::int64_t>(sizeof(T)) <= kBufferBytes;
  for (std::int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const T top = max_row(x, n);
    if (log) {
      const T mass = static_cast<T>(exp_row<T, false>(x, top, y, n));
      const Vec<T> a = splat(top), b = splat(scalar_log(mass));
      write_row<T>(
          y, n, past_cache && buffered,
          [=](std::int64_t i) __attribute__((always_inline)) { return load(x + i) - a - b; },
          [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(x + i, m) - a - b; });
      continue;
    }
    T* const e = past_cache && buffered ? buffer : y;
    const Vec<T> scale = splat(static_cast<T>(1 / exp_row<T, true>(x, top, e, n)));
    write_row<T>(
        y, n, past_cache && buffered,
        [=](std::int64_t i) __attribute__((always_inline)) { return load(e + i) * scale; },
        [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(e + i, m) * scale; });
  }
  if (past_cache) stream_end();
}

template <class T>
void softmax_rows_backward(const T* g, const T* y, T* gx, std::int64_t rows, std::int64_t n, bool log,
                           bool past_cache) {
  for (std::int64_t r = 0; r < rows; ++r, g += n, y += n, gx += n) {
    if (log) {
      const double total = sum_row<T>(
          n, [=](std::int64_t i) __attribute__((always_inline)) { return load(g + i); },
          [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(g + i, m); });
      const Vec<T> s = splat(static_cast<T>(total));
      write_row<T>(
          gx, n, past_cache,
          [=](std::int64_t i) __attribute__((always_inline)) { return load(g + i) - vexp(load(y + i)) * s; },
          [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
            return load_part(g + i, m) - vexp(load_part(y + i, m)) * s;
          });
      continue;
    }
    const double total = sum_row<T>(
        n, [=](std::int64_t i) __attribute__((always_inline)) { return load(g + i) * load(y + i); },
        [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
          return load_part(g + i, m) * load_part(y + i, m);
        });
    const Vec<T> s = splat(static_cast<T>(total));
    write_row<T>(
        gx, n, past_cache,
        [=](std::int64_t i) __attribute__((always_inline)) { return load(y + i) * (load(g + i) - s); },
        [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
          return load_part(y + i, m) * (load_part(g + i, m) - s);
        });
  }
  if (past_cache) stream_end();
}

// One strip of up to four vectors of columns; `count` of its elements exist.
template <class T>
PYFRAME_INLINE Vec<T> strip_load(const T* p, std::int64_t count) {
  return count >= kLanes<T> ? load(p) : load_part(p, count);
}
template <class T>
PYFRAME_INLINE void strip_store(T* p, Vec<T> v, std::int64_t count) {
  if (count >= kLanes<T>) store<T>(p, v);
  else store_part<T>(p, v, count);
}

template <class T>
void softmax_columns(const T* x, T* y, std::int64_t n, std::int64_t inner, std::int64_t begin, std::int64_t end,
                     bool log) {
  constexpr int L = kLanes<T>, kMost = 4096 / sizeof(T);
  // Wide strips read whole pages; narrow ones keep a long strip in the cache.
  std::int64_t width = kStripBytes / static_cast<std::int64_t>(sizeof(T)) / (n > 0 ? n : 1) / L * L;
  width = width < L ? L : width > kMost ? kMost : width;
  alignas(64) T top[kMost], mass[kMost];
  for (std::int64_t c = begin; c < end; c += width) {
    const std::int64_t w = end - c < width ? end - c : width;
    const T* const xs = x + c;
    T* const ys = y + c;
    for (std::int64_t j = 0; j < w; j += L) {
      store<T>(top + j, splat(-static_cast<T>(__builtin_inf())));
      store<T>(mass + j, Vec<T>{});
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < w; j += L) {
        store<T>(top + j, vmax<T>(strip_load(xs + i * inner + j, w - j), load(top + j)));
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < w; j += L) {
        const Vec<T> e = vexp(strip_load(xs + i * inner + j, w - j) - load(top + j));
        if (!log) strip_store<T>(ys + i * inner + j, e, w - j);
        store<T>(mass + j, load(mass + j) + e);
      }
    }
    for (std::int64_t j = 0; j < w; j += L) {
      const Vec<T> m = load(mass + j);
      store<T>(mass + j, log ? vlog(m) : 1 / m);
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < w; j += L) {
        const std::int64_t at = i * inner + j;
        const Vec<T> v = log ? strip_load(xs + at, w - j) - load(top + j) - load(mass + j)
                             : strip_load(ys + at, w - j) * load(mass + j);
        strip_store<T>(ys + at, v, w - j);
      }
    }
  }
}

template <class T>
void softmax_columns_backward(const T* g, const T* y, T* gx, std::int64_t n, std::int64_t inner, std::int64_t begin,
                              std::int64_t end, bool log) {
  constexpr int L = kLanes<T>, kMost = 4096 / sizeof(T);
  std::int64_t width = kStripBytes / 2 / static_cast<std::int64_t>(sizeof(T)) / (n > 0 ? n : 1) / L * L;
  width = width < L ? L : width > kMost ? kMost : width;
  alignas(64) T total[kMost];
  for (std::int64_t c = begin; c < end; c += width) {
    const std::int64_t w = end - c < width ? end - c : width;
    for (std::int64_t j = 0; j < w; j += L) store<T>(total + j, Vec<T>{});
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < w; j += L) {
        const std::int64_t at = i * inner + c + j;
        const Vec<T> gv = strip_load(g + at, w - j);
        store<T>(total + j, load(total + j) + (log ? gv : gv * strip_load(y + at, w - j)));
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      for (std::int64_t j = 0; j < w; j += L) {
        const std::int64_t at = i * inner + c + j;
        const Vec<T> gv = strip_load(g + at, w - j), yv = strip_load(y + at, w - j), s = load(total + j);
        strip_store<T>(gx + at, log ? gv - vexp(yv) * s : yv * (gv - s), w - j);
      }
    }
  }
}

template <class T>
void cross_rows(const T* x, const std::int64_t* target, const T* weight, std::int64_t ignored, T* loss, T* top, T* mass,
                std::int64_t rows, std::int64_t n, double* sums) {
  double losses = 0, weights = 0;
  for (std::int64_t r = 0; r < rows; ++r, x += n) {
    const T m = max_row(x, n);
    const T s = static_cast<T>(exp_row<T, false>(x, m, loss, n));
    top[r] = m;
    mass[r] = s;
    const std::int64_t k = target[r];
    if (k == ignored) {
      loss[r] = 0;
      continue;
    }
    const T w = weight ? weight[k] : T{1};
    loss[r] = (scalar_log(s) - (x[k] - m)) * w;
    losses += loss[r];
    weights += w;
  }
  sums[0] = losses;
  sums[1] = weights;
}

template <class T>
void cross_rows_backward(const T* x, const std::int64_t* target, const T* weight, std::int64_t ignored, const T* g,
                         std::int64_t g_step, T scale, const T* top, const T* mass, T* gx, std::int64_t rows,
                         std::int64_t n, bool past_cache) {
  for (std::int64_t r = 0; r < rows; ++r, x += n, gx += n) {
    const std::int64_t k = target[r];
    const bool counts = k != ignored;
    const T gw = counts ? g[r * g_step] * scale * (weight ? weight[k] : T{1}) : T{0};
    const Vec<T> shift = splat(top[r]), factor = splat(gw / mass[r]);
    // The target's element is read back and changed, so it should still be in the cache: no streaming around it.
    write_row<T>(
        gx, n, past_cache && !counts,
        [=](std::int64_t i) __attribute__((always_inline)) { return vexp(load(x + i) - shift) * factor; },
        [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
          return vexp(load_part(x + i, m) - shift) * factor;
        });
    if (counts) gx[k] -= gw;
  }
  if (past_cache) stream_end();
}

template <class T>
constexpr SoftmaxKernels<T> kernels() {
  return {softmax_rows<T>,    softmax_columns<T>, softmax_rows_backward<T>, softmax_columns_backward<T>,
          cross_rows<T>, cross_rows_backward<T>};
}

}  // namespace

extern const SoftmaxTable softmax_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
