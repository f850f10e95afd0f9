// Pointwise kernels of functions of float64, and of float32 by way of it.
#include "isa/pointwise_links.h"
#include "isa/vec_special_double.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {

typedef float Half __attribute__((vector_size(kVectorBytes / 2)));  // as many float32 as there are lanes of float64
PYFRAME_INLINE F64 load_half(const float* from) {
  Half h;
  __builtin_memcpy(&h, from, sizeof h);
  return __builtin_convertvector(h, F64);
}
PYFRAME_INLINE void store_half(float* to, F64 v) {
  const Half h = __builtin_convertvector(v, Half);
  __builtin_memcpy(to, &h, sizeof h);
}

// F of kRow numbers; the only copy of its code, for all forms of the kernel.
constexpr int kRow = 4 * kLanes<float> < kGroup ? 4 * kLanes<float> : kGroup;
template <class F> __attribute__((noinline)) void row(const double* x, double* y) {
#pragma GCC unroll 1
  for (int i = 0; i < kRow; i += kLanes<double>) store<double>(y + i, F::run(load(x + i)));
}
template <class F> __attribute__((noinline)) void widened_row(const float* x, float* y) {
  double wide[kRow];
  for (int i = 0; i < kRow; i += kLanes<double>) store<double>(wide + i, load_half(x + i));
  row<F>(wide, wide);
  for (int i = 0; i < kRow; i += kLanes<double>) store_half(y + i, load(wide + i));
}
// Of as many numbers as there are lanes of float32.
template <class F> __attribute__((noinline)) void widened_pairs(const float* x, const float* z, float* y) {
#pragma GCC unroll 1
  for (int i = 0; i < kLanes<float>; i += kLanes<double>) {
    store_half(y + i, F::run(load_half(x + i), load_half(z + i)));
  }
}

// Calls body(x, y) for all rows.
template <class T, class Body> PYFRAME_INLINE void each_row(const PointwiseArgs& s, Body body) {
  const char* a = s.in[0];
  T* y = reinterpret_cast<T*>(s.out);
  for (std::int64_t g = 0; g < s.groups; ++g, a += s.step[0], y += kGroup) {
    for (int i = 0; i < kGroup; i += kRow) body(reinterpret_cast<const T*>(a) + i, y + i);
  }
}
template <class F> void each_group(const PointwiseArgs& s) { each_row<double>(s, row<F>); }
template <class F> void widened(const PointwiseArgs& s) { each_row<float>(s, widened_row<F>); }
template <class F> void affine_group(const PointwiseArgs& s) {
  const auto uniform = [&s](int k) { return load(reinterpret_cast<const double*>(s.in[k])); };
  const F64 scale = uniform(1), factor = uniform(2), offset = uniform(3);
  each_row<double>(s, [=](const double* x, double* y) {
    for (int i = 0; i < kRow; i += kLanes<double>) store<double>(y + i, load(x + i) * scale);
    row<F>(y, y);
    for (int i = 0; i < kRow; i += kLanes<double>) store<double>(y + i, load(y + i) * factor + offset);
  });
}
template <class F> void widened_pair(const PointwiseArgs& s) {
  const char *a = s.in[0], *b = s.in[1];
  float* y = reinterpret_cast<float*>(s.out);
  for (std::int64_t g = 0; g < s.groups; ++g, a += s.step[0], b += s.step[1], y += kGroup) {
    const float *const x = reinterpret_cast<const float*>(a), *const z = reinterpret_cast<const float*>(b);
    for (int i = 0; i < kGroup; i += kLanes<float>) widened_pairs<F>(x + i, z + i, y + i);
  }
}

template <class F> void widened_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  V4 v[4] = {v0, v1, v2, v3};
  float* const first = reinterpret_cast<float*>(v);
  for (int i = 0; i < 4 * kLanes<float>; i += kRow) widened_row<F>(first + i, first + i);
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, v4, v5, v6, v7, v[0], v[1], v[2], v[3]);
}
template <class F> void widened_pair_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  V4 v[kLinkVectors] = {v0, v1, v2, v3, v4, v5, v6, v7};
  const Places others = places<kVectorBytes>(link, 0, offset);
  for (int i = 0; i < kLinkVectors; ++i) {
    float* const first = reinterpret_cast<float*>(v + i);
    widened_pairs<F>(first, reinterpret_cast<const float*>(others[i]), first);
  }
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}

