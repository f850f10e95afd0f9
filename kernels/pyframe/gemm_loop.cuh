// The main loop of products on tensor cores, for any operands: matrices, or the patches of an image. What the operands
// are is a loader's business; here are the pipeline and the arithmetic.
//
// A loader is an object of each thread:
//
//   struct Loader {
//     using Tile = SharedTile<…>;                               // how its tiles lie in shared memory
//     __device__ void load(unsigned char* tile, int step);      // starts this thread's copies of the tile at `step`
//   };
//
// `load` is called with steps in order and writes all of the tile, zeros where the operand has ended, by copy_async_…
// or plainly. ThreadChunks says which chunks of a tile are a thread's.
#pragma once

#include "pyframe/mma.cuh"

namespace pf {

// The chunks of 16 bytes of a tile that a thread of THREADS copies: always chunk `chunk` of its lines, of which there
// are kCount: line(0), line(1), …
template <class Tile, int THREADS>
struct ThreadChunks {
  static constexpr int kLinesAtOnce = THREADS / Tile::kChunks, kCount = Tile::kLines / kLinesAtOnce;
  static_assert(THREADS % Tile::kChunks == 0 && Tile::kLines % kLinesAtOnce == 0, "each thread has equally many");
  static_assert(kLinesAtOnce % Tile::kPeriod == 0, "the places of a thread's chunks differ by a constant");
  __device__ __forceinline__ static int chunk() { return static_cast<int>(threadIdx.x) % Tile::kChunks; }
  __device__ __forceinline__ static int line(int i) {
    return static_cast<int>(threadIdx.x) / Tile::kChunks + i * kLinesAtOnce;
  }
  // Where chunk i is in the tile, given place(0).
  __device__ __forceinline__ static int place() { return Tile::place(line(0), chunk()); }
  static constexpr int kBetween = kLinesAtOnce * Tile::kLineBytes;  // from place i to place i + 1
};

// What a block of the loop needs: tiles of STAGES steps.
template <class TileA, class TileB, int STAGES>
struct Pipeline {
  static constexpr int kStages = STAGES, kStageBytes = TileA::kBytes + TileB::kBytes;
  static constexpr int kBytes = STAGES * kStageBytes;
  static constexpr int kSteps = TileA::kDepth / kMmaDepth<typename TileA::T>;  // instructions along k of a tile
  static_assert(STAGES >= 2 && kSteps % 2 == 0, "fragments alternate between two sets of registers");
  static_assert(TileA::kDepth == TileB::kDepth, "both operands advance along k together");
};

// d += the product of the tiles at steps first … last-1 (at least one). `memory`: Pipeline::kBytes of shared memory,
// which is free again afterwards. While the tile of one step is multiplied, the next STAGES - 1 are on their way, and
// the fragments of one instruction are read while the one before is computed.
template <class Grid, int STAGES, class LoaderA, class LoaderB>
__device__ __forceinline__ void gemm_loop(Accumulators<Grid>& d, LoaderA& a, LoaderB& b, int first, int last,
                                          unsigned char* memory) {
  using TileA = typename LoaderA::Tile;
  using TileB = typename LoaderB::Tile;
  using T = typename TileA::T;
  using Pipe = Pipeline<TileA, TileB, STAGES>;
  static_assert(TileA::kRows == Grid::kM && TileB::kRows == Grid::kN, "tiles of the grid's size");
  const FragmentReader<TileA, true> read_a(Grid::row());
  const FragmentReader<TileB, false> read_b(Grid::column());

#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) {
    if (first + stage < last) {
      a.load(memory + stage * Pipe::kStageBytes, first + stage);
      b.load(memory + stage * Pipe::kStageBytes + TileA::kBytes, first + stage);
    }
    copy_async_commit();  // also of nothing: the waits count groups
  }
  copy_async_wait<STAGES - 2>();
  __syncthreads();

  Fragments<Grid, T> fragments[2];
  fragments[0].load(read_a, read_b, memory, memory + TileA::kBytes, 0);
  int here = 0;  // the stage that is multiplied
  for (int step = first; step < last; ++step) {
    const unsigned char* tile = memory + here * Pipe::kStageBytes;
    here = here + 1 == STAGES ? 0 : here + 1;
#pragma unroll
    for (int k = 0; k < Pipe::kSteps; ++k) {
      if (k + 1 < Pipe::kSteps) {
        fragments[(k + 1) % 2].load(read_a, read_b, tile, tile + TileA::kBytes, k + 1);
      } else {
        // All threads have read this stage's last fragments, and their copies of the next stage have landed.
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        tile = memory + here * Pipe::kStageBytes;
        if (step + 1 < last) fragments[0].load(read_a, read_b, tile, tile + TileA::kBytes, 0);
      }
      if (k == 0) {
        const int free = here < 2 ? here + STAGES - 2 : here - 2;  // what was multiplied before
        if (step + STAGES - 1 < last) {
          a.load(memory + free * Pipe::kStageBytes, step + STAGES - 1);
          b.load(memory + free * Pipe::kStageBytes + TileA::kBytes, step + STAGES - 1);
        }
        copy_async_commit();
      }
      fragments[k % 2].multiply(d);
    }
  }
}

// Hands out a warp's part of the product row by row, V values next to each other at once: f(row, column, values) with
// the places in the block's tile. Goes through `memory` (kRowsBytes<Grid> bytes of shared memory that nobody else
// uses, and no barrier: each warp has its own), so that neighbouring lanes get neighbouring places.
template <class Grid>
constexpr int kRowsBytes = Grid::kThreads / 32 * 16 * (Grid::kWarpN + 8) * 4;

template <class Grid, int V, class F>
__device__ __forceinline__ void for_rows(const Accumulators<Grid>& d, unsigned char* memory, F f) {
  // 8 more floats to a line: the 8-byte stores of half a warp, four lines of four, reach all 32 banks.
  constexpr int kLine = Grid::kWarpN + 8, kAcross = Grid::kWarpN / V, kDown = 32 / kAcross;
  static_assert(32 % kAcross == 0 && 16 % kDown == 0, "a warp reads whole lines");
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const lines = reinterpret_cast<float*>(memory) + static_cast<int>(threadIdx.x) / 32 * 16 * kLine;
#pragma unroll
  for (int i = 0; i < Grid::kTilesM; ++i) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < Grid::kTilesN; ++j) {
      float* const at = lines + lane / 4 * kLine + j * 8 + lane % 4 * 2;
      const float(&v)[4] = d.values[i][j];
      store(at, Pack<float, 2>{{v[0], v[1]}});
      store(at + 8 * kLine, Pack<float, 2>{{v[2], v[3]}});
    }
    __syncwarp();
#pragma unroll 1  // the other rows' sums fill the registers
    for (int r = 0; r < 16 / kDown; ++r) {
      const int row = r * kDown + lane / kAcross, column = lane % kAcross * V;
      constexpr int kRead = V < 4 ? V : 4;
      float values[V];
#pragma unroll
      for (int e = 0; e < V; e += kRead) {
        const Pack<float, kRead> pack = load<kRead>(lines + row * kLine + column + e);
#pragma unroll
        for (int w = 0; w < kRead; ++w) values[e + w] = pack.values[w];
      }
      f(Grid::row() + i * 16 + row, Grid::column() + column, values);
    }
  }
}

}  // namespace pf
