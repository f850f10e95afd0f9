// Functions on vectors of float64; those of float32 that are not worth an own version go through these.
#pragma once

#include "isa/vec_special.h"

namespace pyframe {
namespace PYFRAME_ISA {

using F64 = Vec<double>;
using I64 = Vec<std::int64_t>;

PYFRAME_INLINE F64 blend(I64 mask, F64 a, F64 b) { return mask ? a : b; }

// c[0] x^(N-1) + ... + c[N-1]
template <int N> PYFRAME_INLINE F64 polynomial(F64 x, const double (&c)[N]) {
  F64 p = splat(c[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) p = p * x + c[i];
  return p;
}

PYFRAME_INLINE F64 vexp2(F64 x) {
  const F64 magic = splat(6755399441055744.0);
  F64 c = blend(x > 1100.0, splat(1100.0), x);
  c = blend(c < -1100.0, splat(-1100.0), c);
  const F64 n = (c + magic) - magic;
  return scale_by_power(vexp((c - n) * 0.693147180559945309417), n);
}

// The logarithm to another base: n + ln m * (1 / ln base); exact for powers of two to base 2.
PYFRAME_INLINE F64 log_base(F64 x, double high, double low, double scale) {
  const I64 subnormal = x < 2.2250738585072014e-308;
  F64 f, n;
  split(blend(subnormal, x * 4503599627370496.0, x), splat(0.0), f, n);
  n = blend(subnormal, n - 52.0, n);
  F64 y = n * high + (log_reduced(f, splat(0.0)) * scale + n * low);
  y = blend(x < __builtin_inf(), y, x);
  y = blend(x < 0.0, splat(__builtin_nan("")), y);
  return blend(x == 0.0, splat(-__builtin_inf()), y);
}
PYFRAME_INLINE F64 vlog2(F64 x) { return log_base(x, 1.0, 0.0, 1.44269504088896340736); }
PYFRAME_INLINE F64 vlog10(F64 x) {
  return log_base(x, 3.01029995663611771306e-01, 3.69423907715893078616e-13, 4.34294481903251816668e-01);
}

// Sine and cosine of r = x - n pi/2, n the nearest integer; pi/2 in three pieces, the first two with 33 bits, so that n
// times them is exact for |x| < kTrigonometricLimit. Beyond it the C library's functions are called.
constexpr double kTrigonometricLimit = 1e6;
struct Quarter {
  F64 sine, cosine;
  I64 n;
};
PYFRAME_INLINE Quarter quarter(F64 x) {
  const F64 magic = splat(6755399441055744.0), shifted = x * 0.636619772367581343076 + magic, n = shifted - magic;
  F64 r = x - n * 1.57079632673412561417e+00;
  r = r - n * 6.07710050630396597660e-11;
  r = r - n * 2.02226624879595063154e-21;
  const F64 z = r * r;
  const double s[] = {-1.0 / 121645100408832000.0, 1.0 / 355687428096000.0, -1.0 / 1307674368000.0, 1.0 / 6227020800.0,
                      -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0};
  const double c[] = {-1.0 / 6402373705728000.0, 1.0 / 20922789888000.0, -1.0 / 87178291200.0, 1.0 / 479001600.0,
                      -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0};
  const F64 half = 0.5 * z, near = 1.0 - half;
  const F64 cosine = near + (((1.0 - near) - half) + z * z * polynomial(z, c));
  return {r + r * z * polynomial(z, s), cosine, (I64)((Vec<std::uint64_t>)shifted - (Vec<std::uint64_t>)magic)};
}
PYFRAME_INLINE bool beyond_trigonometric(F64 x) { return any(~(I64)(vabs<double>(x) <= kTrigonometricLimit)); }
PYFRAME_INLINE F64 sine_of(const Quarter& q, std::int64_t turn) {
  const I64 n = (I64)((Vec<std::uint64_t>)q.n + static_cast<std::uint64_t>(turn));
  const F64 y = blend((n & 1) != 0, q.cosine, q.sine);
  return (F64)((Vec<std::uint64_t>)y ^ ((Vec<std::uint64_t>)(n & 2) << 62));
}
template <class Function> PYFRAME_INLINE F64 by_library(F64 x, F64 y, Function function) {
  for (int i = 0; i < kLanes<double>; ++i) {
    if (!(__builtin_fabs(x[i]) <= kTrigonometricLimit)) y[i] = function(x[i]);
  }
  return y;
}
PYFRAME_INLINE F64 vsin(F64 x) {
  const F64 y = blend(x == 0.0, x, sine_of(quarter(x), 0));
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_sin(a); });
  return y;
}
PYFRAME_INLINE F64 vcos(F64 x) {
  const F64 y = sine_of(quarter(x), 1);
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_cos(a); });
  return y;
}
PYFRAME_INLINE F64 vtan(F64 x) {
  const Quarter q = quarter(x);
  const I64 odd = (q.n & 1) != 0;
  const F64 y = blend(x == 0.0, x, blend(odd, -q.cosine, q.sine) / blend(odd, q.sine, q.cosine));
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_tan(a); });
  return y;
}

