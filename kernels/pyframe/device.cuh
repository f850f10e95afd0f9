// What all kernels share: half types, vector access, reductions over a warp and a block.
#pragma once

#include "pyframe/platform.cuh"

namespace pf {

// ---------------------------------------------------------------- half types

struct float16 {
  unsigned short bits;
};
struct bfloat16 {
  unsigned short bits;
};

// The type that values of T are computed in.
template <class T>
struct ComputeType {
  using type = T;
};
template <>
struct ComputeType<float16> {
  using type = float;
};
template <>
struct ComputeType<bfloat16> {
  using type = float;
};
template <class T>
using compute_t = typename ComputeType<T>::type;

template <class T>
__device__ __forceinline__ T widen(T value) { return value; }
__device__ __forceinline__ float widen(float16 value) { return half_bits_to_float(value.bits); }
__device__ __forceinline__ float widen(bfloat16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

template <class T>
struct Narrow {
  template <class From>
  __device__ __forceinline__ static T from(From value) { return static_cast<T>(value); }
};
template <>
struct Narrow<float16> {
  __device__ __forceinline__ static float16 from(float value) { return {float_to_half_bits(value)}; }
};
template <>
struct Narrow<bfloat16> {
  __device__ __forceinline__ static bfloat16 from(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<unsigned short>((bits >> 16) | 0x40u)};  // NaN stays one
    return {static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
  }
};
// `value` rounded to T.
template <class T, class From>
__device__ __forceinline__ T narrow(From value) { return Narrow<T>::from(value); }

// ---------------------------------------------------------------- vector access

// N values that are read and written at once; the address must be a multiple of the size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* address) {
  return *reinterpret_cast<const Pack<T, N>*>(address);
}

template <int N, class T>
__device__ __forceinline__ void store(T* address, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

// How many values of T make 16 bytes, the widest access.
template <class T>
constexpr int kPack = 16 / sizeof(T);

// ---------------------------------------------------------------- reductions

constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};

// The larger one; NaN where one is NaN.
struct Max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a > b || a != a ? a : b; }
};

// Combines a value per lane; every lane gets the result, and each the same bits. All 32 lanes take part.
template <class T, class Combine>
__device__ __forceinline__ T warp_reduce(T value, Combine combine) {
#pragma unroll
  for (int bit = 16; bit > 0; bit >>= 1) {
    const T other = __shfl_xor_sync(kAllLanes, value, bit);
    value = (threadIdx.x & bit) ? combine(other, value) : combine(value, other);
  }
  return value;
}

template <class T>
struct ReduceStorage {
  T partial[32];
};

// The same over a block of THREADS threads along x, a multiple of 32. Ends with a barrier, so that it may be called
// again with the same types.
template <int THREADS, class T, class Combine>
__device__ T block_reduce(T value, Combine combine) {
  static_assert(THREADS % 32 == 0 && THREADS <= 1024, "whole warps");
  value = warp_reduce(value, combine);
  if (THREADS == 32) return value;
  auto& storage = shared<ReduceStorage<T>>();
  if (threadIdx.x % 32 == 0) storage.partial[threadIdx.x / 32] = value;
  __syncthreads();
  T total = storage.partial[0];
#pragma unroll
  for (int warp = 1; warp < THREADS / 32; ++warp) total = combine(total, storage.partial[warp]);
  __syncthreads();
  return total;
}

}  // namespace pf
