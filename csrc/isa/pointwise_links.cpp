// The links that start, feed and end a chain: loads and stores with their conversions, and masks.
#include <utility>

#include "isa/pointwise_links.h"

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

// Vector i of 4-, 2- and 1-byte elements; `offset` counts bytes of float32.
struct F32 {
  static PYFRAME_INLINE V4 from(const char* p, std::int64_t offset, int i) {
    return read<V4>(p + offset + i * kVectorBytes);
  }
  static PYFRAME_INLINE void to(char* p, std::int64_t offset, int i, V4 v) { write(p + offset + i * kVectorBytes, v); }
};
struct Stream {
  static PYFRAME_INLINE void to(char* p, std::int64_t offset, int i, V4 v) {
    stream<float>(reinterpret_cast<float*>(p + offset) + i * kL, v);
  }
};
struct BF16 {
  static PYFRAME_INLINE V4 from(const char* p, std::int64_t offset, int i) {
    const auto h = read<HalfWords>(p + offset / 2 + i * kVectorBytes / 2);
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
  static PYFRAME_INLINE void both_to(char* p, std::int64_t offset, int i, V4 a, V4 b) {
    write(p + offset / 2 + i * kVectorBytes / 2,
          upper(rounded(a), rounded(b), std::make_index_sequence<sizeof(Words) / 2>{}));
  }
};
struct F16 {
  static PYFRAME_INLINE V4 from(const char* p, std::int64_t offset, int i) {
    const auto h = read<HalfWords>(p + offset / 2 + i * kVectorBytes / 2);
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
  static PYFRAME_INLINE void to(char* p, std::int64_t offset, int i, V4 v) {
    char* const out = p + offset / 2 + i * kVectorBytes / 2;
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
  static PYFRAME_INLINE V4 from(const char* p, std::int64_t offset, int i) {
    const auto b = read<Bytes>(p + offset / 4 + i * kL);
    return (V4)(__builtin_convertvector(b, Int) != 0);
  }
  static PYFRAME_INLINE void to(char* p, std::int64_t offset, int i, V4 v) {
    write(p + offset / 4 + i * kL, __builtin_convertvector((Word)v & 1, Bytes));
  }
};

template <class From> void load_link(const Link* link, std::int64_t offset, V4, V4, V4, V4) {
  const char* const p = link->at[0];
  const std::int64_t o = offset & link->moves[0];
  PYFRAME_NEXT(From::from(p, o, 0), From::from(p, o, 1), From::from(p, o, 2), From::from(p, o, 3));
}
template <class To> void store_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  char* const p = const_cast<char*>(link->at[0]);
  const std::int64_t o = offset & link->moves[0];
  To::to(p, o, 0, a);
  To::to(p, o, 1, b);
  To::to(p, o, 2, c);
  To::to(p, o, 3, d);
  PYFRAME_NEXT(a, b, c, d);
}
template <> void store_link<BF16>(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  char* const p = const_cast<char*>(link->at[0]);
  const std::int64_t o = offset & link->moves[0];
  BF16::both_to(p, o, 0, a, b);
  BF16::both_to(p, o, 2, c, d);
  PYFRAME_NEXT(a, b, c, d);
}
void end_link(const Link*, std::int64_t, V4, V4, V4, V4) {}

void run_links(const Link* first, std::int64_t begin, std::int64_t end) {
  const LinkRun run = reinterpret_cast<LinkRun>(first->run);
  for (std::int64_t offset = begin * 4; offset < end * 4; offset += 4 * kVectorBytes) run(first, offset, V4{}, V4{}, V4{}, V4{});
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

}  // namespace

void add_links(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const auto slot = [](Storage s) { return static_cast<int>(s); };
  k.link_load[slot(Storage::f32)] = code(load_link<F32>);
  k.link_load[slot(Storage::f16)] = code(load_link<F16>);
  k.link_load[slot(Storage::bf16)] = code(load_link<BF16>);
  k.link_load[slot(Storage::b8)] = code(load_link<B8>);
  k.link_store[slot(Storage::f32)] = code(store_link<F32>);
  k.link_store[slot(Storage::f16)] = code(store_link<F16>);
  k.link_store[slot(Storage::bf16)] = code(store_link<BF16>);
  k.link_store[slot(Storage::b8)] = code(store_link<B8>);
  k.link_stream = code(store_link<Stream>);
  k.link_end = code(end_link);
  k.run_links = run_links;
  k.stream_end = [] { stream_end(); };
  k.link_elements = 4 * kL;
  link_binary<MaskAnd>(k, Op::logical_and, ValueType::b8);
  link_binary<MaskOr>(k, Op::logical_or, ValueType::b8);
  link_binary<MaskXor>(k, Op::logical_xor, ValueType::b8);
  link_binary<MaskEq>(k, Op::eq, ValueType::b8);
  link_binary<MaskNe>(k, Op::ne, ValueType::b8);
  set_link(k, Op::logical_not, ValueType::b8, 0, short_link<MaskNot>);
  set_link(k, Op::to_b8, ValueType::f32, 0, short_link<ToMask>);
  set_link(k, Op::to_f32, ValueType::b8, 0, short_link<FromMask>);
  set_link(k, Op::isnan, ValueType::f32, 0, short_link<IsNan>);
  set_link(k, Op::isinf, ValueType::f32, 0, short_link<IsInf>);
  set_link(k, Op::isfinite, ValueType::f32, 0, short_link<IsFinite>);
  set_link(k, Op::where, ValueType::f32, 0, combine_link<MaskWhere, 3, 0>);
  set_link(k, Op::where, ValueType::f32, 1, combine_link<MaskWhere, 3, 1>);
  set_link(k, Op::where, ValueType::f32, 2, combine_link<MaskWhere, 3, 2>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
