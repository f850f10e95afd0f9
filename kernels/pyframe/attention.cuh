// What the attention kernels share: heads and their rows, masks, dropout of weights, and tiles of half types in shared
// memory with the fragments of mma.sync.
#pragma once

#include "pyframe/device.cuh"
#include "pyframe/philox.cuh"

namespace pf {

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }

// ---------------------------------------------------------------- heads

// A head's place in the leading dimensions [., n1, n2], of which an operand has strides.
struct HeadIndex {
  int i0, i1, i2;
  __device__ __forceinline__ HeadIndex(int head, int n1, int n2)
      : i0(head / (n1 * n2)), i1(head / n2 % n1), i2(head % n2) {}
  __device__ __forceinline__ long long at(long long s0, long long s1, long long s2) const {
    return i0 * s0 + i1 * s1 + i2 * s2;
  }
};

// The heads whose gradients for keys and values are summed: number `inner` of those that share `outer`. Bit d of
// `summed` says that dimension d of [n0, n1, n2] is summed over.
__device__ __forceinline__ int shared_head(int outer, int inner, int n0, int n1, int n2, int summed) {
  int head = 0, step = 1;
#pragma unroll
  for (int d = 2; d >= 0; --d) {
    const int length = d == 2 ? n2 : d == 1 ? n1 : n0;
    const bool sum = summed >> d & 1;
    head += (sum ? inner : outer) % length * step;
    if (sum) inner /= length;
    else outer /= length;
    step *= length;
  }
  return head;
}

// ---------------------------------------------------------------- masks and dropout

enum MaskKind { kNoMask, kByteMask, kNumberMask };  // bytes: 0 leaves a key out; numbers of type C are added

template <class C>
struct Mask {
  const void* data;
  long long row, column;
  int kind;
  __device__ __forceinline__ void move(long long places) {
    if (kind == kByteMask) data = static_cast<const unsigned char*>(data) + places;
    if (kind == kNumberMask) data = static_cast<const C*>(data) + places;
  }
  __device__ __forceinline__ C at(int query, int key) const {
    const long long place = query * row + key * column;
    if (kind == kNumberMask) return static_cast<const C*>(data)[place];
    return static_cast<const unsigned char*>(data)[place] ? C(0) : -C(infinity());
  }
};

// Weight i, in the order of [heads, queries, keys], is kept where word i of the stream is below the threshold. If
// `stream` is not null, seed and first offset are read there, so that a graph that is replayed draws from others.
struct WeightDropout {
  unsigned long long seed, offset, first;  // first: the number of the head's first weight
  unsigned threshold;
  __device__ __forceinline__ WeightDropout(const unsigned long long* stream, unsigned long long seed_,
                                           unsigned long long offset_, int head, int queries, int keys,
                                           unsigned threshold_)
      : seed(stream ? stream[0] : seed_), offset(stream ? stream[1] + offset_ : offset_),
        first(static_cast<unsigned long long>(head) * queries * keys), threshold(threshold_) {}
  __device__ __forceinline__ static unsigned word(const Words& words, unsigned place) {
    const unsigned low = place & 1 ? words.values[1] : words.values[0];
    const unsigned high = place & 1 ? words.values[3] : words.values[2];
    return place & 2 ? high : low;
  }
  __device__ __forceinline__ bool keeps(unsigned long long weight) const {
    const Words words = philox(seed, offset, (first + weight) / 4);
    return word(words, static_cast<unsigned>(first + weight) & 3) < threshold;
  }
  // For weights `weight` and the next one; most often both are words of one block.
  __device__ __forceinline__ void pair(unsigned long long weight, bool& one, bool& two) const {
    const unsigned long long number = first + weight;
    const unsigned place = static_cast<unsigned>(number) & 3;
    const Words words = philox(seed, offset, number / 4);
    one = word(words, place) < threshold;
    two = place < 3 ? word(words, place + 1) < threshold : keeps(weight + 1);
  }
};

