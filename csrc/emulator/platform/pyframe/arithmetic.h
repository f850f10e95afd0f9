// Functions of numbers, and half precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "warp.h"

#define PF_MIN_MAX(type)                                    \
  inline type min(type a, type b) { return b < a ? b : a; } \
  inline type max(type a, type b) { return a < b ? b : a; }
PF_MIN_MAX(int)
PF_MIN_MAX(unsigned)
PF_MIN_MAX(long)
PF_MIN_MAX(long long)
PF_MIN_MAX(unsigned long)
PF_MIN_MAX(unsigned long long)
#undef PF_MIN_MAX
using std::exp, std::exp2, std::expm1, std::log, std::log2, std::log1p, std::sqrt, std::pow, std::tanh, std::erf, std::fabs;
using std::floor, std::ceil, std::rint, std::trunc, std::isnan, std::isinf, std::fmax, std::fmin, std::fmod, std::abs;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmul_rn(float x, float y) { volatile float p = x * y; return p; }
inline float __fadd_rn(float x, float y) { volatile float s = x + y; return s; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((1ull * a * b) >> 32); }
inline unsigned __float_as_uint(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
inline int __float_as_int(float x) { int u; std::memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned x) { float f; std::memcpy(&f, &x, 4); return f; }
inline float __int_as_float(int x) { float f; std::memcpy(&f, &x, 4); return f; }
inline double __longlong_as_double(long long x) { double d; std::memcpy(&d, &x, 8); return d; }
inline long long __double_as_longlong(double x) { long long i; std::memcpy(&i, &x, 8); return i; }

namespace pf {

// IEEE half precision in 16 bits, rounded to nearest even.
inline float half_bits_to_float(unsigned short bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023u;
  if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * std::ldexp(static_cast<float>(fraction), -24);
  return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

inline unsigned short float_to_half_bits(float value) {
  const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<unsigned short>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<unsigned short>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal: a multiple of 2^-24
    const float scaled = std::nearbyint(std::ldexp(__uint_as_float(magnitude), 24));
    return static_cast<unsigned short>(sign | static_cast<unsigned>(scaled));
  }
  const unsigned rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return static_cast<unsigned short>(sign | ((rounded - 0x38000000u) >> 13));
}

// Two values rounded to nearest even, `low` in the lower 16 bits.
inline unsigned pack_halves(float low, float high) {
  return float_to_half_bits(low) | static_cast<unsigned>(float_to_half_bits(high)) << 16;
}
inline unsigned float_to_bfloat_bits(float value) {
  const unsigned bits = __float_as_uint(value);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline unsigned pack_bfloats(float low, float high) {
  return float_to_bfloat_bits(low) | float_to_bfloat_bits(high) << 16;
}

// 2^x; subnormal results are 0.
inline float fast_exp2(float x) {
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}

}  // namespace pf
