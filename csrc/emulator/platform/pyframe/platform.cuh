// What kernels use of CUDA, for the emulator: the twin of kernels/platform/pyframe/platform.cuh.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)

#define threadIdx (::pf_emulator::current->index)
#define blockIdx (::pf_emulator::block_index)
#define blockDim (::pf_emulator::block_shape)
#define gridDim (::pf_emulator::grid_shape)
constexpr int warpSize = 32;

#define PF_TEXT_(x) #x
#define PF_TEXT(x) PF_TEXT_(x)
#define PF_SITE(what) what " at " __FILE__ ":" PF_TEXT(__LINE__)

// ---------------------------------------------------------------- barriers, warps

#define __syncthreads() ::pf_emulator::sync_threads(PF_SITE("__syncthreads"))
#define __syncwarp(...) ::pf_emulator::sync_warp(PF_SITE("__syncwarp"), ##__VA_ARGS__)
#define __shfl_sync(...) ::pf_emulator::shuffle(PF_SITE("__shfl_sync"), __VA_ARGS__)
#define __shfl_up_sync(...) ::pf_emulator::shuffle_up(PF_SITE("__shfl_up_sync"), __VA_ARGS__)
#define __shfl_down_sync(...) ::pf_emulator::shuffle_down(PF_SITE("__shfl_down_sync"), __VA_ARGS__)
#define __shfl_xor_sync(...) ::pf_emulator::shuffle_xor(PF_SITE("__shfl_xor_sync"), __VA_ARGS__)
#define __ballot_sync(...) ::pf_emulator::ballot(PF_SITE("__ballot_sync"), __VA_ARGS__)
#define __any_sync(...) (::pf_emulator::ballot(PF_SITE("__any_sync"), __VA_ARGS__) != 0)
#define __all_sync(mask, predicate) \
  (::pf_emulator::ballot(PF_SITE("__all_sync"), mask, !(predicate)) == 0)

namespace pf_emulator {

inline unsigned lane() { return current->number % kWarp; }

inline void sync_warp(const char* site, unsigned mask = 0xffffffffu) {
  // The last warp of a block may be short; CUDA's default mask means the lanes there are.
  if (mask == 0xffffffffu) {
    const unsigned first = current->number - lane(), count = static_cast<unsigned>(block_shape.count()) - first;
    if (count < kWarp) mask = (1u << count) - 1;
  }
  exchange(mask, nullptr, 0, site);
}

template <class T>
T take(const Slot* slots, unsigned source, unsigned mask, const char* site) {
  if (!(mask >> source & 1)) fail("%s reads lane %u, which its mask 0x%x does not name", site, source, mask);
  T value;
  std::memcpy(&value, slots[source].bytes, sizeof(T));
  return value;
}

template <class T>
const Slot* hand_over(const char* site, unsigned mask, const T& value, int width) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
  if (width < 1 || width > kWarp || (width & (width - 1))) fail("%s: width %d is no power of two up to 32", site, width);
  return exchange(mask, &value, sizeof(T), site);
}

template <class T>
T shuffle(const char* site, unsigned mask, T value, int source, int width = kWarp) {
  const Slot* const slots = hand_over(site, mask, value, width);
  const unsigned segment = lane() & ~(width - 1u);
  return take<T>(slots, segment | (static_cast<unsigned>(source) & (width - 1u)), mask, site);
}

template <class T>
T shuffle_up(const char* site, unsigned mask, T value, unsigned delta, int width = kWarp) {
  const Slot* const slots = hand_over(site, mask, value, width);
  return (lane() & (width - 1u)) < delta ? value : take<T>(slots, lane() - delta, mask, site);
}

template <class T>
T shuffle_down(const char* site, unsigned mask, T value, unsigned delta, int width = kWarp) {
  const Slot* const slots = hand_over(site, mask, value, width);
  return (lane() & (width - 1u)) + delta >= static_cast<unsigned>(width) ? value
                                                                        : take<T>(slots, lane() + delta, mask, site);
}

template <class T>
T shuffle_xor(const char* site, unsigned mask, T value, int bits, int width = kWarp) {
  const Slot* const slots = hand_over(site, mask, value, width);
  const unsigned source = lane() ^ static_cast<unsigned>(bits);
  return (source & ~(width - 1u)) > (lane() & ~(width - 1u)) ? value : take<T>(slots, source, mask, site);
}

inline unsigned ballot(const char* site, unsigned mask, bool predicate) {
  const Slot* const slots = exchange(mask, &predicate, sizeof predicate, site);
  unsigned found = 0;
  for (unsigned other = 0; other < kWarp; ++other) {
    if (mask >> other & 1 && slots[other].bytes[0]) found |= 1u << other;
  }
  return found;
}

}  // namespace pf_emulator

// ---------------------------------------------------------------- memory

namespace pf {

// A block's shared memory of type T: the one way in which kernels get it.
template <class T>
T& shared() {
  static const char tag = 0;
  return *static_cast<T*>(::pf_emulator::shared_memory(&tag, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

// The dynamic shared memory of the launch.
template <class T>
T* dynamic_shared() { return static_cast<T*>(::pf_emulator::dynamic_shared_memory()); }

}  // namespace pf

// Threads only change at barriers and warp functions, so plain code is atomic.
template <class T, class U>
T atomicAdd(T* address, U value) { T old = *address; *address = static_cast<T>(old + value); return old; }
template <class T, class U>
T atomicMax(T* address, U value) { T old = *address; if (old < static_cast<T>(value)) *address = value; return old; }
template <class T, class U>
T atomicMin(T* address, U value) { T old = *address; if (static_cast<T>(value) < old) *address = value; return old; }
template <class T, class U>
T atomicExch(T* address, U value) { T old = *address; *address = value; return old; }
template <class T, class U>
T atomicOr(T* address, U value) { T old = *address; *address = old | value; return old; }
template <class T, class U>
T atomicCAS(T* address, U compare, U value) { T old = *address; if (old == compare) *address = value; return old; }
inline void __threadfence() {}
inline void __threadfence_block() {}
template <class T>
T __ldg(const T* address) { return *address; }

// ---------------------------------------------------------------- vector types

#define PF_VECTOR(name, type)                                                  \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                     \
  struct name##3 { type x, y, z; };                                            \
  struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }             \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
PF_VECTOR(char, signed char)
PF_VECTOR(uchar, unsigned char)
PF_VECTOR(short, short)
PF_VECTOR(ushort, unsigned short)
PF_VECTOR(int, int)
PF_VECTOR(uint, unsigned)
PF_VECTOR(longlong, long long)
PF_VECTOR(ulonglong, unsigned long long)
PF_VECTOR(float, float)
PF_VECTOR(double, double)
#undef PF_VECTOR
using dim3 = ::pf_emulator::Index3;

// ---------------------------------------------------------------- arithmetic

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

}  // namespace pf