// ---------------------------------------------------------------- tiles of half types

// The largest and the sum over the four lanes that share a row of sums.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// A lane's part of the product of two rows that four lanes share.
template <class T>
__device__ __forceinline__ float quad_product(const T* x, const T* y, int width, bool vector) {
  const int lane = threadIdx.x % 4;
  float sum = 0;
  if (vector) {
    for (int j = lane * 8; j < width; j += 32) {
      const auto a = load<8>(x + j), b = load<8>(y + j);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += widen(a.values[i]) * widen(b.values[i]);
    }
  } else {
    for (int j = lane; j < width; j += 4) sum += widen(x[j]) * widen(y[j]);
  }
  return sum;
}

template <class T>
__device__ __forceinline__ unsigned pack_pair(float low, float high);
template <>
__device__ __forceinline__ unsigned pack_pair<float16>(float low, float high) { return pack_halves(low, high); }
template <>
__device__ __forceinline__ unsigned pack_pair<bfloat16>(float low, float high) { return pack_bfloats(low, high); }

template <class T>
__device__ __forceinline__ void multiply_add(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <>
__device__ __forceinline__ void multiply_add<float16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_f16_16x8x16(d, a, b);
}
template <>
__device__ __forceinline__ void multiply_add<bfloat16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_bf16_16x8x16(d, a, b);
}

// Rows of D values in shared memory, in chunks of 16 bytes that are permuted so that the eight rows of a matrix which
// ldmatrix reads at once lie in different banks.
template <class T, int D>
struct Tile {
  T* data;
  static_assert(D % 32 == 0, "whole chunks, and at least four");

  __device__ __forceinline__ T* chunk(int row, int number) const {
    const int swizzled = number ^ (D % 64 == 0 ? row & 7 : row >> 1 & 3);
    return data + row * D + swizzled * 8;
  }
  // The same for chunk 2 · step + odd, with little to compute per step.
  __device__ __forceinline__ T* chunk(int row, int odd, int step) const {
    constexpr int kSwizzled = D % 64 == 0 ? 7 : 3;
    const int first = row * D + (odd ^ (D % 64 == 0 ? row & 7 : row >> 1 & 3)) * 8;
    return data + (first ^ (2 * step & kSwizzled) * 8) + (2 * step & ~kSwizzled) * 8;
  }

  // Starts to copy ROWS rows of `width` values; rows from `count` on and columns from `width` on become zeros.
  // vector: addresses and width allow 16 bytes at a time; VECTOR: it is known that they do.
  template <int ROWS, int THREADS, bool VECTOR>
  __device__ __forceinline__ void load(const T* rows, long long stride, int count, int width, bool vector) const {
    constexpr int CHUNKS = D / 8;
    static_assert(ROWS * CHUNKS % THREADS == 0, "every thread copies as much");
#pragma unroll 1  // addresses of several would stay in registers
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
      const int row = i / CHUNKS, column = i % CHUNKS * 8;
      T* const target = chunk(row, i % CHUNKS);
      if (VECTOR || vector) {
        const bool there = row < count && column < width;
        copy_async_16(target, there ? rows + row * stride + column : rows, there ? 16 : 0);
      } else {
        Pack<T, 8> pack;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          pack.values[j] = row < count && column + j < width ? rows[row * stride + column + j] : T{0};
        }
        store(target, pack);
      }
    }
  }

  // The 16×16 values from (row, 16 · step) on as the left operand of mma.
  __device__ __forceinline__ void left(unsigned (&a)[4], int row, int step) const {
    const int lane = threadIdx.x % 32;
    load_matrices(a, chunk(row + lane % 16, lane / 16, step));
  }
  // Rows row … row + 15 as columns of two right operands, with 16 · step … as their depth: for products with the
  // transposed tile. The operands are b[0 … 1] and b[2 … 3].
  __device__ __forceinline__ void right_transposed(unsigned (&b)[4], int row, int step) const {
    const int lane = threadIdx.x % 32;
    load_matrices(b, chunk(row + lane % 8 + lane / 16 * 8, lane / 8 % 2, step));
  }
  // Rows row … row + 15 as depth and columns 16 · step … as columns of two right operands.
  __device__ __forceinline__ void right(unsigned (&b)[4], int row, int step) const {
    const int lane = threadIdx.x % 32;
    load_matrices_transposed(b, chunk(row + lane % 16, lane / 16, step));
  }
};

