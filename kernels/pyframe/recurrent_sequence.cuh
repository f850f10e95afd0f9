// What the kernels share that run a recurrent layer for a whole sequence: a block's weights in shared memory, and the
// product of rows with them.
//
// A block has eight hidden units. Forward, the weights of a unit's gates multiply the state of all units; backward, the
// weights of a unit multiply the gradients of all gates of all units. Either way the weights are lines along k, one for
// each gate and unit: a gate is a part of the result forward, and a part of the sum backward.
#pragma once

#include "pyframe/grid.cuh"
#include "pyframe/mma.cuh"
#include "pyframe/recurrent.cuh"

namespace pf {

constexpr int kLstm = 4, kGru = 3;  // cells, by their gates

constexpr int kUnits = 8;  // of a block: the columns of one instruction of the tensor cores
constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kChunk = 32;  // values along k: every eighth chunk is of the same warp

template <class T>
constexpr bool kHalf = sizeof(T) == 2;

// What a block computes: GATES gates of its units, ROWS rows at a time.
template <class T_, int GATES, int ROWS, bool BACKWARD>
struct Part {
  using T = T_;
  using Computed = compute_t<T>;
  using Values = Pack<T, kPack<T>>;  // 16 bytes along k
  static constexpr bool kBackward = BACKWARD;
  static constexpr int kGates = GATES, kRows = ROWS, kColumns = GATES * kUnits;
  static constexpr int kParts = BACKWARD ? GATES : 1;  // lines of a row of what is multiplied
  static constexpr int kPacks = kChunk / kPack<T>;  // of a chunk
  // Sums of a row, of which tensor cores add up those of all gates themselves.
  static constexpr int kSummed = BACKWARD && kHalf<T> ? 1 : GATES;
  static constexpr int kSums = ROWS * kSummed * kUnits;  // of a warp
  static constexpr int kElements = (ROWS * kUnits + kThreads - 1) / kThreads;  // of a thread: rows and units

  // Where the pack that begins at value `k` of a gate and unit is: for tensor cores in the order of their fragments, a
  // gate and a lane after the other; else all columns, each of a lane, one after the other.
  __device__ __forceinline__ static int place(int gate, int unit, int k) {
    const int chunk = k / kChunk, pack = k % kChunk / kPack<T>;
    if (kHalf<T>) return (chunk * GATES + gate) * 32 + unit * 4 + pack;
    return (chunk * kPacks + pack) * kColumns + gate * kUnits + unit;
  }
  // Where a sum of a warp is. Four gates change places, so that those of four rows are in different banks.
  __device__ __forceinline__ static int sum_at(int row, int gate, int unit) {
    return (row * kSummed + (kSummed == 4 ? gate ^ row % 4 : gate)) * kUnits + unit;
  }
  // The line and unit of a thread's element `q`, among those that are multiplied at once.
  __device__ __forceinline__ static int line(int q) {
    return (static_cast<int>(threadIdx.x) + q * kThreads) / kUnits;
  }
  __device__ __forceinline__ static int unit() { return static_cast<int>(threadIdx.x) % kUnits; }
  // The sum of the warps, for a thread's element.
  __device__ __forceinline__ static Computed product(const Computed* sums, int q, int gate) {
    const Computed* const at = sums + sum_at(line(q), gate, unit());
    Computed sum = at[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += at[warp * kSums];
    return sum;
  }
};

// The elements (a row and a unit each) of a thread, in the rows that are multiplied at once.
template <class Tile>
struct ElementsOf {
  int row[Tile::kElements], unit;  // row -1: there is none

