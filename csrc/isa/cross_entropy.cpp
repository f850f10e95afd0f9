#include "cross_entropy.h"

#include "isa/rows.h"
#include "isa/vec_math.h"

#define LAMBDA(...) [=](__VA_ARGS__) __attribute__((always_inline))

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// Classes alone need nothing but Σ exp; smoothed ones also Σ w (x - top); probabilities also Σ q and Σ q (x - top).
enum class Mode { plain, smooth, probabilities };

template <class T>
PYFRAME_INLINE Mode mode_of(const CrossTarget<T>& t) {
  return t.probabilities ? Mode::probabilities : t.share != 0 ? Mode::smooth : Mode::plain;
}

// Elements after which the accumulators of extra sums are emptied into doubles.
constexpr int64_t kEmptied = 512;

constexpr double kInfinity = __builtin_inf();

template <class T> PYFRAME_INLINE T scalar_log(T x) { return vlog(splat(x))[0]; }

template <class T>
PYFRAME_INLINE bool is_infinite(T x) { return x == static_cast<T>(kInfinity) || x == -static_cast<T>(kInfinity); }

// The first `count` elements if these are fewer than a vector, else a vector.
template <class T>
PYFRAME_INLINE Vec<T> some(const T* p, int64_t count, T fill = T{}) {
  return count >= kLanes<T> ? load(p) : load_part(p, count, fill);
}
template <class T>
PYFRAME_INLINE void put(T* p, Vec<T> v, int64_t count) {
  if (count >= kLanes<T>) store<T>(p, v);
  else store_part<T>(p, v, count);
}

// ---- rows

template <class T>
PYFRAME_INLINE double row_mass(const T* x, T top, int64_t n) {
  const Vec<T> shift = splat(top);
  return sum_row<T>(
      n, LAMBDA(int64_t i) { return vexp(load(x + i) - shift); },
      LAMBDA(int64_t i, int64_t count) { return vexp(load_part(x + i, count, -static_cast<T>(kInfinity)) - shift); });
}

// q of the classes from i on, 0 behind the end.
template <class T>
PYFRAME_INLINE Vec<T> given(const CrossTarget<T>& t, const T* probabilities, int64_t i, int64_t count) {
  Vec<T> q = some(probabilities + i, count) * t.keep + t.share;
  if (t.weight) q = q * some(t.weight + i, count);
  return q;
}

// out[0] = Σ q, out[1] = Σ q · (x - top), for probabilities; for smoothing only Σ w · (x - top), in out[1].
template <class T, Mode mode>
PYFRAME_INLINE void extra_sums(const CrossTarget<T>& t, const T* x, const T* probabilities, T top, int64_t n, T* out) {
  constexpr int L = kLanes<T>;
  const Vec<T> shift = splat(top);
  double sums = 0, dots = 0;
  for (int64_t block = 0; block < n; block += kEmptied) {
    const int64_t end = n - block > kEmptied ? block + kEmptied : n;
    Vec<T> s{}, d{};
    for (int64_t i = block; i < end; i += L) {
      const Vec<T> z = some(x + i, end - i, top) - shift;
      if constexpr (mode == Mode::probabilities) {
        Vec<T> q = given(t, probabilities, i, end - i);
        if (end - i < L) {  // the share must not count behind the end
          for (int64_t j = end - i; j < L; ++j) q[j] = 0;
        }
        s += q;
        d += q * z;
      } else {
        d += t.weight ? z * some(t.weight + i, end - i) : z;
      }
    }
    sums += static_cast<double>(hsum<T>(s));
    dots += static_cast<double>(hsum<T>(d));
  }
  out[0] = static_cast<T>(sums);
  out[1] = static_cast<T>(dots);
}

template <class T>
void rows_mass(const T* x, T* top, T* mass, int64_t rows, int64_t n, bool finite) {
  for (int64_t r = 0; r < rows; ++r, x += n) {
    T m = max_row(x, n);
    if (finite && is_infinite(m)) m = 0;
    top[r] = m;
    mass[r] = static_cast<T>(row_mass(x, m, n));
  }
}

// The loss of one position whose logarithm of the mass, extra sums and target's logit are known.
template <class T>
PYFRAME_INLINE T class_loss(const CrossTarget<T>& t, int64_t k, T log_mass, T picked, T dots, double* sums) {
  if (k == t.ignored) return 0;
  const T w = t.weight ? t.weight[k] : T{1};
  T loss = (log_mass - picked) * w;
  if (t.share != 0) loss = loss * t.keep + (log_mass * t.weight_sum - dots) * t.share;
  sums[0] += static_cast<double>(loss);
  sums[1] += static_cast<double>(w);
  return loss;
}

