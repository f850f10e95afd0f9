// Sums over the channels of an array [N, C, S], in two deterministic passes: blocks add up chunks of a channel, then a
// warp per channel adds up the chunks' results.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// Two ways to share out the work: COLUMNS is for few positions, lanes along 32 channels and 8 values of each at a time;
// otherwise a block of 256 threads is on one channel, lanes along its positions.
constexpr int kChannelThreads = 256, kChannelColumns = 32, kChannelRows = 8;

template <class C>
struct ChannelTile {
  C values[kChannelRows][kChannelColumns];
};

// The sum over all threads that are on this thread's channel.
template <bool COLUMNS, class C>
__device__ __forceinline__ C channel_total(C value) {
  if constexpr (!COLUMNS) {
    return block_reduce<kChannelThreads>(value, Sum());
  } else {
    auto& tile = shared<ChannelTile<C>>();
    tile.values[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    C total = tile.values[0][threadIdx.x];
#pragma unroll
    for (int row = 1; row < kChannelRows; ++row) total += tile.values[row][threadIdx.x];
    __syncthreads();
    return total;
  }
}

// Calls f(n, s) for every V-th of the pairs first … last-1, counted as n·positions + s, that is this thread's. Steps
// without a division, which would cost more than loading the value.
template <bool COLUMNS, int V, class F>
__device__ __forceinline__ void for_pairs(int first, int last, int positions, F f) {
  constexpr int kStep = COLUMNS ? kChannelRows : kChannelThreads * V;
  int i = first + (COLUMNS ? static_cast<int>(threadIdx.y) : static_cast<int>(threadIdx.x) * V);
  int n = i / positions, s = i - n * positions;
  const int step_n = kStep / positions, step_s = kStep - step_n * positions;
#pragma unroll 2
  for (; i < last; i += kStep) {
    f(n, s);
    n += step_n;
    s += step_s;
    if (s >= positions) {
      s -= positions;
      ++n;
    }
  }
}

// Whether a limited value has a gradient: on the limits it has none.
template <class C>
__device__ __forceinline__ bool inside(C value, C low, C high) { return value > low && value < high; }

// This thread's channel; blocks are along x for channels and along y for chunks. May be past the end with COLUMNS.
template <bool COLUMNS>
__device__ __forceinline__ int channel_here() {
  return static_cast<int>(COLUMNS ? blockIdx.x * kChannelColumns + threadIdx.x : blockIdx.x);
}

// Whether this thread writes its channel's result.
template <bool COLUMNS>
__device__ __forceinline__ bool writes_channel(int channel, int channels) {
  return channel < channels && (COLUMNS ? threadIdx.y == 0 : threadIdx.x == 0);
}

}  // namespace pf
