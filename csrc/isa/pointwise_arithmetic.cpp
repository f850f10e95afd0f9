// Pointwise kernels of float32 and float64 that are an instruction or two: arithmetic, extrema, rounding, comparisons.
#include "isa/pointwise_links.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {

template <class T> PYFRAME_INLINE Mask<T> bits_of(Vec<T> x) { return (Mask<T>)x; }
template <class T> PYFRAME_INLINE Mask<T> sign_bit() {
  return splat<typename Bits<T>::type>(static_cast<typename Bits<T>::type>(1) << (8 * sizeof(T) - 1));
}
template <class T> PYFRAME_INLINE T scalar_fmod(T a, T b) {
  if constexpr (sizeof(T) == 4) return __builtin_fmodf(a, b);
  else return __builtin_fmod(a, b);
}
template <class T> PYFRAME_INLINE T scalar_copysign(T a, T b) {
  if constexpr (sizeof(T) == 4) return __builtin_copysignf(a, b);
  else return __builtin_copysign(a, b);
}
template <class T> PYFRAME_INLINE T scalar_floor(T a) {
  if constexpr (sizeof(T) == 4) return __builtin_floorf(a);
  else return __builtin_floor(a);
}

// Rounding through the integer that a number of this size cannot have a fraction beyond: for the levels without an
// instruction for it. `whole` is the rounded value, to nearest.
template <class T> PYFRAME_INLINE Vec<T> nearest(Vec<T> x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, 0);
  else return (Vec<T>)_mm512_maskz_roundscale_pd(0xff, (__m512d)x, 0);
#elif defined(__AVX__)
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_round_ps((__m256)x, 8);
  else return (Vec<T>)_mm256_round_pd((__m256d)x, 8);
#else
  const Vec<T> limit = splat<T>(sizeof(T) == 4 ? T(8388608) : T(4503599627370496));
  const Mask<T> sign = bits_of<T>(x) & sign_bit<T>();
  const Vec<T> size = (Vec<T>)(bits_of<T>(x) & ~sign_bit<T>());
  const Vec<T> rounded = (Vec<T>)(bits_of<T>((size + limit) - limit) | sign);
  return size < limit ? rounded : x;
#endif
}
// With the sign of x, so that -0.5 gives -0.
template <class T> PYFRAME_INLINE Vec<T> with_sign(Vec<T> y, Vec<T> x) {
  return (Vec<T>)((bits_of<T>(y) & ~sign_bit<T>()) | (bits_of<T>(x) & sign_bit<T>()));
}

