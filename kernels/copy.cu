// Transposing copies: where what lies next to each other in the source is far apart in the target, tiles go through
// shared memory, so that both are read and written in whole 32-byte sectors. Copies in the target's order, and between
// dtypes, are pointwise kernels (pyframe/pointwise.cuh).
#include "pyframe/device.cuh"

namespace {

constexpr int kTile = 32, kRows = 8;  // 256 threads, four elements each

// Rows are padded by 4 bytes (8 for 8-byte words), which makes their distance an odd number of banks: a warp that reads
// a column touches 32 different ones.
template <class Word>
struct Tile {
  Word words[kTile][kTile + (sizeof(Word) < 4 ? 4 / sizeof(Word) : 1)];
};

}  // namespace

// y[r, c] = x[r, c] for each batch, where a step along r is 1 in x and `y_step` in y, and along c it is `x_step` and 1.
// Words are the elements' bits.
template <class Word>
__global__ void __launch_bounds__(kTile* kRows)
    transpose(const Word* __restrict__ x, Word* __restrict__ y, long long rows, long long columns, long long x_step,
              long long y_step, long long batch1, long long batch2, long long x_batch0, long long x_batch1,
              long long x_batch2, long long y_batch0, long long y_batch1, long long y_batch2) {
  const unsigned across = static_cast<unsigned>((columns + kTile - 1) / kTile);
  const unsigned down = static_cast<unsigned>((rows + kTile - 1) / kTile);
  const long long batch = blockIdx.x / across / down;
  const long long row = static_cast<long long>(blockIdx.x / across % down) * kTile;
  const long long column = static_cast<long long>(blockIdx.x % across) * kTile;
  const long long b0 = batch / batch2 / batch1, b1 = batch / batch2 % batch1, b2 = batch % batch2;
  x += b0 * x_batch0 + b1 * x_batch1 + b2 * x_batch2;
  y += b0 * y_batch0 + b1 * y_batch1 + b2 * y_batch2;
  auto& tile = pf::shared<Tile<Word>>();
  const int tx = threadIdx.x, ty = threadIdx.y;
#pragma unroll
  for (int k = ty; k < kTile; k += kRows) {
    if (row + tx < rows && column + k < columns) tile.words[k][tx] = x[row + tx + (column + k) * x_step];
  }
  __syncthreads();
#pragma unroll
  for (int k = ty; k < kTile; k += kRows) {
    if (row + k < rows && column + tx < columns) y[(row + k) * y_step + column + tx] = tile.words[tx][k];
  }
}