template <class T, Mode mode>
void loss_rows(const CrossTarget<T>& t, const T* x, T* loss, T* top, T* mass, int64_t rows, int64_t n, double* sums) {
  T logs[kRowsTogether];
  for (int64_t first = 0, together; first < rows; first += together) {
    together = rows_together<T>(n, rows - first);
    for (int64_t r = first; r < first + together; ++r) top[r] = max_row(x + r * n, n);
    for (int64_t r = first; r < first + together; ++r) mass[r] = static_cast<T>(row_mass(x + r * n, top[r], n));
    for (int64_t q = 0; q < together; ++q) logs[q] = scalar_log(mass[first + q]);
    for (int64_t q = 0; q < together; ++q) {
      const int64_t r = first + q;
      T extra[2] = {};
      if constexpr (mode != Mode::plain) {
        const T* const own = mode == Mode::probabilities ? t.probabilities + r * n : nullptr;
        extra_sums<T, mode>(t, x + r * n, own, top[r], n, extra);
      }
      if constexpr (mode == Mode::probabilities) {
        loss[r] = logs[q] * extra[0] - extra[1];
        sums[0] += static_cast<double>(loss[r]);
        sums[1] += 1;
      } else {
        const int64_t k = t.classes[r];
        loss[r] = class_loss(t, k, logs[q], k == t.ignored ? T{0} : x[r * n + k] - top[r], extra[1], sums);
      }
    }
  }
}

template <class T, Mode mode>
void grad_rows(const CrossTarget<T>& t, const T* x, const T* g, int64_t g_step, T scale, const T* top, const T* mass,
               T* gx, int64_t rows, int64_t n, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, x += n, gx += n) {
    const T each = g[r * g_step] * scale;
    const Vec<T> shift = splat(top[r]);
    if constexpr (mode == Mode::probabilities) {
      const T* const q = t.probabilities + r * n;
      T extra[2];
      extra_sums<T, mode>(t, x, q, top[r], n, extra);
      const Vec<T> factor = splat(each * extra[0] / mass[r]), vg = splat(each);
      const CrossTarget<T> own = t;
      write_row<T>(
          gx, n, past_cache,
          LAMBDA(int64_t i) { return vexp(load(x + i) - shift) * factor - given(own, q, i, kLanes<T>) * vg; },
          LAMBDA(int64_t i, int64_t p) {
            return vexp(load_part(x + i, p) - shift) * factor - given(own, q, i, p) * vg;
          });
      continue;
    }
    const int64_t k = t.classes[r];
    const bool counts = k != t.ignored;
    const T gw = counts ? each * t.keep * (t.weight ? t.weight[k] : T{1}) : T{0};
    const T smooth = counts ? each * t.share : T{0};
    const Vec<T> factor = splat((gw + smooth * t.weight_sum) / mass[r]), vs = splat(smooth);
    const T* const weight = t.weight;
    // The target's element is read back and changed, so it should still be in the cache: no streaming around it.
    const bool streamed = past_cache && !counts;
    if (mode == Mode::plain) {
      write_row<T>(
          gx, n, streamed, LAMBDA(int64_t i) { return vexp(load(x + i) - shift) * factor; },
          LAMBDA(int64_t i, int64_t p) { return vexp(load_part(x + i, p) - shift) * factor; });
    } else {
      write_row<T>(
          gx, n, streamed,
          LAMBDA(int64_t i) {
            return vexp(load(x + i) - shift) * factor - (weight ? load(weight + i) * vs : vs);
          },
          LAMBDA(int64_t i, int64_t p) {
            return vexp(load_part(x + i, p) - shift) * factor - (weight ? load_part(weight + i, p) * vs : vs);
          });
    }
    if (counts) gx[k] -= gw;
  }
  if (past_cache) stream_end();
}

// ---- columns: strips of up to kMost positions, whose numbers lie in arrays on the stack

constexpr int kMost = 512;

// Width of a strip of which all classes should stay in the second cache level.
template <class T>
PYFRAME_INLINE int64_t strip_width(int64_t n) {
  constexpr int L = kLanes<T>;
  const int64_t width = (256 << 10) / static_cast<int64_t>(sizeof(T)) / (n > 0 ? n : 1) / L * L;
  return width < L ? L : width > kMost ? kMost : width;
}

