// Products of matrices in float32 and float64 on the ordinary units.
#pragma once

#include "pyframe/gemm.cuh"

namespace pf {

// A block makes M × N values, a thread ROWS × COLUMNS of them; a warp's threads are 4 × 8. Tiles are 8 deep.
template <class T_, int M, int N, int ROWS, int COLUMNS, int STAGES>
struct SimtGemm {
  using T = T_;
  static constexpr int kM = M, kN = N, kRows = ROWS, kColumns = COLUMNS, kStages = STAGES, kDepth = 8;
  static constexpr int kWarpsN = N / (8 * COLUMNS), kThreads = M / (4 * ROWS) * kWarpsN * 32;
  static constexpr int kPack = 16 / sizeof(T);
  static_assert(M % (4 * ROWS) == 0 && N % (8 * COLUMNS) == 0, "whole warps");
  static_assert(ROWS % kPack == 0 && COLUMNS % kPack == 0, "values are read 16 bytes at a time");
};

// Blocks that a multiprocessor shall have room for.
template <class T>
constexpr int kSimtResident = sizeof(T) == 4 ? 2 : 1;

// A tile [8, SIZE] in shared memory: values along the rows lie next to each other whatever the matrix's layout. Lines
// are 16 bytes longer, so that 32 lanes that write 8 values along k of 4 rows reach all banks.
template <class T, int SIZE>
struct SimtTile {
  static constexpr int kLine = SIZE + 16 / sizeof(T);
  T values[8][kLine];
};

__device__ __forceinline__ void copy_async_value(float* target, const float* source, bool there) {
  copy_async_4(target, source, there ? 4 : 0);
}
__device__ __forceinline__ void copy_async_value(double* target, const double* source, bool there) {
  copy_async_8(target, source, there ? 8 : 0);
}

// Starts the copies of one tile: rows row …, steps k … of `matrix`, which has `rows` rows and `depth` along k.
template <class T, int SIZE, int THREADS>
__device__ __forceinline__ void load_tile(SimtTile<T, SIZE>& tile, const T* matrix, long long stride, bool k_inner,
                                          bool vector, int row, int rows, int k, int depth) {
  constexpr int kPack = 16 / sizeof(T);
  const int thread = static_cast<int>(threadIdx.x);
  if (k_inner) {
#pragma unroll
    for (int i = 0; i < SIZE * 8 / THREADS; ++i) {
      const int at = thread + i * THREADS, r = at / 8, d = at % 8;
      const bool there = row + r < rows && k + d < depth;
      copy_async_value(&tile.values[d][r], there ? matrix + (row + r) * stride + k + d : matrix, there);
    }
  } else if (vector) {
#pragma unroll
    for (int i = 0; i < SIZE * 8 / kPack / THREADS; ++i) {
      const int at = thread + i * THREADS, r = at % (SIZE / kPack) * kPack, d = at / (SIZE / kPack);
      int count = k + d < depth ? rows - row - r : 0;
      count = count < 0 ? 0 : count > kPack ? kPack : count;
      copy_async_16(&tile.values[d][r], count ? matrix + (k + d) * stride + row + r : matrix,
                    count * static_cast<int>(sizeof(T)));
    }
  } else {
#pragma unroll
    for (int i = 0; i < SIZE * 8 / THREADS; ++i) {
      const int at = thread + i * THREADS, r = at % SIZE, d = at / SIZE;
      const bool there = row + r < rows && k + d < depth;
      copy_async_value(&tile.values[d][r], there ? matrix + (k + d) * stride + row + r : matrix, there);
    }
  }
}

template <class Gemm>
struct SimtStage {
  SimtTile<typename Gemm::T, Gemm::kM> a;
  SimtTile<typename Gemm::T, Gemm::kN> b;
};

// A thread's part of the product.
template <class Gemm>
using SimtSums = typename Gemm::T[Gemm::kRows][Gemm::kColumns];

// A thread's rows and columns come in groups of V, so that it reads 16 bytes and a warp reads few lines. These are the
// first ones.
template <class Gemm>
__device__ __forceinline__ int simt_row() {
  return static_cast<int>(threadIdx.x) / 32 / Gemm::kWarpsN * (4 * Gemm::kRows) +
         static_cast<int>(threadIdx.x) % 32 / 8 * Gemm::kPack;
}
template <class Gemm>
__device__ __forceinline__ int simt_column() {
  return static_cast<int>(threadIdx.x) / 32 % Gemm::kWarpsN * (8 * Gemm::kColumns) +
         static_cast<int>(threadIdx.x) % 8 * Gemm::kPack;
}

// sums = the product of the tiles at steps first … last-1. `start(stage, step)` starts this thread's copies of both
// tiles, zeros where an operand has ended; it is called with steps in order.
template <class Gemm, class Start>
__device__ __forceinline__ void simt_loop(SimtSums<Gemm>& sums, const SimtStage<Gemm>* stages, int first, int last,
                                          const Start& start) {
  using T = typename Gemm::T;
  constexpr int V = Gemm::kPack, kStages = Gemm::kStages, kRows = Gemm::kRows, kColumns = Gemm::kColumns;
  const int my_row = simt_row<Gemm>(), my_column = simt_column<Gemm>();
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (first + stage < last) start(stage, first + stage);
    copy_async_commit();
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums[i][j] = 0;
  }
  int here = 0, free = kStages - 1;
  for (int step = first; step < last; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();
    if (step + kStages - 1 < last) start(free, step + kStages - 1);
    copy_async_commit();
    const SimtStage<Gemm>& stage = stages[here];
#pragma unroll 2  // all 8 would read ahead into more registers than two blocks of 256 threads have
    for (int d = 0; d < Gemm::kDepth; ++d) {
      T left[kRows], right[kColumns];
#pragma unroll
      for (int i = 0; i < kRows; i += V) {
        const Pack<T, V> pack = load<V>(&stage.a.values[d][my_row + i * 4]);
#pragma unroll
        for (int e = 0; e < V; ++e) left[i + e] = pack.values[e];
      }
#pragma unroll
      for (int j = 0; j < kColumns; j += V) {
        const Pack<T, V> pack = load<V>(&stage.b.values[d][my_column + j * 8]);
#pragma unroll
        for (int e = 0; e < V; ++e) right[j + e] = pack.values[e];
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) sums[i][j] += left[i] * right[j];
      }
    }
    here = here + 1 == kStages ? 0 : here + 1;
    free = free + 1 == kStages ? 0 : free + 1;
  }
}