struct Copy { template <class V> static PYFRAME_INLINE V run(V a) { return a; } };
struct Add { template <class V> static PYFRAME_INLINE V run(V a, V b) { return a + b; } };
struct Sub { template <class V> static PYFRAME_INLINE V run(V a, V b) { return a - b; } };
struct Mul { template <class V> static PYFRAME_INLINE V run(V a, V b) { return a * b; } };
struct Div { template <class V> static PYFRAME_INLINE V run(V a, V b) { return a / b; } };
struct Neg { template <class V> static PYFRAME_INLINE V run(V a) { return -a; } };
struct Reciprocal { template <class V> static PYFRAME_INLINE V run(V a) { return 1 / a; } };
struct MulAdd { template <class V> static PYFRAME_INLINE V run(V a, V b, V c) { return a * b + c; } };
struct MulSub { template <class V> static PYFRAME_INLINE V run(V a, V b, V c) { return a * b - c; } };
struct NMulAdd { template <class V> static PYFRAME_INLINE V run(V a, V b, V c) { return c - a * b; } };
template <class T> struct Float {
  using V = Vec<T>;
  // NaN wins in the first two (of b it needs a test, of a none: once for a number that all elements have), and loses in
  // the others.
  struct Maximum { static PYFRAME_INLINE V run(V a, V b) { return b != b ? b : vmax<T>(b, a); } };
  struct Minimum { static PYFRAME_INLINE V run(V a, V b) { return b != b ? b : vmin<T>(b, a); } };
  struct FMax { static PYFRAME_INLINE V run(V a, V b) { return b != b ? a : vmax<T>(a, b); } };
  struct FMin { static PYFRAME_INLINE V run(V a, V b) { return b != b ? a : vmin<T>(a, b); } };
  struct Abs { static PYFRAME_INLINE V run(V a) { return (V)(bits_of<T>(a) & ~sign_bit<T>()); } };
  struct Copysign { static PYFRAME_INLINE V run(V a, V b) { return with_sign<T>(a, b); } };
  struct Sign {
    static PYFRAME_INLINE V run(V a) {
      const V zero = splat<T>(0), one = splat<T>(1);
      return a > 0 ? one : a < 0 ? -one : zero;
    }
  };
  struct Sqrt { static PYFRAME_INLINE V run(V a) { return vsqrt<T>(a); } };
  struct Rsqrt { static PYFRAME_INLINE V run(V a) { return vrsqrt<T>(a); } };
  struct Round { static PYFRAME_INLINE V run(V a) { return nearest<T>(a); } };
  struct Floor {
    static PYFRAME_INLINE V run(V a) {
      const V r = nearest<T>(a);
      return with_sign<T>(r > a ? r - 1 : r, a);
    }
  };
  struct Ceil {
    static PYFRAME_INLINE V run(V a) {
      const V r = nearest<T>(a);
      return with_sign<T>(r < a ? r + 1 : r, a);
    }
  };
  struct Trunc {
    static PYFRAME_INLINE V run(V a) {
      const V size = Abs::run(a), r = nearest<T>(size);
      return with_sign<T>(r > size ? r - 1 : r, a);
    }
  };
  struct TruncDiv { static PYFRAME_INLINE V run(V a, V b) { return Trunc::run(a / b); } };
  // As Python's % and //: the sign of the divisor.
  struct Remainder {
    static PYFRAME_INLINE T run(T a, T b) {
      const T r = scalar_fmod(a, b);
      return r != 0 && (b < 0) != (r < 0) ? r + b : r;
    }
  };
  struct Fmod { static PYFRAME_INLINE T run(T a, T b) { return scalar_fmod(a, b); } };
  struct FloorDiv {
    static PYFRAME_INLINE T run(T a, T b) {
      if (b == 0) return a / b;
      const T r = scalar_fmod(a, b);
      T q = (a - r) / b;
      if (r != 0 && (b < 0) != (r < 0)) q -= 1;
      if (q == 0) return scalar_copysign(T(0), a / b);
      const T f = scalar_floor(q);
      return q - f > T(0.5) ? f + 1 : f;
    }
  };
  struct IsNan { static PYFRAME_INLINE bool run(T a) { return a != a; } };
  struct IsInf { static PYFRAME_INLINE bool run(T a) { return a - a != a - a && a == a; } };
  struct IsFinite { static PYFRAME_INLINE bool run(T a) { return a - a == a - a; } };
};

struct MulAddMul { template <class V> static PYFRAME_INLINE V run(V a, V b, V c, V d) { return (a * b + c) * d; } };
struct NMulAddMul { template <class V> static PYFRAME_INLINE V run(V a, V b, V c, V d) { return (c - a * b) * d; } };
template <class Compare> struct Select {  // (a OP b) ? c : d
  template <class V> static PYFRAME_INLINE V run(V a, V b, V c, V d) { return Compare::run(a, b) ? c : d; }
};

template <class T, class F> void quaternary(const PointwiseArgs& s) {
  const char *a = s.in[0], *b = s.in[1], *c = s.in[2], *d = s.in[3];
  char* out = s.out;
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const T *x = reinterpret_cast<const T*>(a), *z = reinterpret_cast<const T*>(b);
    const T *p = reinterpret_cast<const T*>(c), *q = reinterpret_cast<const T*>(d);
    T* y = reinterpret_cast<T*>(out);
    for (int i = 0; i < kGroup; i += kLanes<T>)
      store<T>(y + i, F::run(load<T>(x + i), load<T>(z + i), load<T>(p + i), load<T>(q + i)));
    a += s.step[0], b += s.step[1], c += s.step[2], d += s.step[3], out += kGroup * sizeof(T);
  }
}

