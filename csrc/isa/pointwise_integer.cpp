// Pointwise kernels of integers and bools, and the element's index and random bits.
//
// Everything is defined, as in pyframe/expr/c_source.py: sums, products and shifts wrap around, dividing by 0 gives 0.
#include "isa/pointwise_loops.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {

template <class T> struct UnsignedOf;
template <> struct UnsignedOf<std::int32_t> { using type = std::uint32_t; };
template <> struct UnsignedOf<std::int64_t> { using type = std::uint64_t; };

PYFRAME_INLINE std::int64_t truncdiv(std::int64_t a, std::int64_t b) {
  return b == 0 ? 0 : b == -1 ? static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(a)) : a / b;
}
PYFRAME_INLINE std::int64_t fmod(std::int64_t a, std::int64_t b) { return b == 0 || b == -1 ? 0 : a % b; }
PYFRAME_INLINE std::int64_t remainder(std::int64_t a, std::int64_t b) {
  const std::int64_t r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
PYFRAME_INLINE std::int64_t floordiv(std::int64_t a, std::int64_t b) {
  return truncdiv(a, b) - (fmod(a, b) != 0 && (a < 0) != (b < 0));
}
PYFRAME_INLINE std::int64_t power(std::int64_t a, std::int64_t b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
  std::uint64_t r = 1, f = static_cast<std::uint64_t>(a);
  for (; b; b >>= 1, f *= f) {
    if (b & 1) r *= f;
  }
  return static_cast<std::int64_t>(r);
}

// Functors on elements of T, computed in the unsigned type so that they wrap around.
template <class T> struct Integer {
  using U = typename UnsignedOf<T>::type;
  static constexpr int kBits = 8 * sizeof(T);
  struct Add { static PYFRAME_INLINE T run(T a, T b) { return T(U(a) + U(b)); } };
  struct Sub { static PYFRAME_INLINE T run(T a, T b) { return T(U(a) - U(b)); } };
  struct Mul { static PYFRAME_INLINE T run(T a, T b) { return T(U(a) * U(b)); } };
  struct And { static PYFRAME_INLINE T run(T a, T b) { return a & b; } };
  struct Or { static PYFRAME_INLINE T run(T a, T b) { return a | b; } };
  struct Xor { static PYFRAME_INLINE T run(T a, T b) { return a ^ b; } };
  struct Max { static PYFRAME_INLINE T run(T a, T b) { return a > b ? a : b; } };
  struct Min { static PYFRAME_INLINE T run(T a, T b) { return a < b ? a : b; } };
  struct TruncDiv { static PYFRAME_INLINE T run(T a, T b) { return T(truncdiv(a, b)); } };
  struct FloorDiv { static PYFRAME_INLINE T run(T a, T b) { return T(floordiv(a, b)); } };
  struct Fmod { static PYFRAME_INLINE T run(T a, T b) { return T(fmod(a, b)); } };
  struct Remainder { static PYFRAME_INLINE T run(T a, T b) { return T(remainder(a, b)); } };
  struct Pow { static PYFRAME_INLINE T run(T a, T b) { return T(power(a, b)); } };
  struct ShiftLeft {
    static PYFRAME_INLINE T run(T a, T b) {
      const U fits = U(b) < U(kBits) ? ~U(0) : U(0);
      return T((U(a) << (U(b) & U(kBits - 1))) & fits);
    }
  };
  struct ShiftRight {
    static PYFRAME_INLINE T run(T a, T b) { return a >> (U(b) < U(kBits) ? int(b) : kBits - 1); }
  };
  struct Copy { static PYFRAME_INLINE T run(T a) { return a; } };
  struct Neg { static PYFRAME_INLINE T run(T a) { return T(U(0) - U(a)); } };
  struct Abs { static PYFRAME_INLINE T run(T a) { return T(a < 0 ? U(0) - U(a) : U(a)); } };
  struct Sign { static PYFRAME_INLINE T run(T a) { return T(a > 0) - T(a < 0); } };
  struct Not { static PYFRAME_INLINE T run(T a) { return ~a; } };
  struct No { static PYFRAME_INLINE bool run(T) { return false; } };
  struct Yes { static PYFRAME_INLINE bool run(T) { return true; } };
};

template <class T> void add_integers(PointwiseKernels& k) {
  using Op = PointwiseOp;
  using I = Integer<T>;
  const ValueType t = ValueTypeOf<T>::value;
  define(k, Op::add, t, each_pair<T, T, typename I::Add>);
  define(k, Op::sub, t, each_pair<T, T, typename I::Sub>);
  define(k, Op::mul, t, each_pair<T, T, typename I::Mul>);
  define(k, Op::bit_and, t, each_pair<T, T, typename I::And>);
  define(k, Op::bit_or, t, each_pair<T, T, typename I::Or>);
  define(k, Op::bit_xor, t, each_pair<T, T, typename I::Xor>);
  define(k, Op::maximum, t, each_pair<T, T, typename I::Max>);
  define(k, Op::minimum, t, each_pair<T, T, typename I::Min>);
  define(k, Op::fmax, t, each_pair<T, T, typename I::Max>);
  define(k, Op::fmin, t, each_pair<T, T, typename I::Min>);
  define(k, Op::truncdiv, t, each_pair<T, T, typename I::TruncDiv>);
  define(k, Op::floordiv, t, each_pair<T, T, typename I::FloorDiv>);
  define(k, Op::fmod, t, each_pair<T, T, typename I::Fmod>);
  define(k, Op::remainder, t, each_pair<T, T, typename I::Remainder>);
  define(k, Op::pow, t, each_pair<T, T, typename I::Pow>);
  define(k, Op::shift_left, t, each_pair<T, T, typename I::ShiftLeft>);
  define(k, Op::shift_right, t, each_pair<T, T, typename I::ShiftRight>);
  define(k, Op::copy, t, each<T, T, typename I::Copy>);
  define(k, Op::neg, t, each<T, T, typename I::Neg>);
  define(k, Op::abs, t, each<T, T, typename I::Abs>);
  define(k, Op::sign, t, each<T, T, typename I::Sign>);
  define(k, Op::bit_not, t, each<T, T, typename I::Not>);
  const Op whole[] = {Op::floor, Op::ceil, Op::round, Op::trunc};
  for (const Op op : whole) define(k, op, t, each<T, T, typename I::Copy>);
  define(k, Op::isnan, t, each<T, std::uint8_t, typename I::No>);
  define(k, Op::isinf, t, each<T, std::uint8_t, typename I::No>);
  define(k, Op::isfinite, t, each<T, std::uint8_t, typename I::Yes>);
}

using Byte = std::uint8_t;
struct BoolCopy { static PYFRAME_INLINE Byte run(Byte a) { return a; } };
struct BoolNot { static PYFRAME_INLINE Byte run(Byte a) { return a ^ 1; } };
struct BoolNo { static PYFRAME_INLINE Byte run(Byte) { return 0; } };
struct BoolYes { static PYFRAME_INLINE Byte run(Byte) { return 1; } };
struct BoolAnd { static PYFRAME_INLINE Byte run(Byte a, Byte b) { return a & b; } };
struct BoolOr { static PYFRAME_INLINE Byte run(Byte a, Byte b) { return a | b; } };
struct BoolXor { static PYFRAME_INLINE Byte run(Byte a, Byte b) { return a ^ b; } };

void add_bools(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const ValueType t = ValueType::b8;
  const Op ands[] = {Op::mul, Op::logical_and, Op::bit_and, Op::minimum, Op::fmin};
  const Op ors[] = {Op::add, Op::logical_or, Op::bit_or, Op::maximum, Op::fmax};
  const Op exclusive[] = {Op::logical_xor, Op::bit_xor}, nots[] = {Op::logical_not, Op::bit_not};
  const Op copies[] = {Op::copy, Op::sign, Op::abs, Op::floor, Op::ceil, Op::round, Op::trunc};
  const Op never[] = {Op::isnan, Op::isinf};
  for (const Op op : ands) define(k, op, t, each_pair<Byte, Byte, BoolAnd>);
  for (const Op op : ors) define(k, op, t, each_pair<Byte, Byte, BoolOr>);
  for (const Op op : exclusive) define(k, op, t, each_pair<Byte, Byte, BoolXor>);
  for (const Op op : nots) define(k, op, t, each<Byte, Byte, BoolNot>);
  for (const Op op : copies) define(k, op, t, each<Byte, Byte, BoolCopy>);
  for (const Op op : never) define(k, op, t, each<Byte, Byte, BoolNo>);
  define(k, Op::isfinite, t, each<Byte, Byte, BoolYes>);
}

void index(const PointwiseArgs& s) {
  std::int64_t* out = reinterpret_cast<std::int64_t*>(s.out);
  for (std::int64_t i = 0; i < s.groups * kGroup; ++i) out[i] = s.index + i;
}

// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), as in pyframe/philox.py: element i
// is word i % 4 of block i / 4. Groups begin at a multiple of four elements.
void philox(const PointwiseArgs& s) {
  using Word = std::uint32_t;
  constexpr int kBlocks = kGroup / 4;
  std::uint64_t key, offset;
  __builtin_memcpy(&key, s.in[0], sizeof key);
  __builtin_memcpy(&offset, s.in[1], sizeof offset);
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const std::uint64_t first = static_cast<std::uint64_t>(s.index + g * kGroup) >> 2;
    Word c0[kBlocks], c1[kBlocks], c2[kBlocks], c3[kBlocks];
    for (int i = 0; i < kBlocks; ++i) {
      const std::uint64_t block = first + static_cast<std::uint64_t>(i);
      c0[i] = static_cast<Word>(block);
      c1[i] = static_cast<Word>(block >> 32);
      c2[i] = static_cast<Word>(offset);
      c3[i] = static_cast<Word>(offset >> 32);
    }
    Word k0 = static_cast<Word>(key), k1 = static_cast<Word>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < kBlocks; ++i) {
        const std::uint64_t p0 = 0xD2511F53ull * c0[i], p1 = 0xCD9E8D57ull * c2[i];
        c0[i] = static_cast<Word>(p1 >> 32) ^ c1[i] ^ k0;
        c1[i] = static_cast<Word>(p1);
        c2[i] = static_cast<Word>(p0 >> 32) ^ c3[i] ^ k1;
        c3[i] = static_cast<Word>(p0);
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    std::int64_t* out = reinterpret_cast<std::int64_t*>(s.out) + g * kGroup;
    for (int i = 0; i < kBlocks; ++i) {
      out[4 * i] = c0[i];
      out[4 * i + 1] = c1[i];
      out[4 * i + 2] = c2[i];
      out[4 * i + 3] = c3[i];
    }
  }
}

struct WrapInt8 { static PYFRAME_INLINE std::int32_t run(std::int32_t a) { return static_cast<std::int8_t>(a); } };
struct WrapInt16 { static PYFRAME_INLINE std::int32_t run(std::int32_t a) { return static_cast<std::int16_t>(a); } };
struct WrapUint8 { static PYFRAME_INLINE std::int32_t run(std::int32_t a) { return static_cast<std::uint8_t>(a); } };

}  // namespace

void add_integer(PointwiseKernels& kernels) {
  add_integers<std::int32_t>(kernels);
  add_integers<std::int64_t>(kernels);
  add_bools(kernels);
  define(kernels, PointwiseOp::index, ValueType::i64, index);
  define(kernels, PointwiseOp::philox, ValueType::i64, philox);
  define(kernels, PointwiseOp::wrap_int8, ValueType::i32, each<std::int32_t, std::int32_t, WrapInt8>);
  define(kernels, PointwiseOp::wrap_int16, ValueType::i32, each<std::int32_t, std::int32_t, WrapInt16>);
  define(kernels, PointwiseOp::wrap_uint8, ValueType::i32, each<std::int32_t, std::int32_t, WrapUint8>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
