// Tiles of matrices in shared memory, and how a warp reads the fragments of mma.sync from them.
//
// One instruction takes 32 bytes along k from each operand: 16 values of 16 bits, or 8 of float, which are rounded to
// tf32. So a tile is seen as chunks of 16 bytes, and one step along k is two of them.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// d += a · b for one 16×8 tile of d. In the registers of lane l, with g = l / 4 and t = l % 4, d has the elements
// (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ __forceinline__ void mma(float16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_f16_16x8x16(d, a, b);
}
__device__ __forceinline__ void mma(bfloat16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_bf16_16x8x16(d, a, b);
}
__device__ __forceinline__ void mma(float, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_tf32_16x8x8(d, a, b);
}

// Values along k of one instruction.
template <class T>
constexpr int kMmaDepth = 32 / sizeof(T);

// ROWS (along m or n) × DEPTH (along k) values in shared memory, of which the ones along k (K_INNER) or along the rows
// lie next to each other, in lines. The chunks of a line change places (an exclusive or with bits of the line's number),
// so that eight lanes that read the same chunk of eight lines, as ldmatrix does, reach all 32 banks.
template <class T_, int ROWS, int DEPTH, bool K_INNER>
struct SharedTile {
  using T = T_;
  static constexpr int kRows = ROWS, kDepth = DEPTH;
  static constexpr bool kKInner = K_INNER;
  static constexpr int kLines = K_INNER ? ROWS : DEPTH, kLength = K_INNER ? DEPTH : ROWS;
  static constexpr int kPack = 16 / sizeof(T);  // values of a chunk
  static constexpr int kChunks = kLength / kPack, kLineBytes = kLength * static_cast<int>(sizeof(T));
  static constexpr int kBytes = kLines * kLineBytes;
  // ldmatrix cannot transpose values of 4 bytes: there the lanes read one value each, four lines at a time.
  static constexpr bool kByValue = sizeof(T) == 4 && !K_INNER;
  // The number of lines after which the pattern of places repeats.
  static constexpr int kPeriod = kByValue ? 4 : 8;
  static_assert(kChunks == 4 || kChunks == 8 || kChunks == 16 || kChunks == 32, "a line is 64 to 512 bytes");
  static_assert(!kByValue || kChunks >= 8, "the pattern of tf32 tiles needs 128 bytes");

  __device__ __forceinline__ static int pattern(int line) {
    return kByValue ? (line & 3) << 1 : kChunks == 4 ? line >> 1 & 3 : line & 7;
  }
  // Where in the tile a chunk is, in bytes.
  __device__ __forceinline__ static int place(int line, int chunk) {
    return line * kLineBytes + ((chunk ^ pattern(line)) << 4);
  }
};

// Reads a warp's fragments of the operand on the left (LEFT: 16 rows each) or on the right (two of 8 rows at once)
// from a tile. The constructor does the arithmetic: after it, a fragment's place is one exclusive or and additions of
// constants.
template <class Tile, bool LEFT>
class FragmentReader {
 public:
  using T = typename Tile::T;

  // `row`: the warp's first one in the tile, a multiple of the (power of two) number of rows that the warp reads.
  __device__ __forceinline__ explicit FragmentReader(int row) {
    const int lane = static_cast<int>(threadIdx.x) % 32, eighth = lane / 8, r = lane % 8;
    if constexpr (Tile::kByValue) {
      base_ = Tile::place(lane % 4, row / 4 + lane / 16) + lane / 4 % 4 * 4;
    } else if constexpr (Tile::kKInner) {
      // The four matrices in the order of the registers: rows before chunks on the left, chunks before rows on the right.
      const int further = LEFT ? eighth % 2 : eighth / 2, chunk = LEFT ? eighth / 2 : eighth % 2;
      base_ = Tile::place(row + further * 8 + r, chunk);
    } else {
      const int deeper = LEFT ? eighth / 2 : eighth % 2, chunk = LEFT ? eighth % 2 : eighth / 2;
      base_ = Tile::place(deeper * 8 + r, row / Tile::kPack + chunk);
    }
  }