// asin t for 0 <= t <= 1/2 with u = t², and acos and asin beyond by the half angle; interpolation at Chebyshev points.
PYFRAME_INLINE F64 asin_small(F64 t, F64 u) {
  const double c[] = {0.028757851367421566,  -0.014851887071247204, 0.01740087944269402,  0.005457506718640358,
                      0.01032281435018578,   0.011479177415184906,  0.013971212973552933, 0.017352392720869973,
                      0.02237217294214989,   0.030381944138531247,  0.04464285714635543,  0.07499999999998433,
                      0.16666666666666669};
  return t + t * u * polynomial(u, c);
}
constexpr double kHalfPi = 1.57079632679489655800, kHalfPiLow = 6.12323399573676603587e-17;
PYFRAME_INLINE F64 vasin(F64 x) {
  const F64 a = vabs<double>(x);
  const I64 small = a <= 0.5;
  const F64 u = blend(small, a * a, 0.5 * (1.0 - a)), t = blend(small, a, vsqrt<double>(u));
  const F64 p = asin_small(t, u);
  return vcopysign<double>(blend(small, p, kHalfPi - (2.0 * p - kHalfPiLow)), x);
}
PYFRAME_INLINE F64 vacos(F64 x) {
  const F64 a = vabs<double>(x);
  const I64 small = a <= 0.5;
  const F64 u = blend(small, a * a, 0.5 * (1.0 - a)), t = blend(small, a, vsqrt<double>(u));
  const F64 p = asin_small(t, u);
  const F64 near_zero = kHalfPi - (vcopysign<double>(p, x) - kHalfPiLow);
  return blend(small, near_zero, blend(x > 0.0, 2.0 * p, 2.0 * (kHalfPi - (p - kHalfPiLow))));
}

// atan num/den for both >= 0: the ratio is brought below tan(pi/8).
PYFRAME_INLINE F64 atan_ratio(F64 num, F64 den) {
  const I64 big = num > 2.414213562373095 * den, mid = num > 0.41421356237309503 * den;
  const F64 top = blend(big, -den, blend(mid, num - den, num)), bottom = blend(big, num, blend(mid, num + den, den));
  const F64 base = blend(big, splat(kHalfPi), blend(mid, splat(kHalfPi / 2), splat(0.0)));
  const F64 low = blend(big, splat(kHalfPiLow), blend(mid, splat(kHalfPiLow / 2), splat(0.0)));
  const F64 t = top / bottom, u = t * t;
  const double c[] = {0.016284375050043393, -0.03456931506332609, 0.045515447340221615, -0.05230443640686948,
                      0.05878927554473807,  -0.0666642476020052,  0.07692296368042296,  -0.09090908753259112,
                      0.11111111105150588,  -0.14285714285659779, 0.19999999999999804,  -0.3333333333333333};
  return base + ((t * u * polynomial(u, c) + low) + t);
}
PYFRAME_INLINE F64 vatan(F64 x) { return vcopysign<double>(atan_ratio(vabs<double>(x), splat(1.0)), x); }
PYFRAME_INLINE F64 vatan2(F64 y, F64 x) {
  F64 a = vabs<double>(y), b = vabs<double>(x);
  const I64 both_infinite = (a == __builtin_inf()) & (b == __builtin_inf()), both_zero = (a == 0.0) & (b == 0.0);
  a = blend(both_infinite, splat(1.0), a);
  b = blend(both_infinite | both_zero, splat(1.0), b);
  // Scaled so that sums and products with the limits neither overflow nor become subnormal.
  const F64 larger = blend(a > b, a, b), scale = blend(larger > 1e300, splat(0x1p-100), blend(larger < 1e-250, splat(0x1p200), splat(1.0)));
  F64 r = atan_ratio(a * scale, b * scale);
  r = blend((I64)x < 0, 2 * kHalfPi - (r - 2 * kHalfPiLow), r);
  r = blend((x != x) | (y != y), x + y, r);
  return vcopysign<double>(r, y);
}