// Hands out a thread's sums, V neighbours of a row at once: f(row, column, values) with the places in the block's tile.
template <class Gemm, class F>
__device__ __forceinline__ void for_sums(const SimtSums<Gemm>& sums, F f) {
  constexpr int V = Gemm::kPack;
#pragma unroll
  for (int i = 0; i < Gemm::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Gemm::kColumns; j += V) {
      typename Gemm::T values[V];
#pragma unroll
      for (int e = 0; e < V; ++e) values[e] = sums[i][j + e];
      f(simt_row<Gemm>() + i / V * (4 * V) + i % V, simt_column<Gemm>() + j * 8, values);
    }
  }
}

// `layout`: bit 0: a's values along k lie next to each other; bit 1: b's do.
template <class Gemm, class Epilogue>
__device__ __forceinline__ void gemm_simt(const typename Gemm::T* a, const typename Gemm::T* b,
                                          typename Gemm::T* partial, const GemmWork& work, unsigned layout,
                                          const Epilogue& epilogue) {
  using T = typename Gemm::T;
  constexpr int M = Gemm::kM, N = Gemm::kN, V = Gemm::kPack, kDepth = Gemm::kDepth;
  auto* const stages = dynamic_shared<SimtStage<Gemm>>();

  for_tiles(work, [&](unsigned number, int first, int last, int slot) {
    const GemmTile tile = locate_tile<M, N>(number, work.m, work.n, work.inner);
    const T* const matrix_a = a + tile.outer * work.outer_a + tile.inner * work.inner_a;
    const T* const matrix_b = b + tile.outer * work.outer_b + tile.inner * work.inner_b;
    const auto start = [&](int stage, int step) {
      load_tile<T, M, Gemm::kThreads>(stages[stage].a, matrix_a, work.line_a, layout & 1, work.vector & 1, tile.row,
                                      work.m, step * kDepth, work.k);
      load_tile<T, N, Gemm::kThreads>(stages[stage].b, matrix_b, work.line_b, layout & 2, work.vector & 2, tile.column,
                                      work.n, step * kDepth, work.k);
    };
    SimtSums<Gemm> sums;
    simt_loop<Gemm>(sums, stages, first, last, start);
    for_sums<Gemm>(sums, [&](int row, int column, const auto& values) {
      if (slot >= 0) {
        Pack<T, V> pack;
#pragma unroll
        for (int e = 0; e < V; ++e) pack.values[e] = values[e];
        store(partial + static_cast<long long>(slot) * (M * N) + row * N + column, pack);
      } else if (tile.row + row < work.m && tile.column + column < work.n) {
        epilogue(place_of(tile, row, column, work.m, work.n, work.inner, V), values);
      }
    });
    __syncthreads();  // the next tile's copies go where this one's last were
  });
}

}  // namespace pf
