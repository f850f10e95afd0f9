// What the sources of the pointwise kernels share: loops over groups, and the parts the table is made of.
#pragma once

#include "isa/vec.h"
#include "pointwise_ops.h"

namespace pyframe {
namespace PYFRAME_ISA {

void add_arithmetic(PointwiseKernels& kernels);  // + - * /, extrema, rounding, comparisons, selections
void add_integer(PointwiseKernels& kernels);     // integers, bools, Philox
void add_single(PointwiseKernels& kernels);      // functions of float32
void add_double(PointwiseKernels& kernels);      // functions of float64, and those of float32 that go through it
void add_memory(PointwiseKernels& kernels);      // conversions, loads and stores
void add_links(PointwiseKernels& kernels);       // links that are no operation on float32

PYFRAME_INLINE void define(PointwiseKernels& kernels, PointwiseOp op, ValueType type, PointwiseKernel kernel) {
  kernels.ops[static_cast<int>(op)][static_cast<int>(type)] = kernel;
}

// The type's place in the table.
template <class T> struct ValueTypeOf;
template <> struct ValueTypeOf<float> { static constexpr ValueType value = ValueType::f32; };
template <> struct ValueTypeOf<double> { static constexpr ValueType value = ValueType::f64; };
template <> struct ValueTypeOf<std::int32_t> { static constexpr ValueType value = ValueType::i32; };
template <> struct ValueTypeOf<std::int64_t> { static constexpr ValueType value = ValueType::i64; };
template <> struct ValueTypeOf<std::uint8_t> { static constexpr ValueType value = ValueType::b8; };

// Kernels of vectors: F::run(Vec<T>, ...) gives a Vec<T>.
template <class T, class F> void unary(const PointwiseArgs& s) {
  const char* a = s.in[0];
  char* out = s.out;
  for (std::int64_t g = 0; g < s.groups; ++g, a += s.step[0], out += kGroup * sizeof(T)) {
    const T* x = reinterpret_cast<const T*>(a);
    T* y = reinterpret_cast<T*>(out);
    for (int i = 0; i < kGroup; i += kLanes<T>) store<T>(y + i, F::run(load<T>(x + i)));
  }
}
template <class T, class F, int Bytes = kVectorBytes> void binary(const PointwiseArgs& s) {
  typedef T V __attribute__((vector_size(Bytes)));
  const char *a = s.in[0], *b = s.in[1];
  char* out = s.out;
  const std::int64_t step_a = s.step[0], step_b = s.step[1];
  for (std::int64_t g = 0; g < s.groups; ++g, a += step_a, b += step_b, out += kGroup * sizeof(T)) {
    for (int i = 0; i < kGroup * static_cast<int>(sizeof(T)); i += Bytes) {
      V x, z;
      __builtin_memcpy(&x, a + i, sizeof x);
      __builtin_memcpy(&z, b + i, sizeof z);
      const V y = (V)F::run(x, z);
      __builtin_memcpy(out + i, &y, sizeof y);
    }
  }
}
template <class T, class F> void ternary(const PointwiseArgs& s) {
  const char *a = s.in[0], *b = s.in[1], *c = s.in[2];
  char* out = s.out;
  const std::int64_t step_a = s.step[0], step_b = s.step[1], step_c = s.step[2];
  for (std::int64_t g = 0; g < s.groups; ++g, a += step_a, b += step_b, c += step_c, out += kGroup * sizeof(T)) {
    const T *x = reinterpret_cast<const T*>(a), *z = reinterpret_cast<const T*>(b), *w = reinterpret_cast<const T*>(c);
    T* y = reinterpret_cast<T*>(out);
    for (int i = 0; i < kGroup; i += kLanes<T>)
      store<T>(y + i, F::run(load<T>(x + i), load<T>(z + i), load<T>(w + i)));
  }
}

// f(a * b) * c + d, where b, c and d are the same for all elements.
template <class T, class F> void affine(const PointwiseArgs& s) {
  const Vec<T> scale = load<T>(reinterpret_cast<const T*>(s.in[1]));
  const Vec<T> factor = load<T>(reinterpret_cast<const T*>(s.in[2]));
  const Vec<T> offset = load<T>(reinterpret_cast<const T*>(s.in[3]));
  const char* a = s.in[0];
  char* out = s.out;
  for (std::int64_t g = 0; g < s.groups; ++g, a += s.step[0], out += kGroup * sizeof(T)) {
    const T* x = reinterpret_cast<const T*>(a);
    T* y = reinterpret_cast<T*>(out);
    for (int i = 0; i < kGroup; i += kLanes<T>) {
      store<T>(y + i, F::run(load<T>(x + i) * scale) * factor + offset);
    }
  }
}

// Kernels of scalars, Out run(A, ...): the compiler vectorises the loop over a group where it can.
template <class A, class Out, class F> void each(const PointwiseArgs& s) {
  const char* a = s.in[0];
  char* out = s.out;
  for (std::int64_t g = 0; g < s.groups; ++g, a += s.step[0], out += kGroup * sizeof(Out)) {
    const A* x = reinterpret_cast<const A*>(a);
    Out* y = reinterpret_cast<Out*>(out);
#pragma GCC ivdep
    for (int i = 0; i < kGroup; ++i) y[i] = F::run(x[i]);
  }
}
template <class A, class Out, class F> void each_pair(const PointwiseArgs& s) {
  const char *a = s.in[0], *b = s.in[1];
  char* out = s.out;
  const std::int64_t step_a = s.step[0], step_b = s.step[1];
  for (std::int64_t g = 0; g < s.groups; ++g, a += step_a, b += step_b, out += kGroup * sizeof(Out)) {
    const A *x = reinterpret_cast<const A*>(a), *z = reinterpret_cast<const A*>(b);
    Out* y = reinterpret_cast<Out*>(out);
#pragma GCC ivdep
    for (int i = 0; i < kGroup; ++i) y[i] = F::run(x[i], z[i]);
  }
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
