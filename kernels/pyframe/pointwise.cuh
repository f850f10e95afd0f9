// The loops of pointwise kernels. pyframe/expr/cuda_source.py writes, per expression and dtypes, a `Body` that knows
// the operands and what to compute, and an entry that calls one of these loops with it.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// The number of the thread in the launch.
__device__ __forceinline__ long long flat_thread() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// V values of an operand: next to each other, or `splat`: the same one V times.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> take(const T* address, bool splat) {
  if (V == 1 || !splat) return load<V>(address);
  Pack<T, V> pack;
  const T value = *address;
#pragma unroll
  for (int i = 0; i < V; ++i) pack.values[i] = value;
  return pack;
}

// Operands that all lie in the order of the elements (or are one value: `splat`, a bit per operand). A thread has V
// elements, read and written as 16 bytes of the widest operand: what reaches the full bandwidth. The last thread may
// have fewer.
template <int V, class Body>
__device__ __forceinline__ void pointwise_flat(const Body& body, long long n, unsigned splat) {
  const long long first = flat_thread() * V;
  if (first + V <= n) {
    body.template flat<V>(first, splat);
  } else {
    for (long long i = first; i < n; ++i) body.template flat<1>(i, splat);
  }
}

// Division by a number that is known on the host (Granlund and Montgomery 1994): 2 instructions in place of about 20,
// right for dividends and divisors below 2^31.
struct Divisor {
  unsigned divisor, multiplier;
  int shift;
  __device__ __forceinline__ unsigned quotient(unsigned n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

// Which dimensions a launch runs over, and by how many elements each operand moves along them. Unused leading
// dimensions have length 1. Dimensions come from the host as few as they can be: see backend/cuda_geometry.py.
template <int DIMS, int OPERANDS, class Index>
struct Geometry {
  Index count;
  Index shape[DIMS];
  Divisor divisors[DIMS];
  Index strides[OPERANDS][DIMS];

  __device__ __forceinline__ void locate(Index index, Index (&at)[OPERANDS]) const {
#pragma unroll
    for (int k = 0; k < OPERANDS; ++k) at[k] = 0;
#pragma unroll
    for (int d = DIMS - 1; d >= 0; --d) {
      if (d < DIMS - 1 && index == 0) break;
      const Index rest = divide(index, d);
      const Index coordinate = index - rest * shape[d];
#pragma unroll
      for (int k = 0; k < OPERANDS; ++k) at[k] += coordinate * strides[k][d];
      index = rest;
    }
  }

 private:
  __device__ __forceinline__ int divide(int index, int d) const {
    return static_cast<int>(divisors[d].quotient(static_cast<unsigned>(index)));
  }
  __device__ __forceinline__ long long divide(long long index, int d) const { return index / shape[d]; }
};

// Operands with any strides, broadcasting included. A thread has V neighbours along the last dimension, of which the
// geometry counts groups; there every operand has its values next to each other or one value (`splat`).
template <int V, int DIMS, int OPERANDS, class Index, class Body>
__device__ __forceinline__ void pointwise_strided(const Body& body, const Geometry<DIMS, OPERANDS, Index>& geometry,
                                                  unsigned splat) {
  const long long group = flat_thread();
  if (group >= geometry.count) return;
  Index at[OPERANDS];
  geometry.locate(static_cast<Index>(group), at);
  body.template strided<V>(group * V, at, splat);
}

}  // namespace pf