  __device__ __forceinline__ ElementsOf(int rows, int first_row, int hidden) {
    unit = static_cast<int>(blockIdx.x) * kUnits + Tile::unit();
#pragma unroll
    for (int q = 0; q < Tile::kElements; ++q) {
      const int line = Tile::line(q);
      row[q] = line < Tile::kRows && first_row + line < rows && unit < hidden ? first_row + line : -1;
    }
  }
};

// Copies the weights [gates · hidden, hidden] of the block's units: their rows forward, their columns backward. Zeros
// where there are no more.
template <class Tile, class T>
__device__ __forceinline__ void keep(typename Tile::Values* kept, const T* weights, int hidden, int stride,
                                     bool vector) {
  const int packs = stride / kPack<T>, first = static_cast<int>(blockIdx.x) * kUnits;
  for (int i = static_cast<int>(threadIdx.x); i < packs * Tile::kColumns; i += kThreads) {
    // Neighbouring threads read what lies next to each other: along k, or along the units.
    const int column = Tile::kBackward ? i % Tile::kColumns : i / packs;
    const int k = (Tile::kBackward ? i / Tile::kColumns : i % packs) * kPack<T>;
    const int gate = column / kUnits, unit = first + column % kUnits;
    typename Tile::Values values;
#pragma unroll
    for (T& value : values.values) value = narrow<T>(0.0f);
    if (unit < hidden) {
      const T* const of_gate = weights + static_cast<long long>(gate) * hidden * hidden;
      const long long step = Tile::kBackward ? hidden : 1, line = Tile::kBackward ? 1 : hidden;
      const T* const at = of_gate + k * step + unit * line;
      if (!Tile::kBackward && vector && k < hidden) {
        values = load<kPack<T>>(at);
      } else {
#pragma unroll
        for (int e = 0; e < kPack<T>; ++e) {
          if (k + e < hidden) values.values[e] = at[e * step];
        }
      }
    }
    kept[Tile::place(gate, column % kUnits, k)] = values;
  }
}

// A lane's part of 16 rows of a factor of half precision: eight values along k of rows l / 4 and l / 4 + 8. Each of two
// instructions takes four of them: in which order k is gone through does not matter, if both factors agree.
struct HalfRows {
  Pack<unsigned, 4> upper, lower;

  template <class T>
  __device__ __forceinline__ void load(const T* at, int length) {
    upper = *reinterpret_cast<const Pack<unsigned, 4>*>(at);
    lower = *reinterpret_cast<const Pack<unsigned, 4>*>(at + static_cast<long long>(8) * length);
  }
  template <class T>
  __device__ __forceinline__ void multiply(float (&d)[4], const Pack<unsigned, 4>& b) const {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const unsigned left[4] = {upper.values[i], lower.values[i], upper.values[i + 1], lower.values[i + 1]};
      const unsigned right[2] = {b.values[i], b.values[i + 1]};
      mma(T(), d, left, right);
    }
  }
};

// The warp's sums for ROWS rows of `from`, by tensor cores. `from`: forward the state, [rows, stride], backward the
// gradients of the gates, [rows, gates · stride].
template <class Tile, class T>
__device__ __forceinline__ void multiply_half(const T* from, const typename Tile::Values* kept, int stride,
                                              float* sums) {
  constexpr int kTiles = Tile::kRows / 16, kParts = Tile::kParts, kLoads = kTiles * kParts;
  constexpr int kAhead = kLoads == 1 ? 4 : kLoads <= 4 ? 2 : 1;  // chunks on their way at once
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int chunks = stride / kChunk, length = kParts * stride;
  const T* const mine = from + static_cast<long long>(lane / 4) * length + lane % 4 * 8;
  float d[kTiles][Tile::kSummed][4] = {};
  for (int first = warp; first < chunks; first += kAhead * kWarps) {
    HalfRows a[kAhead][kParts][kTiles];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const T* const at = mine + min(first + u * kWarps, chunks - 1) * kChunk;
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          a[u][part][i].load(at + static_cast<long long>(16 * i) * length + part * stride, length);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int chunk = first + u * kWarps;
      if (chunk >= chunks) break;
#pragma unroll
      for (int gate = 0; gate < Tile::kGates; ++gate) {
        const auto* const of_gate = kept + (chunk * Tile::kGates + gate) * 32;
        const auto b = *reinterpret_cast<const Pack<unsigned, 4>*>(of_gate + lane);
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          a[u][Tile::kBackward ? gate : 0][i].template multiply<T>(d[i][Tile::kBackward ? 0 : gate], b);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int gate = 0; gate < Tile::kSummed; ++gate) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* const at = sums + warp * Tile::kSums + Tile::sum_at(16 * i + 8 * half + lane / 4, gate, lane % 4 * 2);
        store(at, Pack<float, 2>{{d[i][gate][2 * half], d[i][gate][2 * half + 1]}});
      }
    }
  }
}

