// Products of matrices on tensor cores.
#pragma once

#include "pyframe/gemm.cuh"
#include "pyframe/gemm_loop.cuh"

namespace pf {

// Copies tiles of a matrix whose values along k (K_INNER) or along the rows lie next to each other, `stride` from one
// line to the next. `vector`: lines begin at multiples of 16 bytes.
template <class Tile_, int THREADS>
class MatrixLoader {
 public:
  using Tile = Tile_;
  using T = typename Tile::T;
  using Chunks = ThreadChunks<Tile, THREADS>;

  // `row`: the tile's first one, of `rows`; `step`: the first one that is loaded, of `depth` values along k in all.
  __device__ __forceinline__ MatrixLoader(const T* matrix, long long stride, int row, int rows, int step, int depth,
                                          bool vector)
      : between_(Chunks::kLinesAtOnce * static_cast<int>(stride)), vector_(vector) {
    const int chunk = Chunks::chunk() * Tile::kPack, line = Chunks::line(0), k = step * Tile::kDepth;
    if constexpr (Tile::kKInner) {
      source_ = matrix + (row + line) * stride + k + chunk;
      rest_ = rows - row - line;
      along_ = depth - k - chunk;
    } else {
      source_ = matrix + (k + line) * stride + row + chunk;
      rest_ = rows - row - chunk;
      along_ = depth - k - line;
    }
  }

  __device__ __forceinline__ void load(unsigned char* tile, int) {
    unsigned char* target = tile + Chunks::place();
    const T* source = source_;
    // Values of chunk i that exist: of its line, if that exists.
    const auto count = [&](int i) {
      const int length = Tile::kKInner ? along_ : rest_, lines = Tile::kKInner ? rest_ : along_;
      if (i * Chunks::kLinesAtOnce >= lines || length <= 0) return 0;
      return length < Tile::kPack ? length : Tile::kPack;
    };
    if (vector_) {
#pragma unroll
      for (int i = 0; i < Chunks::kCount; ++i) {
        copy_async_16(target, source, count(i) * static_cast<int>(sizeof(T)));
        source += between_, target += Chunks::kBetween;
      }
    } else {
#pragma unroll 1  // what is in flight here would need the registers of the product
      for (int i = 0; i < Chunks::kCount; ++i) {
        const int there = count(i);
        Pack<T, Tile::kPack> pack;
#pragma unroll
        for (int e = 0; e < Tile::kPack; ++e) pack.values[e] = e < there ? source[e] : T();
        store(reinterpret_cast<T*>(target), pack);
        source += between_, target += Chunks::kBetween;
      }
    }
    along_ -= Tile::kDepth;
    source_ = Tile::kKInner ? source_ + Tile::kDepth : source;  // lines along k: it is there already
  }

 private:
  const T* source_;
  int between_;  // from chunk to chunk: 64 lines of 2^24 values at most
  int rest_, along_;  // rows and values along k from the thread's first chunk to the end
  bool vector_;
};

// Tile sizes of a product: the block's, its warps', and how deep the pipeline is. Tiles are 64 bytes deep.
template <class T_, int M, int N, int WARPS_M, int WARPS_N, int STAGES, bool A_K_INNER, bool B_K_INNER>
struct MmaGemm {
  using T = T_;
  using Grid = WarpGrid<M, N, WARPS_M, WARPS_N>;
  static constexpr int kDepth = 64 / sizeof(T), kStages = STAGES, kPack = 16 / sizeof(T);
  using TileA = SharedTile<T, M, kDepth, A_K_INNER>;
  using TileB = SharedTile<T, N, kDepth, B_K_INNER>;
  static_assert(kRowsBytes<Grid> <= Pipeline<TileA, TileB, STAGES>::kBytes, "results go through the pipeline's memory");
};

template <class Gemm, class Epilogue>
__device__ __forceinline__ void gemm_mma(const typename Gemm::T* a, const typename Gemm::T* b, float* partial,
                                         const GemmWork& work, const Epilogue& epilogue) {
  using Grid = typename Gemm::Grid;
  constexpr int M = Grid::kM, N = Grid::kN;
  auto* const memory = dynamic_shared<unsigned char>();
  for_tiles(work, [&](unsigned number, int first, int last, int slot) {
    const GemmTile tile = locate_tile<M, N>(number, work.m, work.n, work.inner);
    MatrixLoader<typename Gemm::TileA, Grid::kThreads> load_a(
        a + tile.outer * work.outer_a + tile.inner * work.inner_a, work.line_a, tile.row, work.m, first, work.k,
        work.vector & 1);
    MatrixLoader<typename Gemm::TileB, Grid::kThreads> load_b(
        b + tile.outer * work.outer_b + tile.inner * work.inner_b, work.line_b, tile.column, work.n, first, work.k,
        work.vector & 2);
    Accumulators<Grid> sums;
    sums.clear();
    gemm_loop<Grid, Gemm::kStages>(sums, load_a, load_b, first, last, memory);
    ColumnSums<float, Gemm::kPack, Epilogue::kSums> columns;
    for_rows<Grid, Gemm::kPack>(sums, memory, [&](int row, int column, const auto& values) {
      if (slot >= 0) {
        float* const at = partial + static_cast<long long>(slot) * (M * N) + row * N + column;
#pragma unroll
        for (int e = 0; e < Gemm::kPack; e += 4) {
          store(at + e, Pack<float, 4>{{values[e], values[e + 1], values[e + 2], values[e + 3]}});
        }
      } else if (tile.row + row < work.m && tile.column + column < work.n) {
        columns.add(epilogue, place_of(tile, row, column, work.m, work.n, work.inner, Gemm::kPack), values);
      }
    });
    if constexpr (Epilogue::kSums) {
      if (slot < 0) {  // a row of parts per warp along m
        constexpr int kAcross = Grid::kWarpN / Gemm::kPack;
        columns.template add_lanes<kAcross>();
        const int lane = static_cast<int>(threadIdx.x) % 32;
        if (lane < kAcross) {
          columns.write(epilogue.column_sums + static_cast<long long>((tile.row + Grid::row()) / Grid::kWarpM) * work.n,
                        tile.column + Grid::column() + lane * Gemm::kPack, work.n);
        }
      }
    }
    __syncthreads();  // the next tile's copies go where the rows were
  });
}

}  // namespace pf