// (a * b + c) * d where a is in registers, and b too (Twice) or else uniform, as c is: the last operands here.
template <class F, bool Twice> void product_sum_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  const Others<1> others(link, offset);
  const auto value = [&](V4 v, int i) __attribute__((always_inline)) {
    const V4 d = others.template get<0>(i), first = others.template get<1>(i);
    if constexpr (Twice) return F::run(v, v, first, d);
    else return F::run(v, first, others.template get<2>(i), d);
  };
  PYFRAME_NEXT(value);
}
template <class F> void define_product_sum(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueType::f32, quaternary<float, F>);
  link_operands<F, 4, 0, 2, 3, -1>(k, op);
  set_link(k, op, ValueType::f32, kLinkUniform, product_sum_link<F, false>);
  set_link(k, op, ValueType::f32, kLinkTwice, product_sum_link<F, true>);
}

// Selections by a comparison with a uniform value (chains make two links of others), which is the last operand here, or
// the last but one where the first choice is uniform too.
template <class Compare, int Acc> void select_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  constexpr bool kUniform = Acc == kLinkUniform || Acc == kLinkEnds;
  constexpr int kMoving = Acc == kLinkEnds ? 0 : Acc == kLinkTwice || kUniform ? 1 : 2;
  const Others<kMoving> others(link, offset);
  const auto value = [&](V4 v, int i) __attribute__((always_inline)) {
    V4 a = v, c = v, d = v;
    if constexpr (Acc != 0 && Acc != kLinkEnds) a = others.template get<0>(i);
    if constexpr (Acc == kLinkTwice) c = a;
    else if constexpr (kUniform) c = others.template get<kMoving + 1>(i);
    else if constexpr (Acc != 2) c = others.template get<(Acc == 0 ? 0 : 1)>(i);
    if constexpr (Acc == 0 || Acc == 2) d = others.template get<1>(i);
    return Compare::run(a, others.template get<kMoving>(i)) ? c : d;
  };
  PYFRAME_NEXT(value);
}
template <class Compare> void define_selection(PointwiseKernels& k, PointwiseOp op) {
  const ValueType t = ValueType::f32;
  define(k, op, t, quaternary<float, Select<Compare>>);
  define(k, op, ValueType::f64, quaternary<double, Select<Compare>>);
  set_link(k, op, t, 0, select_link<Compare, 0>);
  set_link(k, op, t, 2, select_link<Compare, 2>);
  set_link(k, op, t, 3, select_link<Compare, 3>);
  set_link(k, op, t, kLinkTwice, select_link<Compare, kLinkTwice>);
  set_link(k, op, t, kLinkUniform, select_link<Compare, kLinkUniform>);
}

struct Eq { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a == b; } };
struct Ne { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a != b; } };
struct Lt { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a < b; } };
struct Le { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a <= b; } };
struct Gt { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a > b; } };
struct Ge { template <class V> static PYFRAME_INLINE auto run(V a, V b) { return a >= b; } };

template <class T, class F> void define_comparison(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, each_pair<T, std::uint8_t, F>);
  if constexpr (ValueTypeOf<T>::value == ValueType::f32) link_operands<F, 2, 0, 1>(k, op);
}

// bool ? T : T
template <class T> void where(const PointwiseArgs& s) {
  const char *c = s.in[0], *a = s.in[1], *b = s.in[2];
  char* out = s.out;
  for (std::int64_t g = 0; g < s.groups; ++g) {
    const std::uint8_t* m = reinterpret_cast<const std::uint8_t*>(c);
    const T *x = reinterpret_cast<const T*>(a), *z = reinterpret_cast<const T*>(b);
    T* y = reinterpret_cast<T*>(out);
#pragma GCC ivdep
    for (int i = 0; i < kGroup; ++i) {
      const T p = x[i], q = z[i];
      y[i] = m[i] ? p : q;
    }
    c += s.step[0], a += s.step[1], b += s.step[2], out += kGroup * sizeof(T);
  }
}

// One instruction on two arrays waits for memory, and is 5 % faster if it takes lines in halves (Zen 4, 4 MB each).
template <class T, class F, int... Acc> void define_instruction(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, binary<T, F, (kVectorBytes < 32 ? kVectorBytes : 32)>);
  if constexpr (sizeof(T) == 4) link_operands<F, 2, 0, Acc...>(k, op);
}

