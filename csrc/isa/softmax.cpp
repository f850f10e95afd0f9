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
  alignas(64) T top[kRowsTogether], mass[kRowsTogether];
  const bool streamed = past_cache && n * static_cast<std::int64_t>(sizeof(T)) <= kBufferBytes;
  for (std::int64_t r = 0, count; r < rows; r += count, x += count * n, y += count * n) {
    count = rows_together<T>(n, rows - r);
    for (std::int64_t q = 0; q < count; ++q) top[q] = max_row(x + q * n, n);
    if (log) {
      for (std::int64_t q = 0; q < count; ++q) mass[q] = static_cast<T>(exp_row<T, false>(x + q * n, top[q], y, n));
      for (std::int64_t q = 0; q < count; ++q) mass[q] = scalar_log(mass[q]);
      for (std::int64_t q = 0; q < count; ++q) {
        const T* const from = x + q * n;
        const Vec<T> a = splat(top[q]), b = splat(mass[q]);
        write_row<T>(
            y + q * n, n, streamed,
            [=](std::int64_t i) __attribute__((always_inline)) {
              prefetch_row(from + i + n);
              return load(from + i) - a - b;
            },
            [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(from + i, m) - a - b; });
      }
      continue;
    }
    T* const e = streamed ? buffer : y;
    for (std::int64_t q = 0; q < count; ++q) {
      mass[q] = static_cast<T>(1 / exp_row<T, true>(x + q * n, top[q], e + q * n, n));
    }
    for (std::int64_t q = 0; q < count; ++q) {
      const T *const from = e + q * n, *const next = x + (q + 1) * n;
      const Vec<T> scale = splat(mass[q]);
      write_row<T>(
          y + q * n, n, streamed,
          [=](std::int64_t i) __attribute__((always_inline)) {
            prefetch_row(next + i);
            return load(from + i) * scale;
          },
          [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(from + i, m) * scale; });
    }
  }
  if (past_cache) stream_end();
}

template <class T>
void softmax_rows_backward(const T* g, const T* y, T* gx, std::int64_t rows, std::int64_t n, bool log,
                           bool past_cache) {
  T total[kRowsTogether];
  for (std::int64_t r = 0, count; r < rows; r += count, g += count * n, y += count * n, gx += count * n) {
    count = rows_together<T>(n, rows - r);
    for (std::int64_t q = 0; q < count; ++q) {
      const T *const gq = g + q * n, *const yq = y + q * n;
      if (log) {
        total[q] = static_cast<T>(sum_row<T>(
            n, [=](std::int64_t i) __attribute__((always_inline)) { return load(gq + i); },
            [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) { return load_part(gq + i, m); }));
      } else {
        total[q] = static_cast<T>(sum_row<T>(
            n, [=](std::int64_t i) __attribute__((always_inline)) { return load(gq + i) * load(yq + i); },
            [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
              return load_part(gq + i, m) * load_part(yq + i, m);
            }));
      }
    }
    for (std::int64_t q = 0; q < count; ++q) {
      const T *const gq = g + q * n, *const yq = y + q * n;
      const Vec<T> s = splat(total[q]);
      if (log) {
        write_row<T>(
            gx + q * n, n, past_cache,
            [=](std::int64_t i) __attribute__((always_inline)) {
              prefetch_row(gq + i + n);
              prefetch_row(yq + i + n);
              return load(gq + i) - vexp(load(yq + i)) * s;
            },
            [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
              return load_part(gq + i, m) - vexp(load_part(yq + i, m)) * s;
            });
      } else {
        write_row<T>(
            gx + q * n, n, past_cache,
            [=](std::int64_t i) __attribute__((always_inline)) {
              prefetch_row(gq + i + n);
              prefetch_row(yq + i + n);
              return load(yq + i) * (load(gq + i) - s);
            },
            [=](std::int64_t i, std::int64_t m) __attribute__((always_inline)) {
              return load_part(yq + i, m) * (load_part(gq + i, m) - s);
            });
      }
    }
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
constexpr SoftmaxKernels<T> kernels() {
  return {softmax_rows<T>, softmax_columns<T>, softmax_rows_backward<T>, softmax_columns_backward<T>};
}

}  // namespace

extern const SoftmaxTable softmax_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
