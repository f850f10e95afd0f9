// Kernels as links of a chain: the second form of every pointwise operation on float32, see csrc/pointwise_chain.h.
//
// A link takes four vectors in registers (the result of the link before it), works on them, and ends by jumping to the
// next link. Between links nothing goes through memory, and an instruction costs a jump and its arithmetic.
#pragma once

#include "isa/pointwise_loops.h"

namespace pyframe {
namespace PYFRAME_ISA {

using V4 = Vec<float>;
using LinkRun = void (*)(const Link*, std::int64_t, V4, V4, V4, V4);

#define PYFRAME_NEXT(a, b, c, d) return reinterpret_cast<LinkRun>(link[1].run)(link + 1, offset, a, b, c, d)

// Operand k, at `offset` if it moves along with the elements; vector i of it.
PYFRAME_INLINE V4 other(const Link* link, int k, std::int64_t offset, int i) {
  return load<float>(reinterpret_cast<const float*>(link->at[k] + (offset & link->moves[k])) + i * kLanes<float>);
}

// The value of a link of several operands, of which number Acc is the one in registers.
template <class F, int Operands, int Acc>
PYFRAME_INLINE V4 link_value(const Link* link, std::int64_t offset, int i, V4 v) {
  const auto in = [=](int k) __attribute__((always_inline)) {
    return k == Acc ? v : other(link, k < Acc ? k : k - 1, offset, i);
  };
  if constexpr (Operands == 2) return (V4)F::run(in(0), in(1));
  else if constexpr (Operands == 3) return (V4)F::run(in(0), in(1), in(2));
  else return (V4)F::run(in(0), in(1), in(2), in(3));
}
template <class F, int Operands, int Acc>
void combine_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  PYFRAME_NEXT((link_value<F, Operands, Acc>(link, offset, 0, a)), (link_value<F, Operands, Acc>(link, offset, 1, b)),
               (link_value<F, Operands, Acc>(link, offset, 2, c)), (link_value<F, Operands, Acc>(link, offset, 3, d)));
}
// Both operands are the value in registers.
template <class F> void twice_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  PYFRAME_NEXT((V4)F::run(a, a), (V4)F::run(b, b), (V4)F::run(c, c), (V4)F::run(d, d));
}

template <class F> void short_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  PYFRAME_NEXT((V4)F::run(a), (V4)F::run(b), (V4)F::run(c), (V4)F::run(d));
}
// For functions of many instructions: one copy of the code.
template <class F> void long_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  V4 v[4] = {a, b, c, d};
#pragma GCC unroll 1
  for (int i = 0; i < 4; ++i) v[i] = F::run(v[i]);
  PYFRAME_NEXT(v[0], v[1], v[2], v[3]);
}
template <class F, int Acc> void long_pair_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  V4 v[4] = {a, b, c, d};
#pragma GCC unroll 1
  for (int i = 0; i < 4; ++i) v[i] = link_value<F, 2, Acc>(link, offset, i, v[i]);
  PYFRAME_NEXT(v[0], v[1], v[2], v[3]);
}
template <class F> void affine_link(const Link* link, std::int64_t offset, V4 a, V4 b, V4 c, V4 d) {
  const V4 scale = other(link, 0, 0, 0), factor = other(link, 1, 0, 0), shift = other(link, 2, 0, 0);
  PYFRAME_NEXT(F::run(a * scale) * factor + shift, F::run(b * scale) * factor + shift,
               F::run(c * scale) * factor + shift, F::run(d * scale) * factor + shift);
}

template <class Function> PYFRAME_INLINE void set_link(PointwiseKernels& k, PointwiseOp op, ValueType t, int acc, Function* run) {
  k.links[static_cast<int>(op)][static_cast<int>(t)].at[acc] = reinterpret_cast<LinkCode>(run);
}

// -- both forms of an operation

template <class T, class F> void define_unary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, unary<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, short_link<F>);
}
template <class T, class F> void define_function(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, unary<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, long_link<F>);
}
template <class T, class F> void define_affine(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, affine<T, F>);
  if constexpr (sizeof(T) == 4) set_link(k, op, ValueType::f32, 0, affine_link<F>);
}
template <class F> void link_binary(PointwiseKernels& k, PointwiseOp op, ValueType t = ValueType::f32) {
  set_link(k, op, t, 0, combine_link<F, 2, 0>);
  set_link(k, op, t, 1, combine_link<F, 2, 1>);
  set_link(k, op, t, kLinkTwice, twice_link<F>);
}
template <class T, class F> void define_binary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, binary<T, F>);
  if constexpr (sizeof(T) == 4) link_binary<F>(k, op);
}
template <class T, class F> void define_ternary(PointwiseKernels& k, PointwiseOp op) {
  define(k, op, ValueTypeOf<T>::value, ternary<T, F>);
  if constexpr (sizeof(T) == 4) {
    set_link(k, op, ValueType::f32, 0, combine_link<F, 3, 0>);
    set_link(k, op, ValueType::f32, 1, combine_link<F, 3, 1>);
    set_link(k, op, ValueType::f32, 2, combine_link<F, 3, 2>);
  }
}
template <class F> void link_quaternary(PointwiseKernels& k, PointwiseOp op) {
  set_link(k, op, ValueType::f32, 0, combine_link<F, 4, 0>);
  set_link(k, op, ValueType::f32, 1, combine_link<F, 4, 1>);
  set_link(k, op, ValueType::f32, 2, combine_link<F, 4, 2>);
  set_link(k, op, ValueType::f32, 3, combine_link<F, 4, 3>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