// top and mass of w columns from x on; arrays are padded to whole vectors.
template <class T>
PYFRAME_INLINE void strip_mass(const T* x, int64_t n, int64_t inner, int64_t w, T* top, T* mass, bool finite) {
  constexpr int L = kLanes<T>;
  const Vec<T> lowest = splat(-static_cast<T>(kInfinity));
  for (int64_t j = 0; j < w; j += L) {
    store<T>(top + j, lowest);
    store<T>(mass + j, Vec<T>{});
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < w; j += L) {
      store<T>(top + j, vmax<T>(some(x + i * inner + j, w - j), load(top + j)));
    }
  }
  for (int64_t j = 0; finite && j < w; ++j) {
    if (is_infinite(top[j])) top[j] = 0;
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < w; j += L) {
      store<T>(mass + j, load(mass + j) + vexp(some(x + i * inner + j, w - j) - load(top + j)));
    }
  }
}

template <class T>
void columns_mass(const T* x, T* top, T* mass, int64_t n, int64_t inner, int64_t begin, int64_t end, bool finite) {
  alignas(64) T tops[kMost], masses[kMost];
  const int64_t width = strip_width<T>(n);
  for (int64_t c = begin; c < end; c += width) {
    const int64_t w = end - c < width ? end - c : width;
    strip_mass(x + c, n, inner, w, tops, masses, finite);
    for (int64_t j = 0; j < w; ++j) {
      top[c + j] = tops[j];
      mass[c + j] = masses[j];
    }
  }
}

// q of class i at w columns of the probabilities from p on.
template <class T>
PYFRAME_INLINE Vec<T> given_column(const CrossTarget<T>& t, const T* p, int64_t i, int64_t count) {
  const Vec<T> q = some(p, count) * t.keep + t.share;
  return t.weight ? q * t.weight[i] : q;
}

// Σ q and Σ q · (x - top) of w columns, or for smoothing Σ w · (x - top) in `dots`.
template <class T, Mode mode>
PYFRAME_INLINE void strip_sums(const CrossTarget<T>& t, const T* x, const T* probabilities, const T* top, int64_t n,
                               int64_t inner, int64_t w, T* sums, T* dots) {
  constexpr int L = kLanes<T>;
  for (int64_t j = 0; j < w; j += L) {
    store<T>(sums + j, Vec<T>{});
    store<T>(dots + j, Vec<T>{});
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < w; j += L) {
      const Vec<T> z = some(x + i * inner + j, w - j) - load(top + j);
      if constexpr (mode == Mode::probabilities) {
        const Vec<T> q = given_column(t, probabilities + i * inner + j, i, w - j);
        store<T>(sums + j, load(sums + j) + q);
        store<T>(dots + j, load(dots + j) + q * z);
      } else {
        store<T>(dots + j, load(dots + j) + (t.weight ? z * t.weight[i] : z));
      }
    }
  }
}

template <class T, Mode mode>
void loss_columns(const CrossTarget<T>& t, const T* x, T* loss, T* top, T* mass, int64_t n, int64_t inner,
                  int64_t begin, int64_t end, double* total) {
  constexpr int L = kLanes<T>;
  alignas(64) T tops[kMost], masses[kMost], sums[kMost] = {}, dots[kMost] = {};
  const int64_t width = strip_width<T>(n);
  for (int64_t c = begin; c < end; c += width) {
    const int64_t w = end - c < width ? end - c : width;
    strip_mass(x + c, n, inner, w, tops, masses, false);
    for (int64_t j = 0; j < w; ++j) {
      top[c + j] = tops[j];
      mass[c + j] = masses[j];
    }
    if constexpr (mode != Mode::plain) {
      strip_sums<T, mode>(t, x + c, t.probabilities + c, tops, n, inner, w, sums, dots);
    }
    for (int64_t j = 0; j < w; j += L) store<T>(masses + j, vlog(load(masses + j)));
    for (int64_t j = 0; j < w; ++j) {
      if constexpr (mode == Mode::probabilities) {
        loss[c + j] = masses[j] * sums[j] - dots[j];
        total[0] += static_cast<double>(loss[c + j]);
        total[1] += 1;
      } else {
        const int64_t k = t.classes[c + j];
        const T picked = k == t.ignored ? T{0} : x[k * inner + c + j] - tops[j];
        loss[c + j] = class_loss(t, k, masses[j], picked, dots[j], total);
      }
    }
  }
}

