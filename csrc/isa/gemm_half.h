// float16 and bfloat16 to float32 and back, on vectors of any instruction set level.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

struct Float16 { std::uint16_t bits; };
struct BFloat16 { std::uint16_t bits; };

template <class T> constexpr bool kIsHalf = false;
template <> inline constexpr bool kIsHalf<Float16> = true;
template <> inline constexpr bool kIsHalf<BFloat16> = true;

using Words = Vec<std::int32_t>;

// kLanes<float> 16-bit values, zero-extended.
PYFRAME_INLINE Words load_words(const void* from) {
  typedef std::uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half half;
  __builtin_memcpy(&half, from, sizeof half);
  return __builtin_convertvector(half, Words);
}

PYFRAME_INLINE Vec<float> widen(const BFloat16* from) { return bit_cast<Vec<float>>(load_words(from) << 16); }

// Exponent and fraction are moved into place and the exponent's bias is corrected by a multiplication, which also
// normalises subnormals; infinity and NaN need the largest exponent.
PYFRAME_INLINE Vec<float> widen_words(Words h) {
  const Words magnitude = h & 0x7fff;
  Words bits = bit_cast<Words>(bit_cast<Vec<float>>(magnitude << 13) * 0x1p112f);
  bits |= (magnitude >= 0x7c00) & 0x7f800000;
  return bit_cast<Vec<float>>(bits | (h & 0x8000) << 16);
}
PYFRAME_INLINE Vec<float> widen(const Float16* from) {
#if defined(__AVX512F__)
  __m256i half;
  __builtin_memcpy(&half, from, sizeof half);
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, half);
#elif defined(__F16C__)
  __m128i half;
  __builtin_memcpy(&half, from, sizeof half);
  return (Vec<float>)_mm256_cvtph_ps(half);
#else
  return widen_words(load_words(from));
#endif
}

PYFRAME_INLINE float widen_one(BFloat16 value) {
  const std::uint32_t bits = std::uint32_t{value.bits} << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}
PYFRAME_INLINE float widen_one(Float16 value) { return widen_words(Words{} + value.bits)[0]; }

// To the nearest, ties to even. NaN keeps its sign and becomes quiet.
PYFRAME_INLINE BFloat16 narrow_bfloat16(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const std::uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  return {static_cast<std::uint16_t>((nan ? bits | 0x400000 : rounded) >> 16)};
}

// The same for a vector.
PYFRAME_INLINE void store_bfloat16(BFloat16* to, Vec<float> value) {
  typedef std::uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  const Vec<std::uint32_t> bits = bit_cast<Vec<std::uint32_t>>(value);
  const Vec<std::uint32_t> rounded = bits + 0x7fff + (bits >> 16 & 1);
  const Vec<std::uint32_t> chosen = (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded;
  const Half half = __builtin_convertvector(chosen >> 16, Half);
  __builtin_memcpy(to, &half, sizeof half);
}

PYFRAME_INLINE Float16 narrow_float16(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) {  // 65536 and more, infinity, NaN
    return {static_cast<std::uint16_t>(sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00))};
  }
  if (magnitude < 0x38800000) {  // subnormal: adding 0.5 puts the result's last bit into float32's last bit
    float size;
    __builtin_memcpy(&size, &magnitude, sizeof size);
    size += 0.5f;
    std::uint32_t shifted;
    __builtin_memcpy(&shifted, &size, sizeof shifted);
    return {static_cast<std::uint16_t>(sign | (shifted - 0x3f000000))};
  }
  const std::uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000;
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
