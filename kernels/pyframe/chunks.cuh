// Sums that several blocks make parts of: a part per chunk in a workspace, added in the chunks' order, so that the
// result is the same in every run.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// Which of `total` units belong to this block's chunk (blockIdx.y) of `chunk` units.
struct Chunk {
  unsigned first, last;
  __device__ __forceinline__ Chunk(unsigned total, unsigned chunk)
      : first(blockIdx.y * chunk), last(min(total, (blockIdx.y + 1) * chunk)) {}
};

template <class C>
struct ChunkStorage {
  C sums[8][33];
};

// y[i] = Σ parts[chunk][from(i)] over all chunks, which are `each` values apart; a block of (32, 8) threads makes 32.
template <class T, class From>
__device__ __forceinline__ void add_chunks(const compute_t<T>* __restrict__ parts, T* __restrict__ y, long long total,
                                           long long each, int chunks, From from) {
  using C = compute_t<T>;
  auto& storage = shared<ChunkStorage<C>>();
  const long long i = blockIdx.x * 32ll + threadIdx.x;
  C sum = 0;
  if (i < total) {
    const C* const first = parts + from(i);
    for (int j = static_cast<int>(threadIdx.y); j < chunks; j += 8) sum += first[j * each];
  }
  storage.sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y || i >= total) return;
#pragma unroll
  for (int j = 1; j < 8; ++j) sum += storage.sums[j][threadIdx.x];
  y[i] = narrow<T>(sum);
}

}  // namespace pf
