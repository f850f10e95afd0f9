// Walking along the rows of a matrix with a warp or a block per row (GROUP threads: 32 or more), or a thread (GROUP 1)
// where the next row is next in memory.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

template <int V>
struct Width {
  static constexpr int value = V;
};

// This thread's row. Rows of a block: along y, or along x if a thread has a row.
template <int GROUP>
__device__ __forceinline__ long long row_here() {
  return GROUP == 1 ? static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x
                    : static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
}

// Whether this thread writes its row's result.
template <int GROUP>
__device__ __forceinline__ bool writes_row() { return GROUP == 1 || threadIdx.x == 0; }

// Calls f(j, Width<V>) for this thread's columns; a V above 1 means columns j … j+V-1, to be loaded together, and needs
// `vector`: rows whose starts are multiples of 16 bytes and whose length is one of V. Both loops are in every instance
// because they share their registers: a template parameter would double the instances and gain nothing.
template <int GROUP, int V, class F>
__device__ __forceinline__ void for_columns(bool vector, int columns, F f) {
  if constexpr (GROUP == 1) {
    for (int j = 0; j < columns; ++j) f(j, Width<1>());
  } else if (vector) {
    for (int j = static_cast<int>(threadIdx.x) * V; j < columns; j += GROUP * V) f(j, Width<V>());
  } else {
    for (int j = static_cast<int>(threadIdx.x); j < columns; j += GROUP) f(j, Width<1>());
  }
}

// `combine` over the threads of a row, along x: a warp (several rows to a block, along y) or the whole block.
template <int GROUP, class C, class Combine>
__device__ __forceinline__ C group_reduce(C value, Combine combine) {
  if constexpr (GROUP == 1) {
    return value;
  } else if constexpr (GROUP == 32) {
    return warp_reduce(value, combine);
  } else {
    return block_reduce<GROUP>(value, combine);
  }
}

}  // namespace pf