#define PYFRAME_FUNCTION(Name, call) \
  struct Name { static PYFRAME_INLINE F64 run(F64 x) { return call(x); } };
PYFRAME_FUNCTION(Exp, vexp)
PYFRAME_FUNCTION(Exp2, vexp2)
PYFRAME_FUNCTION(Expm1, vexpm1)
PYFRAME_FUNCTION(Log, vlog)
PYFRAME_FUNCTION(Log2, vlog2)
PYFRAME_FUNCTION(Log10, vlog10)
PYFRAME_FUNCTION(Log1p, vlog1p)
PYFRAME_FUNCTION(Sin, vsin)
PYFRAME_FUNCTION(Cos, vcos)
PYFRAME_FUNCTION(Tan, vtan)
PYFRAME_FUNCTION(SinSingle, sin_single)
PYFRAME_FUNCTION(CosSingle, cos_single)
PYFRAME_FUNCTION(TanSingle, tan_single)
PYFRAME_FUNCTION(Sinh, vsinh)
PYFRAME_FUNCTION(Cosh, vcosh)
PYFRAME_FUNCTION(Tanh, vtanh<double>)
PYFRAME_FUNCTION(Asin, vasin)
PYFRAME_FUNCTION(Acos, vacos)
PYFRAME_FUNCTION(Atan, vatan)
PYFRAME_FUNCTION(Asinh, vasinh)
PYFRAME_FUNCTION(Acosh, vacosh)
PYFRAME_FUNCTION(Atanh, vatanh)
PYFRAME_FUNCTION(Sigmoid, vsigmoid<double>)
PYFRAME_FUNCTION(Softplus, vsoftplus<double>)
PYFRAME_FUNCTION(Erf, verf)
PYFRAME_FUNCTION(Erfc, verfc)
#undef PYFRAME_FUNCTION
struct Atan2 { static PYFRAME_INLINE F64 run(F64 y, F64 x) { return vatan2(y, x); } };
struct LogAddExp { static PYFRAME_INLINE F64 run(F64 a, F64 b) { return vlogaddexp<double>(a, b); } };
struct PowSingle { static PYFRAME_INLINE F64 run(F64 a, F64 b) { return pow_single(a, b); } };
struct HypotSingle {  // squares of float32 neither overflow nor vanish in float64
  static PYFRAME_INLINE F64 run(F64 a, F64 b) {
    const F64 infinity = splat(__builtin_inf());
    return blend((vabs<double>(a) == infinity) | (vabs<double>(b) == infinity), infinity, vsqrt<double>(a * a + b * b));
  }
};
struct Hypot { static PYFRAME_INLINE double run(double a, double b) { return __builtin_hypot(a, b); } };
struct Pow { static PYFRAME_INLINE double run(double a, double b) { return __builtin_pow(a, b); } };

// M. Giles, "Approximating the erfinv function", GPU Computing Gems (2011), then three of Halley's steps.
struct ErfInv {
  template <class T> static T run(T given) {
    const double central[] = {2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
                              -0.00125372503, -0.00417768164, 0.246640727, 1.50140941};
    const double tail[] = {-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
                           -0.0076224613, 0.00943887047, 1.00167406, 2.83297682};
    const double x = __builtin_fabs(given), rest = 1 - x;
    if (!(x < 1)) {
      return static_cast<T>(x == 1 ? __builtin_copysign(__builtin_inf(), given) : __builtin_nan(""));
    }
    double w = -__builtin_log(rest * (2 - rest));
    const double* c = w < 5 ? central : tail;
    w = w < 5 ? w - 2.5 : __builtin_sqrt(w) - 3;
    double y = c[0];
    for (int i = 1; i < 9; ++i) y = y * w + c[i];
    y *= x;
    for (int i = 0; i < 3; ++i) {
      double error = y < 0.46875 ? __builtin_erf(y) - x : rest - __builtin_erfc(y);
      error /= 1.12837916709551257390 * __builtin_exp(-y * y);
      y -= error / (1 + y * error);
    }
    return static_cast<T>(__builtin_copysign(y, static_cast<double>(given)));
  }
};

