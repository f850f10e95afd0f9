// The links that start, feed and end a chain: loads and stores with their conversions, and masks.
#include "isa/pointwise_links.h"

#include <utility>

namespace pyframe {
namespace PYFRAME_ISA {

namespace {

constexpr int kL = kLanes<float>;
using Int = Vec<std::int32_t>;
using Word = Vec<std::uint32_t>;
typedef std::uint16_t HalfWords __attribute__((vector_size(kVectorBytes / 2)));
typedef std::uint16_t Words __attribute__((vector_size(kVectorBytes)));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
constexpr int kUpper = 1;
#else
constexpr int kUpper = 0;
#endif
typedef std::uint8_t Bytes __attribute__((vector_size(kVectorBytes / 4)));

template <class To> PYFRAME_INLINE To read(const char* from) {
  To v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <class From> PYFRAME_INLINE void write(char* to, From v) { __builtin_memcpy(to, &v, sizeof v); }

// How vectors lie in memory: what one takes, reading it, and writing two beside each other.
struct F32 {
  static constexpr int kBytes = kVectorBytes;
  static PYFRAME_INLINE V4 from(const char* p) { return read<V4>(p); }
  static PYFRAME_INLINE void to(char* p, V4 a, V4 b) {
    write(p, a);
    write(p + kVectorBytes, b);
  }
};
struct Stream {
  static constexpr int kBytes = kVectorBytes;
  static PYFRAME_INLINE void to(char* p, V4 a, V4 b) {
    stream<float>(reinterpret_cast<float*>(p), a);
    stream<float>(reinterpret_cast<float*>(p) + kL, b);
  }
};
struct BF16 {
  static constexpr int kBytes = kVectorBytes / 2;
  static PYFRAME_INLINE V4 from(const char* p) {
    const auto h = read<HalfWords>(p);
    return (V4)(__builtin_convertvector(h, Word) << 16);
  }
  // In the upper halves of the lanes, to nearest, halves to even; NaN stays one.
  static PYFRAME_INLINE Words rounded(V4 v) {
    const Word u = (Word)v;
    return (Words)(v != v ? (Int)(u | 0x400000) : (Int)(u + 0x7fff + ((u >> 16) & 1)));
  }
  template <std::size_t... I> static PYFRAME_INLINE Words upper(Words a, Words b, std::index_sequence<I...>) {
    return __builtin_shufflevector(a, b, (2 * static_cast<int>(I) + kUpper)...);
  }
  static PYFRAME_INLINE void to(char* p, V4 a, V4 b) {
    write(p, upper(rounded(a), rounded(b), std::make_index_sequence<sizeof(Words) / 2>{}));
  }
};
struct F16 {
  static constexpr int kBytes = kVectorBytes / 2;
  static PYFRAME_INLINE V4 from(const char* p) {
    const auto h = read<HalfWords>(p);
#if defined(__AVX512F__)
    return (V4)_mm512_maskz_cvtph_ps(0xffff, (__m256i)h);
#elif defined(__F16C__)
    return (V4)_mm256_cvtph_ps((__m128i)h);
#else
    const Word w = __builtin_convertvector(h, Word), sign = (w & 0x8000) << 16, size = (w & 0x7fff) << 13;
    // Moving the exponent by a multiplication also gives subnormals their value.
    const Int finite = (Int)((V4)size * 0x1p112f), special = (Int)(size | 0x7f800000u);
    return (V4)(((w & 0x7c00) == 0x7c00 ? special : finite) | (Int)sign);
#endif
  }
  static PYFRAME_INLINE void to(char* p, V4 a, V4 b) {
    one_to(p, a);
    one_to(p + kBytes, b);
  }
  static PYFRAME_INLINE void one_to(char* out, V4 v) {
#if defined(__AVX512F__)
    write(out, _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    write(out, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
    const Word u = (Word)v, sign = (u >> 16) & 0x8000, size = u & 0x7fffffff;
    // Subnormal halves: adding 2^-1 lets the adder round at the right bit.
    const Int small = (Int)((Word)((V4)size + 0.5f) - 0x3f000000u);
    const Int normal = (Int)((size - 0x38000000u + 0xfff + ((size >> 13) & 1)) >> 13);
    Int h = (Int)size < 0x38800000 ? small : normal;
    h = (Int)size >= 0x477ff000 ? Int{} + 0x7c00 : h;
    h = (Int)size > 0x7f800000 ? Int{} + 0x7e00 : h;
    write(out, __builtin_convertvector((Word)h | sign, HalfWords));
#endif
  }
};
// Truth values are lanes of all ones or zeros.
struct B8 {
  static constexpr int kBytes = kVectorBytes / 4;
  static PYFRAME_INLINE V4 from(const char* p) {
    const auto b = read<Bytes>(p);
    return (V4)(__builtin_convertvector(b, Int) != 0);
  }
  static PYFRAME_INLINE void to(char* p, V4 a, V4 b) {
    write(p, __builtin_convertvector((Word)a & 1, Bytes));
    write(p + kBytes, __builtin_convertvector((Word)b & 1, Bytes));
  }
};

// Offsets count bytes of float32.
template <class From> void load_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  const Places from = places<From::kBytes>(link, 0, offset * From::kBytes / kVectorBytes);
  const auto value = [&](V4, int i) __attribute__((always_inline)) { return From::from(from[i]); };
  PYFRAME_NEXT(value);
}
template <class To, bool Last> void store_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  char* const p = const_cast<char*>(link->at[0]) + (offset * To::kBytes / kVectorBytes & link->moves[0]);
  To::to(p, v0, v1);
  To::to(p + 2 * To::kBytes, v2, v3);
  To::to(p + 4 * To::kBytes, v4, v5);
  To::to(p + 6 * To::kBytes, v6, v7);
  const auto same = [](V4 v, int) __attribute__((always_inline)) { return v; };
  if constexpr (!Last) PYFRAME_NEXT(same);
}

void run_links(const Link* first, std::int64_t begin, std::int64_t end) {
  const LinkRun run = reinterpret_cast<LinkRun>(first->run);
  const V4 z{};
  for (std::int64_t offset = begin * 4; offset < end * 4; offset += kLinkVectors * kVectorBytes) {
    run(first, offset, z, z, z, z, z, z, z, z);
  }
}

// -- truth values

struct MaskAnd { static PYFRAME_INLINE Int run(V4 a, V4 b) { return (Int)a & (Int)b; } };
struct MaskOr { static PYFRAME_INLINE Int run(V4 a, V4 b) { return (Int)a | (Int)b; } };
struct MaskXor { static PYFRAME_INLINE Int run(V4 a, V4 b) { return (Int)a ^ (Int)b; } };
struct MaskNot { static PYFRAME_INLINE Int run(V4 a) { return ~(Int)a; } };
struct MaskWhere { static PYFRAME_INLINE V4 run(V4 m, V4 a, V4 b) { return (Int)m ? a : b; } };
struct ToMask { static PYFRAME_INLINE Int run(V4 a) { return a != 0; } };
struct FromMask { static PYFRAME_INLINE Int run(V4 a) { return (Int)a & (Int)splat(1.0f); } };
struct IsNan { static PYFRAME_INLINE Int run(V4 a) { return a != a; } };
struct IsInf { static PYFRAME_INLINE Int run(V4 a) { return (a - a != a - a) & (a == a); } };
struct IsFinite { static PYFRAME_INLINE Int run(V4 a) { return a - a == a - a; } };
struct MaskEq { static PYFRAME_INLINE Int run(V4 a, V4 b) { return (Int)a == (Int)b; } };
struct MaskNe { static PYFRAME_INLINE Int run(V4 a, V4 b) { return (Int)a != (Int)b; } };

template <class Function> LinkCode code(Function* run) { return reinterpret_cast<LinkCode>(run); }

template <class Memory> void link_memory(PointwiseKernels& k, Storage storage) {
  const int s = static_cast<int>(storage);
  k.link_load[s] = code(load_link<Memory>);
  k.link_store[0][s] = code(store_link<Memory, false>);
  k.link_store[1][s] = code(store_link<Memory, true>);
}

}  // namespace

void add_links(PointwiseKernels& k) {
  using Op = PointwiseOp;
  link_memory<F32>(k, Storage::f32);
  link_memory<F16>(k, Storage::f16);
  link_memory<BF16>(k, Storage::bf16);
  link_memory<B8>(k, Storage::b8);
  k.link_stream[0] = code(store_link<Stream, false>);
  k.link_stream[1] = code(store_link<Stream, true>);
  k.run_links = run_links;
  k.stream_end = [] { stream_end(); };
  k.link_elements = kLinkVectors * kL;
  link_operands<MaskAnd, 2, 0, 1>(k, Op::logical_and, ValueType::b8);
  link_operands<MaskOr, 2, 0, 1>(k, Op::logical_or, ValueType::b8);
  link_operands<MaskXor, 2, 0, 1>(k, Op::logical_xor, ValueType::b8);
  link_operands<MaskEq, 2, 0, 1>(k, Op::eq, ValueType::b8);
  link_operands<MaskNe, 2, 0, 1>(k, Op::ne, ValueType::b8);
  set_link(k, Op::logical_not, ValueType::b8, 0, function_link<MaskNot>, 2);
  set_link(k, Op::to_b8, ValueType::f32, 0, function_link<ToMask>, 2);
  set_link(k, Op::to_f32, ValueType::b8, 0, function_link<FromMask>, 2);
  set_link(k, Op::isnan, ValueType::f32, 0, function_link<IsNan>, 2);
  set_link(k, Op::isinf, ValueType::f32, 0, function_link<IsInf>, 2);
  set_link(k, Op::isfinite, ValueType::f32, 0, function_link<IsFinite>, 2);
  link_operands<MaskWhere, 3, 0, 1, 2>(k, Op::where);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