  // Rows 16·i … 16·i+15 after the warp's first one, at step `k` of the tile. On the left these are the four registers
  // of a; on the right, the two of b for the first eight rows and the two for the others.
  __device__ __forceinline__ void load(unsigned (&d)[4], const unsigned char* tile, int i, int k) const {
    if constexpr (Tile::kByValue) {
      constexpr int kDeeper = 4 * Tile::kLineBytes;
      const unsigned char* const at = tile + k * 2 * kDeeper;
      const int near = base_ ^ (i * 64), far = near ^ 32;  // eight rows on
      d[0] = tf32(at + near);
      d[LEFT ? 1 : 2] = tf32(at + far);
      d[LEFT ? 2 : 1] = tf32(at + near + kDeeper);
      d[3] = tf32(at + far + kDeeper);
    } else if constexpr (Tile::kKInner) {
      load_matrices(d, tile + (base_ ^ (k * 32)) + i * 16 * Tile::kLineBytes);
      if constexpr (sizeof(T) == 4) {
#pragma unroll
        for (int j = 0; j < 4; ++j) d[j] = to_tf32(__uint_as_float(d[j]));
      }
    } else {
      load_matrices_transposed(d, tile + (base_ ^ (i * 32)) + k * 16 * Tile::kLineBytes);
    }
  }

 private:
  __device__ __forceinline__ static unsigned tf32(const unsigned char* at) {
    return to_tf32(*reinterpret_cast<const float*>(at));
  }
  int base_;
};

// Which part of a block's tile is whose: WARPS_M × WARPS_N warps, each with the 16×8 tiles of its part in registers.
template <int M, int N, int WARPS_M, int WARPS_N>
struct WarpGrid {
  static constexpr int kM = M, kN = N, kThreads = WARPS_M * WARPS_N * 32;
  static constexpr int kWarpM = M / WARPS_M, kWarpN = N / WARPS_N;
  static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "fragments are 16 × 16");
  static_assert((kWarpM & (kWarpM - 1)) == 0 && (kWarpN & (kWarpN - 1)) == 0, "see FragmentReader");
  __device__ __forceinline__ static int row() { return static_cast<int>(threadIdx.x) / 32 / WARPS_N * kWarpM; }
  __device__ __forceinline__ static int column() { return static_cast<int>(threadIdx.x) / 32 % WARPS_N * kWarpN; }
};

// A warp's part of the product.
template <class Grid>
struct Accumulators {
  float values[Grid::kTilesM][Grid::kTilesN][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < Grid::kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < Grid::kTilesN; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) values[i][j][e] = 0;
      }
    }
  }
};

// A warp's fragments of one step along k.
template <class Grid, class T>
struct Fragments {
  unsigned left[Grid::kTilesM][4], right[Grid::kTilesN / 2][4];

  template <class ReaderA, class ReaderB>
  __device__ __forceinline__ void load(const ReaderA& a, const ReaderB& b, const unsigned char* tile_a,
                                       const unsigned char* tile_b, int k) {
#pragma unroll
    for (int i = 0; i < Grid::kTilesM; ++i) a.load(left[i], tile_a, i, k);
#pragma unroll
    for (int j = 0; j < Grid::kTilesN / 2; ++j) b.load(right[j], tile_b, j, k);
  }

  __device__ __forceinline__ void multiply(Accumulators<Grid>& d) const {
#pragma unroll
    for (int i = 0; i < Grid::kTilesM; ++i) {
#pragma unroll
      for (int j = 0; j < Grid::kTilesN; ++j) {
        const unsigned b[2] = {right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]};
        mma(T(), d.values[i][j], left[i], b);
      }
    }
  }
};

}  // namespace pf
