// Generic SIMD vectors: one register of the instruction set level a file is compiled for, on GCC/Clang vector types.
//
// Only for sources in csrc/isa/. Everything lies in the level's own namespace and is inlined, so that code of one level
// can never be merged with that of another by the linker. For the same reason such sources use no inline functions of
// the standard library (std::min is one).
//
// Arithmetic, comparisons (lanes of all ones or zeros) and `mask ? a : b` are operators of the vector types themselves;
// a * b + c becomes one fused instruction where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifndef PYFRAME_ISA
#define PYFRAME_ISA baseline
#endif

#define PYFRAME_INLINE inline __attribute__((always_inline))

namespace pyframe {
namespace PYFRAME_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// The integer type of a scalar's size: what comparisons give, and what bits are looked at in.
template <class T> struct Bits;
template <> struct Bits<float> { using type = std::int32_t; };
template <> struct Bits<double> { using type = std::int64_t; };
template <> struct Bits<std::int32_t> { using type = std::int32_t; };
template <> struct Bits<std::int64_t> { using type = std::int64_t; };
template <> struct Bits<std::uint32_t> { using type = std::int32_t; };
template <> struct Bits<std::uint64_t> { using type = std::int64_t; };

template <class T> struct VecType { typedef T type __attribute__((vector_size(kVectorBytes))); };
template <class T> using Vec = typename VecType<T>::type;
template <class T> using Mask = Vec<typename Bits<T>::type>;
template <class T> constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class T> PYFRAME_INLINE Vec<T> splat(T value) { return value - Vec<T>{}; }  // folds to one broadcast

// Vectors at any address.
template <class T> PYFRAME_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class T> PYFRAME_INLINE void store(T* to, Vec<T> v) { __builtin_memcpy(to, &v, sizeof v); }

// The first `count` (fewer than kLanes) elements; the others are `fill`.
template <class T> PYFRAME_INLINE Vec<T> load_part(const T* from, std::int64_t count, T fill = T{}) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const __mmask16 m = static_cast<__mmask16>((1u << count) - 1);
    return (Vec<T>)_mm512_mask_loadu_epi32((__m512i)splat<T>(fill), m, from);
  } else if constexpr (sizeof(T) == 8) {
    const __mmask8 m = static_cast<__mmask8>((1u << count) - 1);
    return (Vec<T>)_mm512_mask_loadu_epi64((__m512i)splat<T>(fill), m, from);
  }
#endif
  Vec<T> v = splat<T>(fill);
  for (std::int64_t i = 0; i < count; ++i) v[i] = from[i];
  return v;
}
template <class T> PYFRAME_INLINE void store_part(T* to, Vec<T> v, std::int64_t count) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_storeu_epi32(to, static_cast<__mmask16>((1u << count) - 1), (__m512i)v);
  } else if constexpr (sizeof(T) == 8) {
    return _mm512_mask_storeu_epi64(to, static_cast<__mmask8>((1u << count) - 1), (__m512i)v);
  }
#endif
  for (std::int64_t i = 0; i < count; ++i) to[i] = v[i];
}

// Stores past the caches: for outputs too large to stay in them, it saves reading every line before it is written.
// The address must be a multiple of kVectorBytes. End a run of them with stream_end().
template <class T> PYFRAME_INLINE void stream(T* to, Vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)v);
#elif defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)v);
#else
  store<T>(to, v);
#endif
}
PYFRAME_INLINE void stream_end() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// The bits of a vector as another type of the same size.
template <class To, class From> PYFRAME_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast needs equal sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// As the hardware's maximum and minimum: the second where either is NaN.
template <class T> PYFRAME_INLINE Vec<T> vmax(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && static_cast<T>(0.5) != 0) return (Vec<T>)_mm512_maskz_max_ps(0xffff, (__m512)a, (__m512)b);
  else if constexpr (static_cast<T>(0.5) != 0) return (Vec<T>)_mm512_maskz_max_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4 && static_cast<T>(0.5) != 0) return (Vec<T>)_mm256_max_ps((__m256)a, (__m256)b);
  else if constexpr (static_cast<T>(0.5) != 0) return (Vec<T>)_mm256_max_pd((__m256d)a, (__m256d)b);