template <class T> void add_float(PointwiseKernels& k) {
  using Op = PointwiseOp;
  using F = Float<T>;
  const ValueType t = ValueTypeOf<T>::value;
  define_unary<T, Copy>(k, Op::copy);
  define_instruction<T, Add, -1>(k, Op::add);
  define_instruction<T, Sub, 1, -1>(k, Op::sub);
  define_instruction<T, Mul, -1>(k, Op::mul);
  define_instruction<T, Div, 1, -1>(k, Op::div);
  define_unary<T, Neg>(k, Op::neg);
  define_unary<T, Reciprocal>(k, Op::reciprocal);
  define_ternary<T, MulAdd>(k, Op::muladd);
  define_ternary<T, MulSub>(k, Op::mulsub);
  define_ternary<T, NMulAdd>(k, Op::nmuladd);
  define_binary<T, typename F::Maximum, 1, -1>(k, Op::maximum);
  define_binary<T, typename F::Minimum, 1, -1>(k, Op::minimum);
  define_binary<T, typename F::FMax>(k, Op::fmax);
  define_binary<T, typename F::FMin>(k, Op::fmin);
  if constexpr (sizeof(T) == 4) {
    link_uniform<Add, 2>(k, Op::add);
    link_uniform<Sub, 2>(k, Op::sub);
    link_uniform<Mul, 2>(k, Op::mul);
    link_uniform<Div, 2>(k, Op::div);
    link_uniform<typename F::Maximum, 2>(k, Op::maximum);
    link_uniform<typename F::Minimum, 2>(k, Op::minimum);
    set_link(k, Op::mul, t, kLinkTwice, twice_link<Mul>);
    define_product_sum<MulAddMul>(k, Op::muladd_mul);
    define_product_sum<NMulAddMul>(k, Op::nmuladd_mul);
  } else {
    define(k, Op::muladd_mul, t, quaternary<T, MulAddMul>);
    define(k, Op::nmuladd_mul, t, quaternary<T, NMulAddMul>);
  }
  define_unary<T, typename F::Abs>(k, Op::abs);
  define_unary<T, typename F::Sign>(k, Op::sign);
  define_binary<T, typename F::Copysign>(k, Op::copysign);
  define_unary<T, typename F::Sqrt>(k, Op::sqrt);
  define_unary<T, typename F::Rsqrt>(k, Op::rsqrt);
  define_unary<T, typename F::Round>(k, Op::round);
  define_unary<T, typename F::Floor>(k, Op::floor);
  define_unary<T, typename F::Ceil>(k, Op::ceil);
  define_unary<T, typename F::Trunc>(k, Op::trunc);
  define_binary<T, typename F::TruncDiv>(k, Op::truncdiv);
  define(k, Op::remainder, t, each_pair<T, T, typename F::Remainder>);
  define(k, Op::fmod, t, each_pair<T, T, typename F::Fmod>);
  define(k, Op::floordiv, t, each_pair<T, T, typename F::FloorDiv>);
  define(k, Op::isnan, t, each<T, std::uint8_t, typename F::IsNan>);
  define(k, Op::isinf, t, each<T, std::uint8_t, typename F::IsInf>);
  define(k, Op::isfinite, t, each<T, std::uint8_t, typename F::IsFinite>);
}

template <class T> void add_comparisons(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const ValueType t = ValueTypeOf<T>::value;
  define_comparison<T, Eq>(k, Op::eq);
  define_comparison<T, Ne>(k, Op::ne);
  define_comparison<T, Lt>(k, Op::lt);
  define_comparison<T, Le>(k, Op::le);
  define_comparison<T, Gt>(k, Op::gt);
  define_comparison<T, Ge>(k, Op::ge);
  define(k, Op::where, t, where<T>);
}

void add_selections(PointwiseKernels& k) {
  using Op = PointwiseOp;
  define_selection<Eq>(k, Op::select_eq);
  define_selection<Ne>(k, Op::select_ne);
  define_selection<Lt>(k, Op::select_lt);
  define_selection<Le>(k, Op::select_le);
  set_link(k, Op::select_le, ValueType::f32, kLinkEnds, select_link<Le, kLinkEnds>);  // relu
  define_selection<Gt>(k, Op::select_gt);
  define_selection<Ge>(k, Op::select_ge);
}

}  // namespace

void add_arithmetic(PointwiseKernels& kernels) {
  add_float<float>(kernels);
  add_float<double>(kernels);
  add_comparisons<float>(kernels);
  add_comparisons<double>(kernels);
  add_comparisons<std::int32_t>(kernels);
  add_comparisons<std::int64_t>(kernels);
  add_comparisons<std::uint8_t>(kernels);
  add_selections(kernels);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
