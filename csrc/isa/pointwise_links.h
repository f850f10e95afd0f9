// Kernels as links of a chain: the second form of every pointwise operation on float32, see csrc/pointwise_chain.h.
//
// A link takes eight vectors in registers (the result of the link before it), works on them, and ends by jumping to the
// next link. Between links nothing goes through memory, and an instruction costs a jump and its arithmetic. Eight are
// what calling conventions pass in registers.
#pragma once

#include <type_traits>

#include "isa/pointwise_loops.h"

namespace pyframe {
namespace PYFRAME_ISA {

using V4 = Vec<float>;
#define PYFRAME_VECTORS V4 v0, V4 v1, V4 v2, V4 v3, V4 v4, V4 v5, V4 v6, V4 v7
using LinkRun = void (*)(const Link*, std::int64_t, PYFRAME_VECTORS);
constexpr int kLinkVectors = 8;

// Hands on f(vector, its number) of all vectors.
#define PYFRAME_NEXT(f)                                                                                              \
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, f(v0, 0), f(v1, 1), f(v2, 2), f(v3, 3), f(v4, 4), \
                                                f(v5, 5), f(v6, 6), f(v7, 7))
// Hands on f of the first four, behind the others: run twice it is f of all, with half the code.
#define PYFRAME_TURN(f) \
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, v4, v5, v6, v7, f(v0), f(v1), f(v2), f(v3))

// The addresses of an operand's vectors, of `Bytes` each; all the same where it is one element.
struct Places {
  const char* first[4];
  std::int64_t far;
  PYFRAME_INLINE const char* operator[](int i) const { return first[i % 4] + (i < 4 ? 0 : far); }
};
template <int Bytes> PYFRAME_INLINE Places places(const Link* link, int k, std::int64_t offset) {
  const std::int64_t moves = link->moves[k], step = Bytes & moves;
  const char* const at = link->at[k] + (offset & moves);
  return {{at, at + step, at + 2 * step, at + 3 * step}, 4 * step};
}
PYFRAME_INLINE V4 vector_at(const char* place) { return load<float>(reinterpret_cast<const float*>(place)); }

// The operands of an operation that are not in registers: Moving ones, then uniform ones, which are loaded once. (A
// loop over them would be vectorised: addresses from vector registers are ten cycles late.)
template <int Moving> struct Others {
  const Link* link;
  Places moving[4];
  PYFRAME_INLINE Others(const Link* l, std::int64_t offset)
      : link(l),
        moving{places<kVectorBytes>(l, 0, offset), places<kVectorBytes>(l, 1, offset),
               places<kVectorBytes>(l, 2, offset), places<kVectorBytes>(l, 3, offset)} {}
  template <int K> PYFRAME_INLINE V4 get(int i) const {
    if constexpr (K < Moving) return vector_at(moving[K][i]);
    else return vector_at(link->at[K]);
  }
};

// An operation on several operands, of which number Acc is the one in registers (none where it is negative).
template <class F, int Operands, int Acc, bool Uniform = false>
void combine_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  constexpr int kOthers = Operands - (Acc >= 0);
  const Others<Uniform ? 0 : kOthers> others(link, offset);
  const auto value = [&](V4 v, int i) __attribute__((always_inline)) {
    const auto in = [&](auto k) __attribute__((always_inline)) {
      if constexpr (k == Acc) return v;
      else return others.template get<(Acc >= 0 && k > Acc ? k - 1 : k)>(i);
    };
    constexpr std::integral_constant<int, 0> a{};
    constexpr std::integral_constant<int, 1> b{};
    constexpr std::integral_constant<int, 2> c{};
    constexpr std::integral_constant<int, 3> d{};
    if constexpr (Operands == 2) return (V4)F::run(in(a), in(b));
    else if constexpr (Operands == 3) return (V4)F::run(in(a), in(b), in(c));
    else return (V4)F::run(in(a), in(b), in(c), in(d));
  };
  PYFRAME_NEXT(value);
}
// Both operands are the value in registers.
template <class F> void twice_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  const auto value = [](V4 v, int) __attribute__((always_inline)) { return (V4)F::run(v, v); };
  PYFRAME_NEXT(value);
}

// Functions, to be run twice.
template <class F> void function_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  const auto value = [](V4 v) __attribute__((always_inline)) { return (V4)F::run(v); };
  PYFRAME_TURN(value);
}
template <class F> void affine_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  const V4 scale = vector_at(link->at[0]), factor = vector_at(link->at[1]), shift = vector_at(link->at[2]);
  const auto value = [=](V4 v) __attribute__((always_inline)) { return F::run(v * scale) * factor + shift; };
  PYFRAME_TURN(value);
}
// For functions of many instructions: one copy of the code.
template <class F> void long_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  V4 v[4] = {v0, v1, v2, v3};
#pragma GCC unroll 1
  for (int i = 0; i < 4; ++i) v[i] = F::run(v[i]);
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, v4, v5, v6, v7, v[0], v[1], v[2], v[3]);
}
// The same for functions of two operands, the second of them in memory; it does all vectors.
template <class F> void long_pair_link(const Link* link, std::int64_t offset, PYFRAME_VECTORS) {
  V4 v[kLinkVectors] = {v0, v1, v2, v3, v4, v5, v6, v7};
  const char* const other = link->at[0] + (offset & link->moves[0]);
#pragma GCC unroll 1
  for (int i = 0; i < kLinkVectors; ++i) v[i] = F::run(v[i], vector_at(other + i * (kVectorBytes & link->moves[0])));
  return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}

template <class Function>
PYFRAME_INLINE void set_link(PointwiseKernels& k, PointwiseOp op, ValueType t, int form, Function* run, int runs = 1) {
  LinkForms& forms = k.links[static_cast<int>(op)][static_cast<int>(t)];
  forms.at[form] = reinterpret_cast<LinkCode>(run);
  forms.runs = runs;
}

// -- both forms of an operation

template <class T, class F> void define_unary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, unary<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, function_link<F>, 2);
}
template <class T, class F> void define_function(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, unary<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, long_link<F>, 2);
}
template <class T, class F> void define_affine(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, affine<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, affine_link<F>, 2);
}
// Links for the operands in registers that are listed (-1: none); the others are found in memory, or loaded before.
template <class F, int Operands, int... Acc>
void link_operands(PointwiseKernels& k, PointwiseOp op, ValueType t = ValueType::f32) {
  (set_link(k, op, t, Acc < 0 ? kLinkFresh : Acc, combine_link<F, Operands, Acc>), ...);
}
template <class F, int Operands> void link_uniform(PointwiseKernels& k, PointwiseOp op) {
  set_link(k, op, ValueType::f32, kLinkUniform, combine_link<F, Operands, 0, true>);
}
template <class T, class F, int... Acc> void define_binary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, binary<T, F>);
  if constexpr (sizeof(T) == 4) link_operands<F, 2, 0, Acc...>(k, op);
}
template <class T, class F> void define_ternary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, ternary<T, F>);
  if constexpr (sizeof(T) == 4) {
    link_operands<F, 3, 0, 2, -1>(k, op);
    link_uniform<F, 3>(k, op);
  }
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