#endif
  return a > b ? a : b;
}
template <class T> PYFRAME_INLINE Vec<T> vmin(Vec<T> a, Vec<T> b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4 && static_cast<T>(0.5) != 0) return (Vec<T>)_mm512_maskz_min_ps(0xffff, (__m512)a, (__m512)b);
  else if constexpr (static_cast<T>(0.5) != 0) return (Vec<T>)_mm512_maskz_min_pd(0xff, (__m512d)a, (__m512d)b);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4 && static_cast<T>(0.5) != 0) return (Vec<T>)_mm256_min_ps((__m256)a, (__m256)b);
  else if constexpr (static_cast<T>(0.5) != 0) return (Vec<T>)_mm256_min_pd((__m256d)a, (__m256d)b);
#endif
  return a < b ? a : b;
}

template <class T> PYFRAME_INLINE Vec<T> vsqrt(Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_sqrt_ps((__m512)v, 0xffff, (__m512)v);
  else return (Vec<T>)_mm512_mask_sqrt_pd((__m512d)v, 0xff, (__m512d)v);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_sqrt_ps((__m256)v);
  else return (Vec<T>)_mm256_sqrt_pd((__m256d)v);
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm_sqrt_ps((__m128)v);
  else return (Vec<T>)_mm_sqrt_pd((__m128d)v);
#else
  for (int i = 0; i < kLanes<T>; ++i) v[i] = sizeof(T) == 4 ? __builtin_sqrtf(v[i]) : __builtin_sqrt(v[i]);
  return v;
#endif
}

// 1 / sqrt(v). With AVX-512 for float32 an estimate of 14 bits and one step of Newton's, a fifth of the time of a root
// and a division.
template <class T> PYFRAME_INLINE Vec<T> vrsqrt(Vec<T> v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    const Vec<T> y = (Vec<T>)_mm512_maskz_rsqrt14_ps(0xffff, (__m512)v), left = 1 - v * y * y;
    return left != left ? y : y + y * T(0.5) * left;  // 0, infinity and NaN are right already
  }
#endif
  return 1 / vsqrt<T>(v);
}

// Folds of all lanes, by halves: always the same order.
template <class T, int Lanes, class Fold> PYFRAME_INLINE T fold_halves(const T* lanes, Fold fold) {
  if constexpr (Lanes == 1) {
    return lanes[0];
  } else if constexpr (Lanes == 2) {
    return fold(lanes[0], lanes[1]);
  } else {
    typedef T Half __attribute__((vector_size(Lanes / 2 * sizeof(T))));
    Half low, high;
    __builtin_memcpy(&low, lanes, sizeof low);
    __builtin_memcpy(&high, lanes + Lanes / 2, sizeof high);
    low = fold(low, high);
    T rest[Lanes / 2];
    __builtin_memcpy(rest, &low, sizeof low);
    return fold_halves<T, Lanes / 2>(rest, fold);
  }
}
template <class T, class Fold> PYFRAME_INLINE T fold_lanes(Vec<T> v, Fold fold) {
  T lanes[kLanes<T>];
  __builtin_memcpy(lanes, &v, sizeof v);
  return fold_halves<T, kLanes<T>>(lanes, fold);
}
template <class T> PYFRAME_INLINE T hsum(Vec<T> v) {
  return fold_lanes<T>(v, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}
template <class T> PYFRAME_INLINE T hmax(Vec<T> v) {
  return fold_lanes<T>(v, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}
template <class T> PYFRAME_INLINE T hmin(Vec<T> v) {
  return fold_lanes<T>(v, [](auto a, auto b) __attribute__((always_inline)) { return a < b ? a : b; });
}

// Whether any lane of a comparison's result is set.
template <class M> PYFRAME_INLINE bool any(M mask) {
#if defined(__AVX512F__)
  if constexpr (sizeof(M) == 64) return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX__)
  if constexpr (sizeof(M) == 32) return !_mm256_testz_si256((__m256i)mask, (__m256i)mask);
#elif defined(__SSE2__)
  if constexpr (sizeof(M) == 16) return _mm_movemask_epi8((__m128i)mask) != 0;
#endif
  std::int64_t words[sizeof(M) / 8];
  __builtin_memcpy(words, &mask, sizeof mask);
  std::int64_t all = 0;
  for (std::size_t i = 0; i < sizeof(M) / 8; ++i) all |= words[i];
  return all != 0;
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
