// More functions on vectors, beyond exp and log of vec_math.h: both float32 and float64 where the argument is a
// template's, else as said. The maximum errors in units in the last place are those of
// tests/native/test_accuracy.py.
#pragma once

#include "isa/vec_math.h"

namespace pyframe {
namespace PYFRAME_ISA {

template <class T> PYFRAME_INLINE Mask<T> sign_mask() {
  return splat<typename Bits<T>::type>(static_cast<typename Bits<T>::type>(1) << (8 * sizeof(T) - 1));
}
template <class T> PYFRAME_INLINE Vec<T> vabs(Vec<T> x) { return (Vec<T>)((Mask<T>)x & ~sign_mask<T>()); }
template <class T> PYFRAME_INLINE Vec<T> vcopysign(Vec<T> y, Vec<T> x) {
  return (Vec<T>)(((Mask<T>)y & ~sign_mask<T>()) | ((Mask<T>)x & sign_mask<T>()));
}

// e^x - 1: with x = n ln 2 + r, 2^n (e^r - 1) + (2^n - 1); halved in between, so that 2^n does not overflow too early.
PYFRAME_INLINE Vec<float> vexpm1(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);
  const Vec<float> c = vmax<float>(splat(-26.0f), vmin<float>(splat(89.0f), x));
  const Vec<float> n = (c * 1.44269504088896341f + magic) - magic;
  Vec<float> r = c - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r;
  const Vec<float> s = scale_by_power(splat(0.5f), n);
  return vcopysign<float>(2.0f * (s * p + (s - 0.5f)), x);
}
PYFRAME_INLINE Vec<double> vexpm1(Vec<double> x) {
  const Vec<double> magic = splat(6755399441055744.0);
  const Vec<double> c = vmax<double>(splat(-40.0), vmin<double>(splat(710.0), x));
  const Vec<double> n = (c * 1.4426950408889634074 + magic) - magic;
  const Vec<double> high = c - n * 6.93147180369123816490e-01, low = n * 1.90821492927058770002e-10;
  const Vec<double> r = high - low;
  const Vec<double> lost = (high - r) - low;
  Vec<double> p = splat(1.0 / 87178291200.0);
  p = p * r + 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = (p * (r * r) + lost) + r;
  const Vec<double> s = scale_by_power(splat(0.5), n);
  return vcopysign<double>(2.0 * (s * p + (s - 0.5)), x);
}

// ln(m 2^e) = e ln 2 + ln(1 + f), from f = m - 1 in [sqrt(1/2) - 1, sqrt(2) - 1] and n = e.
PYFRAME_INLINE Vec<float> log_reduced(Vec<float> f, Vec<float> n) {
  const Vec<float> z = f * f;
  Vec<float> p = splat(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  Vec<float> y = p * f * z;
  y = y - n * 2.12194440e-4f;
  y = y - 0.5f * z;
  return (f + y) + n * 0.693359375f;
}
PYFRAME_INLINE Vec<double> log_reduced(Vec<double> f, Vec<double> n) {
  const Vec<double> s = f / (f + 2.0), z = s * s, half = 0.5 * f * f;
  Vec<double> p = splat(1.479819860511658591e-01);
  p = p * z + 1.531383769920937332e-01;
  p = p * z + 1.818357216161805012e-01;
  p = p * z + 2.222219843214978396e-01;
  p = p * z + 2.857142874366239149e-01;
  p = p * z + 3.999999999940941908e-01;
  p = p * z + 6.666666666666735130e-01;
  p = p * z;
  return n * 6.93147180369123816490e-01 - ((half - (s * (half + p) + n * 1.90821492927058770002e-10)) - f);
}

// m and e of u > 0, with what is missing of the argument added to m: `rest` is lost from u by rounding.
PYFRAME_INLINE void split(Vec<float> u, Vec<float> rest, Vec<float>& f, Vec<float>& n) {
  const Vec<std::int32_t> high = (Vec<std::int32_t>)((Vec<std::uint32_t>)u - 0x3f3504f3u), e = high >> 23;
  const Vec<float> m = (Vec<float>)((high & 0x007fffff) + 0x3f3504f3);
  const Vec<std::int32_t> small = e > 126 ? splat<std::int32_t>(126) : e;
  const Vec<float> scale = (Vec<float>)((Vec<std::uint32_t>)(127 - small) << 23);
  n = __builtin_convertvector(e, Vec<float>);
  f = (m - 1.0f) + rest * scale;
}
PYFRAME_INLINE void split(Vec<double> u, Vec<double> rest, Vec<double>& f, Vec<double>& n) {
  const Vec<std::int64_t> base = splat<std::int64_t>(0x3fe6a09e667f3bcd);
  const Vec<std::int64_t> high = (Vec<std::int64_t>)((Vec<std::uint64_t>)u - (Vec<std::uint64_t>)base), e = high >> 52;
  const Vec<double> m = (Vec<double>)((high & 0x000fffffffffffff) + base), magic = splat(6755399441055744.0);
  const Vec<std::int64_t> small = e > 1022 ? splat<std::int64_t>(1022) : e;
  const Vec<double> scale = (Vec<double>)((Vec<std::uint64_t>)(1023 - small) << 52);
  n = (Vec<double>)(e + (Vec<std::int64_t>)magic) - magic;
  f = (m - 1.0) + rest * scale;
}

// ln(1 + x), through u = 1 + x and what u lost.
template <class T> PYFRAME_INLINE Vec<T> vlog1p_of(Vec<T> x) {
  const Vec<T> infinity = splat<T>(static_cast<T>(__builtin_inf()));
  const Vec<T> one = splat<T>(1), u = one + x;
  Vec<T> rest = x > 1 ? one - (u - x) : x - (u - one);
  rest = u < (sizeof(T) == 4 ? T(1e37) : T(1e300)) ? rest : splat<T>(0);
  Vec<T> f, n;
  split(u, rest, f, n);
  Vec<T> y = log_reduced(f, n);
  y = x < infinity ? y : x;
  y = x < -1 ? splat<T>(static_cast<T>(__builtin_nan(""))) : y;
  y = x == -1 ? -infinity : y;
  return x == 0 ? x : y;
}
PYFRAME_INLINE Vec<float> vlog1p(Vec<float> x) { return vlog1p_of<float>(x); }
PYFRAME_INLINE Vec<double> vlog1p(Vec<double> x) { return vlog1p_of<double>(x); }

// ln(1 + x) for 0 <= x <= 1: beyond sqrt(2) - 1 through (1 + x) / 2, which is exact enough.
template <class T> PYFRAME_INLINE Vec<T> log1p_unit(Vec<T> x) {
  const Mask<T> big = x > T(0.41421356237309505);
  return log_reduced(big ? (x - 1) * T(0.5) : x, big ? splat<T>(1) : splat<T>(0));
}

// tanh x = (e^2x - 1) / (e^2x + 1)
template <class T> PYFRAME_INLINE Vec<T> vtanh(Vec<T> x) {
  const Vec<T> a = vmin<T>(splat<T>(sizeof(T) == 4 ? T(20) : T(40)), 2 * vabs<T>(x));
  const Vec<T> e = vexpm1(a);
  return vcopysign<T>(e / (e + 2), x);
}

template <class T> PYFRAME_INLINE Vec<T> vsigmoid(Vec<T> x) {
  const Vec<T> e = vexp((Vec<T>)((Mask<T>)x | sign_mask<T>()));
  return (x < 0 ? e : splat<T>(1)) / (e + 1);
}

template <class T> PYFRAME_INLINE Vec<T> vsoftplus(Vec<T> x) {
  return (x <= 0 ? splat<T>(0) : x) + log1p_unit<T>(vexp(-vabs<T>(x)));
}

template <class T> PYFRAME_INLINE Vec<T> vlogaddexp(Vec<T> a, Vec<T> b) {
  const Vec<T> larger = a > b ? a : b;
  const Vec<T> y = larger + log1p_unit<T>(vexp(-vabs<T>(a - b)));
  return a == b ? a + T(0.693147180559945309417) : y;
}

// erf in float32: a polynomial for small x, else 1 - e^polynomial (after N. Juffa).
PYFRAME_INLINE Vec<float> verf(Vec<float> x) {
  const Vec<float> t = vmin<float>(splat(4.0f), vabs<float>(x)), s = t * t;
  Vec<float> r = t * -1.72853470e-5f + 3.83197126e-4f;
  const Vec<float> u = t * -3.88396438e-3f + 2.42546219e-2f;
  r = r * s + u;
  r = r * t - 1.06777877e-1f;
  r = r * t - 6.34846687e-1f;
  r = r * t - 1.28717512e-1f;
  const Vec<float> large = vcopysign<float>(1.0f - vexp(r * t - t), x);
  Vec<float> p = s * -5.96761703e-4f + 4.99119423e-3f;
  p = p * s - 2.67681349e-2f;
  p = p * s + 1.12819925e-1f;
  p = p * s - 3.76125336e-1f;
  p = p * s + 1.28379166e-1f;
  return t > 0.927734375f ? large : p * x + x;
}

// erf where something is added to the result, in half the time and to 5 units in the last place: x P(x²) / Q(x²) up to 3.92,
// from where it rounds to 1; a rational fit with relative error
// 2e-8. All coefficients are positive, so nothing cancels.
PYFRAME_INLINE Vec<float> verf_in_sum(Vec<float> x) {
  const Vec<float> a = vmin<float>(splat(3.92f), vabs<float>(x)), u = a * a;
  Vec<float> p = splat(2.05003310259001e-06f), q = splat(3.8090753216060354e-05f);
  p = p * u + 0.00028487515364548243f;
  q = q * u + 0.0011625006184923198f;
  p = p * u + 0.003765515098262917f;
  q = q * u + 0.014969022886683031f;
  p = p * u + 0.05274840745788222f;
  q = q * u + 0.11410833752211576f;
  p = p * u + 0.1904048103877738f;
  q = q * u + 0.502074612117057f;
  p = p * u + 1.1283791462077186f;
  q = q * u + 1.0f;
  return vcopysign<float>(vmin<float>(splat(1.0f), a * p / q), x);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