// sums[t][n] += rows (from `row` on, 16 per t) of x times rows of y (from `first` on, 8 per n): x · yᵀ.
// UNROLL: steps of 16 features that the compiler may overlap; 0: all.
template <int UNROLL = 0, class T, int D, int TILES, int COLUMNS>
__device__ __forceinline__ void add_products(float (&sums)[TILES][COLUMNS][4], const Tile<T, D>& x, int row,
                                             const Tile<T, D>& y, int first = 0) {
#pragma unroll(UNROLL ? UNROLL : D / 16)
  for (int step = 0; step < D / 16; ++step) {
    unsigned a[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; ++t) x.left(a[t], row + 16 * t, step);
#pragma unroll
    for (int n = 0; n < COLUMNS; n += 2) {
      unsigned b[4];
      y.right_transposed(b, first + 8 * n, step);
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        multiply_add<T>(sums[t][n], a[t], {b[0], b[1]});
        multiply_add<T>(sums[t][n + 1], a[t], {b[2], b[3]});
      }
    }
  }
}

// sums[t] += weights[t] (rounded to T) times the rows of y: weights · y, for columns 16 · first … of y.
template <class T, int D, int TILES, int DEPTH, int COLUMNS>
__device__ __forceinline__ void add_weighted(float (&sums)[TILES][COLUMNS][4], const float (&weights)[TILES][DEPTH][4],
                                             const Tile<T, D>& y, int first = 0) {
#pragma unroll
  for (int k = 0; k < DEPTH; k += 2) {
    unsigned a[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* const pair = &weights[t][k + i / 2][i % 2 * 2];
        a[t][i] = pack_pair<T>(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int n = 0; n < COLUMNS; n += 2) {
      unsigned b[4];
      y.right(b, 8 * k, first + n / 2);
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
        multiply_add<T>(sums[t][n], a[t], {b[0], b[1]});
        multiply_add<T>(sums[t][n + 1], a[t], {b[2], b[3]});
      }
    }
  }
}

template <int TILES, int COLUMNS>
__device__ __forceinline__ void scale_sums(float (&sums)[TILES][COLUMNS][4], float factor) {
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[t][n][i] *= factor;
    }
  }
}

// Writes the warp's sums, rows `row` … of a tile that no other warp reads any more, to memory: through shared memory,
// so that lanes write 16 bytes next to each other.
template <bool VECTOR, class T, int D, int TILES, int COLUMNS>
__device__ __forceinline__ void store_rows(const float (&sums)[TILES][COLUMNS][4], const Tile<T, D>& tile, int row,
                                           T* rows, long long stride, int count, int width, bool vector) {
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
#pragma unroll
    for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        T* const at = tile.chunk(row + 16 * t + 8 * half + lane / 4, n) + lane % 4 * 2;
        *reinterpret_cast<unsigned*>(at) = pack_pair<T>(sums[t][n][2 * half], sums[t][n][2 * half + 1]);
      }
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * TILES * COLUMNS; i += 32) {
    const int r = i / COLUMNS, column = i % COLUMNS * 8;
    if (row + r >= count || column >= width) continue;
    const auto pack = pf::load<8>(tile.chunk(row + r, i % COLUMNS));
    T* const target = rows + (row + r) * stride + column;
    if (VECTOR || vector) {
      store(target, pack);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (column + j < width) target[j] = pack.values[j];
      }
    }
  }
}

}  // namespace pf
