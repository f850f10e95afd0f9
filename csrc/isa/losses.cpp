#include "losses.h"

#include "isa/rows.h"
#include "isa/vec_math.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

template <class T> PYFRAME_INLINE Vec<T> magnitude(Vec<T> v) { return vmax<T>(v, -v); }

// The sign, 0 of zeros; NaN stays.
template <class T> PYFRAME_INLINE Vec<T> sign(Vec<T> v) {
  const Vec<T> one = splat(T{1});
  return v > T{0} ? one : v < T{0} ? -one : v;
}

// log(1 + u) for 0 <= u <= 1, with what rounding took from 1 + u put back: small u keep all their digits.
template <class T> PYFRAME_INLINE Vec<T> log_one_plus(Vec<T> u) {
  const Vec<T> w = u + T{1};
  return vlog(w) + (u - (w - T{1})) / w;
}

template <class T, Loss kind>
PYFRAME_INLINE Vec<T> value(Vec<T> x, Vec<T> t, T bound) {
  if constexpr (kind == Loss::entropy_of_logits) {
    const Vec<T> a = magnitude<T>(x);  // log(1 + e^-x) = log(1 + e^-|x|) + max(-x, 0)
    return (T{1} - t) * x + (log_one_plus<T>(vexp(-a)) + (a - x) * static_cast<T>(0.5));
  } else {
    const Vec<T> z = x - t, a = magnitude<T>(z);
    if constexpr (kind == Loss::squared) return z * z;
    if constexpr (kind == Loss::absolute) return a;
    if constexpr (kind == Loss::smooth) {
      return a < bound ? z * z * static_cast<T>(0.5) / bound : a - static_cast<T>(0.5) * bound;
    }
    if constexpr (kind == Loss::huber) {
      return a <= bound ? z * z * static_cast<T>(0.5) : (a - static_cast<T>(0.5) * bound) * bound;
    }
  }
}

template <class T, Loss kind>
PYFRAME_INLINE Vec<T> slope(Vec<T> x, Vec<T> t, T bound) {
  if constexpr (kind == Loss::entropy_of_logits) {
    const Vec<T> e = vexp(-magnitude<T>(x)), one = splat(T{1});  // sigmoid without overflow
    return (x >= T{0} ? one : e) / (one + e) - t;
  } else {
    const Vec<T> z = x - t;
    if constexpr (kind == Loss::squared) return z + z;
    if constexpr (kind == Loss::absolute) return sign<T>(z);
    if constexpr (kind == Loss::smooth) return magnitude<T>(z) < bound ? z / bound : sign<T>(z);
    if constexpr (kind == Loss::huber) return magnitude<T>(z) <= bound ? z : sign<T>(z) * bound;
  }
}

template <class T, Loss kind>
double sum(const T* x, const T* t, int64_t n, T bound) {
  return sum_row<T>(
      n,
      [=](int64_t i) __attribute__((always_inline)) { return value<T, kind>(load(x + i), load(t + i), bound); },
      [=](int64_t i, int64_t m) __attribute__((always_inline)) {
        Vec<T> v = value<T, kind>(load_part(x + i, m), load_part(t + i, m), bound);
        for (int64_t j = m; j < kLanes<T>; ++j) v[j] = 0;  // log 2 behind the end of logits
        return v;
      });
}

template <class T, Loss kind>
void grad(const T* x, const T* t, T* gx, int64_t n, T bound, T g, bool past_cache) {
  const Vec<T> factor = splat(g);
  write_row<T>(
      gx, n, past_cache,
      [=](int64_t i) __attribute__((always_inline)) { return slope<T, kind>(load(x + i), load(t + i), bound) * factor; },
      [=](int64_t i, int64_t m) __attribute__((always_inline)) {
        return slope<T, kind>(load_part(x + i, m), load_part(t + i, m), bound) * factor;
      });
  if (past_cache) stream_end();
}

template <class T>
constexpr LossKernels<T> kernels() {
  return {{sum<T, Loss::squared>, sum<T, Loss::absolute>, sum<T, Loss::smooth>, sum<T, Loss::huber>,
           sum<T, Loss::entropy_of_logits>},
          {grad<T, Loss::squared>, grad<T, Loss::absolute>, grad<T, Loss::smooth>, grad<T, Loss::huber>,
           grad<T, Loss::entropy_of_logits>}};
}

}  // namespace

extern const LossTable loss_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
