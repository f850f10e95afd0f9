// Elementary functions on vectors. Errors against the exact result, in units in the last place: exp 1, log 1 (float32
// and float64), including subnormal arguments and results, infinities and NaN.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {

// v * 2^n for integral n (AVX-512 rounds n down); exact except where the result overflows or is subnormal.
PYFRAME_INLINE Vec<float> scale_by_power(Vec<float> v, Vec<float> n) {
#if defined(__AVX512F__)
  // The masked form: the plain one makes GCC 12 warn about its own header.
  return (Vec<float>)_mm512_mask_scalef_ps((__m512)v, 0xffff, (__m512)v, (__m512)n);
#else
  const Vec<std::int32_t> k = __builtin_convertvector(n, Vec<std::int32_t>), half = k >> 1, rest = k - half;
  return v * (Vec<float>)((half + 127) << 23) * (Vec<float>)((rest + 127) << 23);
#endif
}
PYFRAME_INLINE Vec<double> scale_by_power(Vec<double> v, Vec<double> n) {
#if defined(__AVX512F__)
  return (Vec<double>)_mm512_mask_scalef_pd((__m512d)v, 0xff, (__m512d)v, (__m512d)n);
#else
  // n lies in the low bits of n + 2^52 + 2^51, which spares a conversion that AVX2 does not have.
  const Vec<double> magic = splat(6755399441055744.0);
  const Vec<std::int64_t> k = (Vec<std::int64_t>)(n + magic) - (Vec<std::int64_t>)magic;
  const Vec<std::int64_t> half = k >> 1, rest = k - half;
  return v * (Vec<double>)((half + 1023) << 52) * (Vec<double>)((rest + 1023) << 52);
#endif
}

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for e^r, times 2^n.
PYFRAME_INLINE Vec<float> vexp(Vec<float> x) {
  // Outside, the result is 0 or infinity; NaN passes both comparisons.
  x = vmin<float>(splat(104.0f), x);
  x = vmax<float>(splat(-104.0f), x);
#if defined(__AVX512F__)
  // Here n is a multiple of 1/16, 2^(n mod 1) comes from a table in a register, and half of the polynomial's terms are
  // enough: 2.7 ns a vector instead of 3.2. `lost` is what rounding took from the table, relative to it.
  const Vec<float> table = {0x1p0f,        0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f,
                            0x1.306fe0p0f, 0x1.3dea64p0f, 0x1.4bfdaep0f, 0x1.5ab07ep0f,
                            0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
                            0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f};
  const Vec<float> lost = {0.0f,         4.6285e-8f, -1.1992e-8f, 4.7298e-8f, 3.1934e-8f,  3.6211e-8f,
                           -3.0991e-8f,  -7.4752e-9f, 1.7114e-8f, -3.0477e-8f, 5.2333e-9f, 6.1076e-9f,
                           -1.4720e-8f, -5.2588e-9f, -6.1283e-9f, 5.1406e-9f};
  const Vec<float> magic = splat(786432.0f);  // 1.5 * 2^19: adding it rounds to sixteenths, the last four bits
  const Vec<float> k = x * 1.44269504088896341f + magic, n = k - magic;
  Vec<float> r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  const Vec<float> power = (Vec<float>)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)k, (__m512)table);
  const Vec<float> rest = (Vec<float>)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)k, (__m512)lost);
  const Vec<float> p = (r * 1.6666667163e-1f + 0.5f) * (r * r) + (r + rest);
  return scale_by_power(power * p + power, n);  // which rounds n down
#else
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec<float> n = (x * 1.44269504088896341f + magic) - magic;
  Vec<float> r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  return scale_by_power(p, n);
#endif
}
PYFRAME_INLINE Vec<double> vexp(Vec<double> x) {
  const Vec<double> magic = splat(6755399441055744.0);
  x = vmin<double>(splat(746.0), x);
  x = vmax<double>(splat(-746.0), x);
  const Vec<double> n = (x * 1.4426950408889634074 + magic) - magic;
  Vec<double> r = x - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  // The Taylor series; the first term left out is below 5e-18.
  Vec<double> p = splat(1.0 / 6227020800.0);
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
  p = p * (r * r) + r + 1.0;
  return scale_by_power(p, n);
}

// ln x: x = m 2^e with sqrt(1/2) <= m < sqrt(2), a polynomial for ln m, plus e ln 2.
PYFRAME_INLINE Vec<float> vlog(Vec<float> x) {
  const Vec<float> tiny = splat(1.17549435e-38f);
  const Mask<float> subnormal = x < tiny;
  const Vec<float> scaled = subnormal ? x * 8388608.0f : x;
  Vec<std::int32_t> bits = (Vec<std::int32_t>)scaled;
  // Subtracting sqrt(1/2) makes the exponent that of the reduced argument.
  const Vec<std::int32_t> high = (Vec<std::int32_t>)((Vec<std::uint32_t>)bits - 0x3f3504f3u);
  const Vec<std::int32_t> e = (high >> 23) - (subnormal & splat<std::int32_t>(23));
  bits = (high & 0x007fffff) + 0x3f3504f3;
  const Vec<float> f = (Vec<float>)bits - 1.0f, z = f * f, n = __builtin_convertvector(e, Vec<float>);
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
  y = (f + y) + n * 0.693359375f;
  const Vec<float> infinity = splat(__builtin_inff());
  y = x < infinity ? y : x;  // infinity and NaN
  y = x < 0.0f ? splat(__builtin_nanf("")) : y;
  return x == 0.0f ? -infinity : y;
}
PYFRAME_INLINE Vec<double> vlog(Vec<double> x) {
  const Mask<double> subnormal = x < splat(2.2250738585072014e-308);
  const Vec<double> scaled = subnormal ? x * 4503599627370496.0 : x;
  const Vec<std::int64_t> base = splat<std::int64_t>(0x3fe6a09e667f3bcd);
  const Vec<std::int64_t> high = (Vec<std::int64_t>)((Vec<std::uint64_t>)scaled - (Vec<std::uint64_t>)base);
  const Vec<std::int64_t> e = (high >> 52) - (subnormal & splat<std::int64_t>(52));
  const Vec<double> f = (Vec<double>)((high & 0x000fffffffffffff) + base) - 1.0;
  // e as a double: its bits added to 2^52 + 2^51 give that number plus e.
  const Vec<double> magic = splat(6755399441055744.0);
  const Vec<double> n = (Vec<double>)(e + (Vec<std::int64_t>)magic) - magic;
  // ln(1 + f) = f - f²/2 + s (f²/2 + R(s²)) with s = f / (2 + f).
  const Vec<double> s = f / (f + 2.0), z = s * s, half = 0.5 * f * f;
  Vec<double> p = splat(1.479819860511658591e-01);
  p = p * z + 1.531383769920937332e-01;
  p = p * z + 1.818357216161805012e-01;
  p = p * z + 2.222219843214978396e-01;
  p = p * z + 2.857142874366239149e-01;
  p = p * z + 3.999999999940941908e-01;
  p = p * z + 6.666666666666735130e-01;
  p = p * z;
  Vec<double> y = n * 6.93147180369123816490e-01 - ((half - (s * (half + p) + n * 1.90821492927058770002e-10)) - f);
  const Vec<double> infinity = splat(__builtin_inf());
  y = x < infinity ? y : x;
  y = x < 0.0 ? splat(__builtin_nan("")) : y;
  return x == 0.0 ? -infinity : y;
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