// The same by ordinary arithmetic, a gate and unit for a lane. `stage` is room for the rows; a warp brings only what it
// reads itself, all at once.
template <class Tile, class T>
__device__ __forceinline__ void multiply_full(const T* from, const typename Tile::Values* kept, int stride, T* stage,
                                              T* sums) {
  constexpr int kParts = Tile::kParts, kLines = Tile::kRows * kParts;
  constexpr int kAtOnce = Tile::kRows > 4 ? 1 : 2;  // packs: two would need more than 128 registers
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int k = warp * kChunk; k < stride; k += kWarps * kChunk) {
#pragma unroll 4
    for (int i = lane; i < kLines * Tile::kPacks; i += 32) {
      const int at = i / Tile::kPacks * stride + k + i % Tile::kPacks * kPack<T>;
      copy_async_16(stage + at, from + at);
    }
  }
  copy_async_wait_all();
  __syncwarp();
  const int column = lane < Tile::kColumns ? lane : 0, part = Tile::kBackward ? column / kUnits : 0;
  T sum[Tile::kRows] = {};
  for (int chunk = warp; chunk < stride / kChunk; chunk += kWarps) {
#pragma unroll kAtOnce
    for (int i = 0; i < Tile::kPacks; ++i) {
      const int pack = (i + part) % Tile::kPacks;  // of the gates, each another: they are in different banks
      const auto w = kept[(chunk * Tile::kPacks + pack) * Tile::kColumns + column];
#pragma unroll
      for (int row = 0; row < Tile::kRows; ++row) {
        const auto h = load<kPack<T>>(stage + (row * kParts + part) * stride + chunk * kChunk + pack * kPack<T>);
#pragma unroll
        for (int e = 0; e < kPack<T>; ++e) sum[row] += h.values[e] * w.values[e];
      }
    }
  }
  if (lane >= Tile::kColumns) return;
#pragma unroll
  for (int row = 0; row < Tile::kRows; ++row) {
    sums[warp * Tile::kSums + Tile::sum_at(row, lane / kUnits, lane % kUnits)] = sum[row];
  }
}

// A block's shared memory, and the product of rows with its weights.
template <class Tile>
class KeptWeights {
 public:
  using T = typename Tile::T;
  using Computed = typename Tile::Computed;

  __device__ __forceinline__ KeptWeights(const T* weights, int hidden, int stride, bool vector) : stride_(stride) {
    kept_ = dynamic_shared<typename Tile::Values>();
    stage_ = reinterpret_cast<T*>(kept_ + stride / kPack<T> * Tile::kColumns);
    const int staged = kHalf<T> ? 0 : Tile::kRows * Tile::kParts * stride;
    sums_ = reinterpret_cast<Computed*>(stage_ + staged);
    keep<Tile>(kept_, weights, hidden, stride, vector);
    __syncthreads();
  }
  // Values of a row of what is multiplied.
  __device__ __forceinline__ int length() const { return Tile::kParts * stride_; }
  // The sums of every warp for ROWS rows, of which the first is at `from`; behind a barrier.
  __device__ __forceinline__ const Computed* multiply(const T* from) {
    if constexpr (kHalf<T>) {
      multiply_half<Tile>(from, kept_, stride_, sums_);
    } else {
      multiply_full<Tile>(from, kept_, stride_, stage_, sums_);
    }
    __syncthreads();
    return sums_;
  }

 private:
  typename Tile::Values* kept_;
  T* stage_;
  Computed* sums_;
  int stride_;
};

// Waits until all blocks have arrived so many times, and lets this one's threads see what they wrote before.
__device__ __forceinline__ void wait_for_all(const unsigned* counter, int times) {
  if (threadIdx.x == 0) grid_wait(counter, static_cast<unsigned>(times) * gridDim.x);
  __syncthreads();
}

}  // namespace pf
