#include "optim.h"

#include "isa/pieces.h"
#include "isa/rows.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// ±g + decay · p
template <class T>
PYFRAME_INLINE Vec<T> effective(Vec<T> g, Vec<T> p, T decay, int flags) {
  if (flags & kMaximize) g = -g;
  return (flags & kDecay) && !(flags & kDecoupled) ? g + p * decay : g;
}

template <class T>
PYFRAME_INLINE Vec<T> lerp(Vec<T> a, Vec<T> b, T weight, int flags) {
  const Vec<T> step = (b - a) * weight;
  return flags & kLerpFromEnd ? b - step : a + step;
}

template <class T>
void sgd(T* p, const T* g, T* const* states, int64_t n, const double* numbers, int flags) {
  const T momentum = static_cast<T>(numbers[0]), keep = static_cast<T>(numbers[1]), decay = static_cast<T>(numbers[2]),
          step = static_cast<T>(numbers[3]);
  T* const b = states[0];
  over_row<T>(n, [=](int64_t i, auto run) __attribute__((always_inline)) {
    const Vec<T> value = run.get(p + i);
    Vec<T> d = effective<T>(run.get(g + i), value, decay, flags);
    if (b) {
      Vec<T> v = run.get(b + i) * momentum;
      v = v + (flags & kDampening ? d * keep : d);
      run.put(b + i, v);
      d = flags & kNesterov ? d + v * momentum : v;
    }
    run.put(p + i, value + d * step);
  });
}

template <class T>
void adam(T* p, const T* g, T* const* states, int64_t n, const double* numbers, int flags) {
  const T weight1 = static_cast<T>(numbers[0]), beta2 = static_cast<T>(numbers[1]), rest2 = static_cast<T>(numbers[2]),
          eps = static_cast<T>(numbers[3]), step = static_cast<T>(numbers[4]), decay = static_cast<T>(numbers[5]);
  T *const m = states[0], *const v = states[1], *const most = states[2];
  over_row<T>(n, [=](int64_t i, auto run) __attribute__((always_inline)) {
    Vec<T> value = run.get(p + i);
    const Vec<T> d = effective<T>(run.get(g + i), value, decay, flags);
    if ((flags & kDecay) && (flags & kDecoupled)) value = value * decay;
    const Vec<T> first = lerp<T>(run.get(m + i), d, weight1, flags);
    Vec<T> second = run.get(v + i) * beta2 + d * rest2 * d;
    run.put(m + i, first);
    run.put(v + i, second);
    if (flags & kAmsgrad) {
      second = vmax<T>(run.get(most + i), second);
      run.put(most + i, second);
    }
    run.put(p + i, value + first * step / (vsqrt<T>(second) + eps));
  });
}

template <class T>
void rmsprop(T* p, const T* g, T* const* states, int64_t n, const double* numbers, int flags) {
  const T alpha = static_cast<T>(numbers[0]), rest = static_cast<T>(numbers[1]), weight = static_cast<T>(numbers[2]),
          eps = static_cast<T>(numbers[3]), momentum = static_cast<T>(numbers[4]), step = static_cast<T>(numbers[5]),
          decay = static_cast<T>(numbers[6]);
  T *const v = states[0], *const b = states[1], *const mean = states[2];
  over_row<T>(n, [=](int64_t i, auto run) __attribute__((always_inline)) {
    const Vec<T> value = run.get(p + i);
    const Vec<T> d = effective<T>(run.get(g + i), value, decay, flags);
    Vec<T> square = run.get(v + i) * alpha + d * rest * d;
    run.put(v + i, square);
    if (flags & kCentered) {
      const Vec<T> a = lerp<T>(run.get(mean + i), d, weight, flags);
      run.put(mean + i, a);
      square = square - a * a;
    }
    const Vec<T> root = vsqrt<T>(square) + eps;
    if (flags & kMomentum) {
      const Vec<T> s = run.get(b + i) * momentum + d / root;
      run.put(b + i, s);
      run.put(p + i, value + s * step);
    } else {
      run.put(p + i, value + d * step / root);
    }
  });
}

template <class T>
double square_sum(const T* x, int64_t n) {
  return sum_row<T>(
      n,
      [=](int64_t i) __attribute__((always_inline)) {
        const Vec<T> v = load(x + i);
        return v * v;
      },
      [=](int64_t i, int64_t m) __attribute__((always_inline)) {
        const Vec<T> v = load_part(x + i, m);
        return v * v;
      });
}

template <class T>
void scale(T* x, int64_t n, T factor) {
  over_row<T>(n, [=](int64_t i, auto run) __attribute__((always_inline)) { run.put(x + i, run.get(x + i) * factor); });
}

template <class T>
constexpr OptimKernels<T> kernels() {
  return {sgd<T>, adam<T>, rmsprop<T>, square_sum<T>, scale<T>};
}

}  // namespace

extern const OptimTable optim_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