template <class T, Mode mode>
void grad_columns(const CrossTarget<T>& t, const T* x, const T* g, int64_t g_step, T scale, const T* top, const T* mass,
                  T* gx, int64_t n, int64_t inner, int64_t begin, int64_t end) {
  constexpr int L = kLanes<T>;
  alignas(64) T tops[kMost] = {}, factors[kMost] = {}, shares[kMost] = {}, sums[kMost], dots[kMost];
  const int64_t width = strip_width<T>(n);
  for (int64_t c = begin; c < end; c += width) {
    const int64_t w = end - c < width ? end - c : width;
    for (int64_t j = 0; j < w; ++j) tops[j] = top[c + j];
    if constexpr (mode == Mode::probabilities) {
      strip_sums<T, mode>(t, x + c, t.probabilities + c, tops, n, inner, w, sums, dots);
    }
    for (int64_t j = 0; j < w; ++j) {
      const T each = g[(c + j) * g_step] * scale;
      if constexpr (mode == Mode::probabilities) {
        factors[j] = each * sums[j] / mass[c + j];
        shares[j] = each;
      } else {
        const int64_t k = t.classes[c + j];
        const bool counts = k != t.ignored;
        const T gw = counts ? each * t.keep * (t.weight ? t.weight[k] : T{1}) : T{0};
        shares[j] = counts ? each * t.share : T{0};
        factors[j] = (gw + shares[j] * t.weight_sum) / mass[c + j];
      }
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < w; j += L) {
        const int64_t at = i * inner + c + j;
        Vec<T> v = vexp(some(x + at, w - j) - load(tops + j)) * load(factors + j);
        if constexpr (mode == Mode::probabilities) {
          v = v - given_column(t, t.probabilities + at, i, w - j) * load(shares + j);
        } else if constexpr (mode == Mode::smooth) {
          v = v - (t.weight ? load(shares + j) * t.weight[i] : load(shares + j));
        }
        put<T>(gx + at, v, w - j);
      }
    }
    if constexpr (mode == Mode::probabilities) continue;
    for (int64_t j = 0; j < w; ++j) {
      const int64_t k = t.classes[c + j];
      if (k != t.ignored) gx[k * inner + c + j] -= g[(c + j) * g_step] * scale * t.keep * (t.weight ? t.weight[k] : T{1});
    }
  }
}

// ---- the mode, chosen once per call

#define BY_MODE(name, ...)                                                        \
  switch (mode_of(t)) {                                                           \
    case Mode::plain: return name<T, Mode::plain>(t, __VA_ARGS__);                \
    case Mode::smooth: return name<T, Mode::smooth>(t, __VA_ARGS__);              \
    default: return name<T, Mode::probabilities>(t, __VA_ARGS__);                 \
  }

template <class T>
void rows(const CrossTarget<T>& t, const T* x, T* loss, T* top, T* mass, int64_t rows, int64_t n, double* sums) {
  BY_MODE(loss_rows, x, loss, top, mass, rows, n, sums)
}
template <class T>
void columns(const CrossTarget<T>& t, const T* x, T* loss, T* top, T* mass, int64_t n, int64_t inner, int64_t begin,
             int64_t end, double* sums) {
  BY_MODE(loss_columns, x, loss, top, mass, n, inner, begin, end, sums)
}
template <class T>
void rows_backward(const CrossTarget<T>& t, const T* x, const T* g, int64_t g_step, T scale, const T* top,
                   const T* mass, T* gx, int64_t rows, int64_t n, bool past_cache) {
  BY_MODE(grad_rows, x, g, g_step, scale, top, mass, gx, rows, n, past_cache)
}
template <class T>
void columns_backward(const CrossTarget<T>& t, const T* x, const T* g, int64_t g_step, T scale, const T* top,
                      const T* mass, T* gx, int64_t n, int64_t inner, int64_t begin, int64_t end) {
  BY_MODE(grad_columns, x, g, g_step, scale, top, mass, gx, n, inner, begin, end)
}

template <class T>
constexpr CrossKernels<T> kernels() {
  return {rows_mass<T>, columns_mass<T>, rows<T>, columns<T>, rows_backward<T>, columns_backward<T>};
}

}  // namespace

extern const CrossTable cross_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