PYFRAME_INLINE F64 vsinh(F64 x) {
  const F64 a = vabs<double>(x), e = vexpm1(a), h = vexp(0.5 * a);
  return vcopysign<double>(blend(a < 700.0, 0.5 * (e + e / (e + 1.0)), (0.5 * h) * h), x);
}
PYFRAME_INLINE F64 vcosh(F64 x) {
  const F64 a = vabs<double>(x), e = vexp(a), h = vexp(0.5 * a);
  return blend(a < 700.0, 0.5 * e + 0.5 / e, (0.5 * h) * h);
}
PYFRAME_INLINE F64 vasinh(F64 x) {
  const F64 a = vabs<double>(x);
  const I64 big = a > 1e18;
  const F64 y = vlog1p(blend(big, a, a + a * a / (1.0 + vsqrt<double>(a * a + 1.0))));
  return vcopysign<double>(y + blend(big, splat(0.693147180559945309417), splat(0.0)), x);
}
PYFRAME_INLINE F64 vacosh(F64 x) {
  const F64 t = x - 1.0;
  const I64 big = x > 1e18;
  F64 y = vlog1p(blend(big, x, t + vsqrt<double>(2.0 * t + t * t)));
  y = y + blend(big, splat(0.693147180559945309417), splat(0.0));
  return blend(x < 1.0, splat(__builtin_nan("")), y);
}
PYFRAME_INLINE F64 vatanh(F64 x) {
  const F64 a = vabs<double>(x);
  return vcopysign<double>(0.5 * vlog1p(2.0 * a / (1.0 - a)), x);
}

// W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
PYFRAME_INLINE F64 erf_small(F64 x, F64 z) {
  const double a[] = {1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02, 3.77485237685302021e02,
                      3.20937758913846947e03};
  const double b[] = {1.0, 2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03,
                      2.84423683343917062e03};
  return x * polynomial(z, a) / polynomial(z, b);
}
// erfc y for y >= 0.46875
PYFRAME_INLINE F64 erfc_large(F64 y) {
  const double c[] = {2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
                      6.61191906371416295e01, 2.98635138197400131e02, 8.81952221241769090e02,
                      1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03};
  const double d[] = {1.0, 1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02,
                      1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03,
                      3.43936767414372164e03, 1.23033935480374942e03};
  const double p[] = {1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
                      1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4};
  const double q[] = {1.0, 2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1,
                      6.05183413124413191e-2, 2.33520497626869185e-3};
  y = blend(y > 30.0, splat(30.0), y);
  const F64 v = blend(y > 4.0, splat(4.0), y), w = blend(y > 4.0, y, splat(4.0)), z = 1.0 / (w * w);
  const F64 middle = polynomial(v, c) / polynomial(v, d);
  const F64 tail = (5.6418958354775628695e-1 - z * polynomial(z, p) / polynomial(z, q)) / w;
  // e^(-y y) in two factors, the first of an exact square.
  const F64 magic = splat(6755399441055744.0), rough = ((y * 16.0 + magic) - magic) * 0.0625;
  const F64 scale = vexp(-(rough * rough)) * vexp(-((y - rough) * (y + rough)));
  return scale * blend(y <= 4.0, middle, tail);
}
PYFRAME_INLINE F64 verf(F64 x) {
  const F64 a = vabs<double>(x);
  const I64 small = a <= 0.46875;
  const F64 y = blend(small, erf_small(x, blend(small, a * a, splat(0.0))), vcopysign<double>(1.0 - erfc_large(blend(small, splat(1.0), a)), x));
  return blend(x == x, y, x);
}
PYFRAME_INLINE F64 verfc(F64 x) {
  const F64 a = vabs<double>(x);
  const I64 small = a <= 0.46875;
  const F64 tail = erfc_large(blend(small, splat(1.0), a)), large = blend(x < 0.0, 2.0 - tail, tail);
  const F64 y = blend(small, 1.0 - erf_small(x, blend(small, a * a, splat(0.0))), large);
  return blend(x == x, y, x);
}

// -- for results that are rounded to float32: shorter polynomials, errors of 2^-32 and less before that rounding

