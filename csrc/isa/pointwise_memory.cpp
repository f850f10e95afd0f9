// Conversions between types, and between arrays in memory and values in registers.
#include "isa/pointwise_loops.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {

template <class To> struct Convert { template <class From> static PYFRAME_INLINE To run(From a) { return static_cast<To>(a); } };
struct NotZero { template <class From> static PYFRAME_INLINE bool run(From a) { return a != 0; } };
// A number that does not fit, and NaN, become the least integer, as on x86.
struct FloatToI32 {
  template <class From> static PYFRAME_INLINE std::int32_t run(From a) {
    const double x = a;
    return x > -2147483649.0 && x < 2147483648.0 ? static_cast<std::int32_t>(x) : INT32_MIN;
  }
};
struct FloatToI64 {
  template <class From> static PYFRAME_INLINE std::int64_t run(From a) {
    const double x = a;
    return x >= -9223372036854775808.0 && x < 9223372036854775808.0 ? static_cast<std::int64_t>(x) : INT64_MIN;
  }
};

template <class From> void add_conversions(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const ValueType t = ValueTypeOf<From>::value;
  constexpr bool kFloat = static_cast<From>(0.5) != 0;
  define(k, Op::to_f32, t, each<From, float, Convert<float>>);
  define(k, Op::to_f64, t, each<From, double, Convert<double>>);
  if constexpr (kFloat) {
    define(k, Op::to_i32, t, each<From, std::int32_t, FloatToI32>);
    define(k, Op::to_i64, t, each<From, std::int64_t, FloatToI64>);
  } else {
    define(k, Op::to_i32, t, each<From, std::int32_t, Convert<std::int32_t>>);
    define(k, Op::to_i64, t, each<From, std::int64_t, Convert<std::int64_t>>);
  }
  define(k, Op::to_b8, t, each<From, std::uint8_t, NotZero>);
}

// -- memory, at any address

template <int kBytes> void copy(char* out, const char* in, std::int64_t count) {
  __builtin_memcpy(out, in, static_cast<std::size_t>(count * kBytes));
}

template <class From, class To> void convert(char* out, const char* in, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    From from;
    __builtin_memcpy(&from, in + i * static_cast<std::int64_t>(sizeof(From)), sizeof from);
    const To to = static_cast<To>(from);
    __builtin_memcpy(out + i * static_cast<std::int64_t>(sizeof(To)), &to, sizeof to);
  }
}

template <class To, class From> PYFRAME_INLINE To bits(From from) {
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

PYFRAME_INLINE float from_bf16(std::uint16_t h) { return bits<float>(static_cast<std::uint32_t>(h) << 16); }
// To nearest, halves to even; NaN stays one.
PYFRAME_INLINE std::uint16_t to_bf16(float f) {
  const std::uint32_t u = bits<std::uint32_t>(f);
  const std::uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return static_cast<std::uint16_t>(f != f ? (u >> 16) | 0x40 : rounded);
}
PYFRAME_INLINE float from_f16(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000) << 16, size = (h & 0x7fffu) << 13;
  // Moving the exponent by a multiplication also gives subnormals their value.
  const std::uint32_t finite = bits<std::uint32_t>(bits<float>(size) * 0x1p112f);
  const std::uint32_t special = size | 0x7f800000u;
  return bits<float>(((h & 0x7c00) == 0x7c00 ? special : finite) | sign);
}
PYFRAME_INLINE std::uint16_t to_f16(float f) {
  const std::uint32_t u = bits<std::uint32_t>(f), sign = (u >> 16) & 0x8000, size = u & 0x7fffffff;
  // Subnormal halves: adding 2^-1 lets the adder round at the right bit.
  const std::uint32_t small = bits<std::uint32_t>(bits<float>(size) + 0.5f) - 0x3f000000u;
  const std::uint32_t normal = (size - 0x38000000u + 0xfff + ((size >> 13) & 1)) >> 13;
  std::uint32_t h = size < 0x38800000u ? small : normal;
  h = size >= 0x477ff000u ? 0x7c00u : h;
  h = size > 0x7f800000u ? 0x7e00u : h;
  return static_cast<std::uint16_t>(h | sign);
}

template <float (*half_to_float)(std::uint16_t)> PYFRAME_INLINE void widen(char* out, const char* in, std::int64_t from, std::int64_t to) {
  for (std::int64_t i = from; i < to; ++i) {
    std::uint16_t h;
    __builtin_memcpy(&h, in + 2 * i, 2);
    const float f = half_to_float(h);
    __builtin_memcpy(out + 4 * i, &f, 4);
  }
}
template <std::uint16_t (*float_to_half)(float)> PYFRAME_INLINE void narrow(char* out, const char* in, std::int64_t from, std::int64_t to) {
  for (std::int64_t i = from; i < to; ++i) {
    float f;
    __builtin_memcpy(&f, in + 4 * i, 4);
    const std::uint16_t h = float_to_half(f);
    __builtin_memcpy(out + 2 * i, &h, 2);
  }
}

void load_bf16(char* out, const char* in, std::int64_t count) { widen<from_bf16>(out, in, 0, count); }
void store_bf16(char* out, const char* in, std::int64_t count) { narrow<to_bf16>(out, in, 0, count); }
void load_f16(char* out, const char* in, std::int64_t count) {
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 2 * i));
    _mm256_storeu_ps(reinterpret_cast<float*>(out + 4 * i), _mm256_cvtph_ps(h));
  }
#endif
  widen<from_f16>(out, in, i, count);
}
void store_f16(char* out, const char* in, std::int64_t count) {
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= count; i += 8) {
    const __m256 f = _mm256_loadu_ps(reinterpret_cast<const float*>(in + 4 * i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * i), _mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  narrow<to_f16>(out, in, i, count);
}

void stream_bytes(char* out, const char* in, std::int64_t bytes) {
  std::int64_t i = 0;
  for (; i + kVectorBytes <= bytes; i += kVectorBytes) {
    stream<std::int32_t>(reinterpret_cast<std::int32_t*>(out + i),
                         load<std::int32_t>(reinterpret_cast<const std::int32_t*>(in + i)));
  }
  __builtin_memcpy(out + i, in + i, static_cast<std::size_t>(bytes - i));
  stream_end();
}

}  // namespace

void add_memory(PointwiseKernels& k) {
  add_conversions<float>(k);
  add_conversions<double>(k);
  add_conversions<std::int32_t>(k);
  add_conversions<std::int64_t>(k);
  add_conversions<std::uint8_t>(k);
  const auto both = [&k](Storage storage, auto load, auto store) {
    k.load[static_cast<int>(storage)] = load;
    k.store[static_cast<int>(storage)] = store;
  };
  both(Storage::f32, copy<4>, copy<4>);
  both(Storage::f64, copy<8>, copy<8>);
  both(Storage::i32, copy<4>, copy<4>);
  both(Storage::i64, copy<8>, copy<8>);
  both(Storage::b8, copy<1>, copy<1>);
  both(Storage::f16, load_f16, store_f16);
  both(Storage::bf16, load_bf16, store_bf16);
  both(Storage::i8, convert<std::int8_t, std::int32_t>, convert<std::int32_t, std::int8_t>);
  both(Storage::i16, convert<std::int16_t, std::int32_t>, convert<std::int32_t, std::int16_t>);
  both(Storage::u8, convert<std::uint8_t, std::int32_t>, convert<std::int32_t, std::uint8_t>);
  k.stream = stream_bytes;
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