// Powers with the same exponent for all elements are mostly a product or a root.
template <class T, PointwiseKernel general> void power(const PointwiseArgs& s) {
  if (s.step[1] == 0) {
    const T b = *reinterpret_cast<const T*>(s.in[1]);
    struct Square { static PYFRAME_INLINE Vec<T> run(Vec<T> a) { return a * a; } };
    struct Cube { static PYFRAME_INLINE Vec<T> run(Vec<T> a) { return a * a * a; } };
    struct Inverse { static PYFRAME_INLINE Vec<T> run(Vec<T> a) { return 1 / a; } };
    struct Root { static PYFRAME_INLINE Vec<T> run(Vec<T> a) { return vsqrt<T>(a); } };
    if (b == T(2)) return unary<T, Square>(s);
    if (b == T(3)) return unary<T, Cube>(s);
    if (b == T(-1)) return unary<T, Inverse>(s);
    if (b == T(0.5)) return unary<T, Root>(s);
  }
  general(s);
}

}  // namespace

void add_double(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const ValueType f32 = ValueType::f32, f64 = ValueType::f64;
#define PYFRAME_OWN(op, Name) define(k, Op::op, f64, each_group<Name>)
#define PYFRAME_SINGLE(op, Name) define(k, Op::op, f32, widened<Name>), set_link(k, Op::op, f32, 0, widened_link<Name>, 2)
#define PYFRAME_BOTH(op, Name) PYFRAME_OWN(op, Name), PYFRAME_SINGLE(op, Name)
  PYFRAME_OWN(exp, Exp);
  PYFRAME_OWN(expm1, Expm1);
  PYFRAME_OWN(log, Log);
  PYFRAME_OWN(log1p, Log1p);
  PYFRAME_OWN(tanh, Tanh);
  PYFRAME_OWN(sigmoid, Sigmoid);
  PYFRAME_OWN(softplus, Softplus);
  PYFRAME_OWN(erf, Erf);
  PYFRAME_BOTH(exp2, Exp2);
  PYFRAME_BOTH(log2, Log2);
  PYFRAME_BOTH(log10, Log10);
  PYFRAME_OWN(sin, Sin);
  PYFRAME_OWN(cos, Cos);
  PYFRAME_OWN(tan, Tan);
  PYFRAME_SINGLE(sin, SinSingle);
  PYFRAME_SINGLE(cos, CosSingle);
  PYFRAME_SINGLE(tan, TanSingle);
  PYFRAME_BOTH(sinh, Sinh);
  PYFRAME_BOTH(cosh, Cosh);
  PYFRAME_BOTH(asin, Asin);
  PYFRAME_BOTH(acos, Acos);
  PYFRAME_BOTH(atan, Atan);
  PYFRAME_BOTH(asinh, Asinh);
  PYFRAME_BOTH(acosh, Acosh);
  PYFRAME_BOTH(atanh, Atanh);
  PYFRAME_BOTH(erfc, Erfc);
#undef PYFRAME_OWN
#undef PYFRAME_SINGLE
#undef PYFRAME_BOTH
  define(k, Op::exp_affine, f64, affine_group<Exp>);
  define(k, Op::erf_affine, f64, affine_group<Erf>);
  define(k, Op::tanh_affine, f64, affine_group<Tanh>);
  define(k, Op::sigmoid_affine, f64, affine_group<Sigmoid>);
  define(k, Op::atan2, f64, binary<double, Atan2>);
  define(k, Op::atan2, f32, widened_pair<Atan2>);
  define(k, Op::logaddexp, f64, binary<double, LogAddExp>);
  define(k, Op::hypot, f64, each_pair<double, double, Hypot>);
  define(k, Op::hypot, f32, widened_pair<HypotSingle>);
  define(k, Op::pow, f64, power<double, each_pair<double, double, Pow>>);
  define(k, Op::pow, f32, power<float, widened_pair<PowSingle>>);
  set_link(k, Op::pow, f32, 0, widened_pair_link<PowSingle>);
  set_link(k, Op::atan2, f32, 0, widened_pair_link<Atan2>);
  set_link(k, Op::hypot, f32, 0, widened_pair_link<HypotSingle>);
  define(k, Op::erfinv, f64, each<double, double, ErfInv>);
  define(k, Op::erfinv, f32, each<float, float, ErfInv>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