// 2^t; the result is finite for t <= 1000.
PYFRAME_INLINE F64 exp2_single(F64 t) {
  const F64 magic = splat(6755399441055744.0);
  t = vmax<double>(splat(-200.0), vmin<double>(splat(200.0), t));  // NaN stays
  const F64 shifted = t + magic, r = t - (shifted - magic);
  const double c[] = {1.5297278260500421e-5, 0.00015461445814072762, 0.001333350252889267, 0.0096180566757360574,
                      0.055504108838019626,  0.24022650922301828,    0.69314718055995663,  1.0};
  const Vec<std::uint64_t> power = (Vec<std::uint64_t>)shifted << 52;  // n, at the place of the exponent
  return (F64)((Vec<std::uint64_t>)polynomial(r, c) + power);
}
// log2 a for a >= 0 that was float32, so never subnormal here: n + s (2 / ln 2 + s² P(s²)) with s = f / (2 + f).
PYFRAME_INLINE F64 log2_single(F64 a) {
  const I64 base = splat<std::int64_t>(0x3fe6a09e667f3bcd);
  const I64 high = (I64)((Vec<std::uint64_t>)a - (Vec<std::uint64_t>)base);
  const F64 f = (F64)((high & 0x000fffffffffffff) + base) - 1.0, magic = splat(6755399441055744.0);
  const F64 n = (F64)((high >> 52) + (I64)magic) - magic;
  const F64 s = f / (f + 2.0), z = s * s;
  const double c[] = {0.2793440449198907, 0.32015423928261361, 0.41220328578460666, 0.57707799900483435,
                      0.96179669393619599, 2.8853900817779268};
  F64 y = s * polynomial(z, c) + n;
  y = blend(a < __builtin_inf(), y, a);  // infinity and NaN
  return blend(a == 0.0, splat(-__builtin_inf()), y);
}

// x^y for numbers that were float32, with the cases of the C library's pow.
PYFRAME_INLINE F64 pow_single(F64 x, F64 y) {
  const F64 a = vabs<double>(x);
  F64 r = exp2_single(y * log2_single(a));
  if (__builtin_expect(any((I64)x < 0), 0)) {
    // Whether y is an integer, and an odd one; from 2^24 on every float32 is an even integer.
    const F64 magic = splat(6755399441055744.0);
    F64 size = vabs<double>(y);
    size = blend(size > 16777216.0, splat(16777216.0), size);
    const I64 whole = (size + magic) - magic == size, even = (0.5 * size + magic) - magic == 0.5 * size;
    const I64 negative = (I64)x < 0;
    r = blend(negative & whole & ~even, -r, r);
    r = blend((x < 0.0) & ~whole & (a < __builtin_inf()), splat(__builtin_nan("")), r);
    r = blend((a == 1.0) & (vabs<double>(y) == __builtin_inf()), splat(1.0), r);
  }
  return blend((y == 0.0) | (x == 1.0), splat(1.0), r);
}

// Sine and cosine of x - n pi/2, as `quarter`.
PYFRAME_INLINE Quarter quarter_single(F64 x) {
  const F64 magic = splat(6755399441055744.0), shifted = x * 0.636619772367581343076 + magic, n = shifted - magic;
  const F64 r = (x - n * 1.57079632673412561417e+00) - n * 6.07710050650619224932e-11, z = r * r;
  const double s[] = {2.7249620080074833e-6, -0.00019840084376422698, 0.0083333318703413485, -0.16666666663844049};
  const double c[] = {2.4463452663504744e-5, -0.0013887586565783839, 0.041666650596550342, -0.49999999968995892};
  return {r + r * z * polynomial(z, s), 1.0 + z * polynomial(z, c),
          (I64)((Vec<std::uint64_t>)shifted - (Vec<std::uint64_t>)magic)};
}
PYFRAME_INLINE F64 sin_single(F64 x) {
  const F64 y = blend(x == 0.0, x, sine_of(quarter_single(x), 0));
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_sin(a); });
  return y;
}
PYFRAME_INLINE F64 cos_single(F64 x) {
  const F64 y = sine_of(quarter_single(x), 1);
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_cos(a); });
  return y;
}
PYFRAME_INLINE F64 tan_single(F64 x) {
  const Quarter q = quarter_single(x);
  const I64 odd = (q.n & 1) != 0;
  const F64 y = blend(x == 0.0, x, blend(odd, -q.cosine, q.sine) / blend(odd, q.sine, q.cosine));
  if (__builtin_expect(beyond_trigonometric(x), 0)) return by_library(x, y, [](double a) { return __builtin_tan(a); });
  return y;
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
