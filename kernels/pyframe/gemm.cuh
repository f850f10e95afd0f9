// What all products of matrices share: how the work is cut, where operands and results are, and how a result is written.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// The product of matrices a [m, k] and b [k, n], for every pair of two batch dimensions, of which the inner one has
// `inner` members. Operands advance by `line` from one line of what lies next to each other to the next one.
//
// The result is cut into tiles, each of which takes `steps` steps along k. All steps of all tiles in order are shared
// out among units (blocks) evenly, `per_unit` to each (stream-K: M. Osama et al., "Stream-K: work-centric parallel
// decomposition for dense matrix-matrix multiplication on the GPU", PPoPP 2023); per_unit = steps means a block per
// tile. What a unit has of a tile that is not all its own goes to `partial`, which gemm_reduce adds up in the order of
// the units: the bits are the same in every run.
struct GemmWork {
  int m, n, k, inner;
  long long line_a, outer_a, inner_a, line_b, outer_b, inner_b;
  unsigned tiles, steps, per_unit;
  unsigned vector;  // bit 0: a may be read 16 bytes at a time; bit 1: b
};

// A tile of a result: of which members of the batch, and its first row and column.
struct GemmTile {
  int outer, inner, row, column;
};

template <int M, int N, unsigned DOWN = 8>
__device__ __forceinline__ GemmTile locate_tile(unsigned tile, int m, int n, int inner) {
  const unsigned tiles_m = (m + M - 1) / M, tiles_n = (n + N - 1) / N, each = tiles_m * tiles_n;
  const unsigned batch = tile / each, t = tile - batch * each;
  // Tiles that run at the same time share rows of a and columns of b in the L2 cache: they go down DOWN rows of
  // tiles before they go to the next column.
  const unsigned wide = DOWN * tiles_n, group = t / wide, first = group * DOWN;
  const unsigned high = tiles_m - first < DOWN ? tiles_m - first : DOWN, rest = t - group * wide;
  const unsigned outer = batch / static_cast<unsigned>(inner);
  return {static_cast<int>(outer), static_cast<int>(batch - outer * inner), static_cast<int>((first + rest % high) * M),
          static_cast<int>(rest / high * N)};
}

// Where V neighbours of a result are: their members of the batch, row and first column, how many of them exist, and
// the first one's number in the result.
struct GemmPlace {
  int outer, inner, row, column, count;
  long long index;
};

__device__ __forceinline__ GemmPlace place_of(const GemmTile& tile, int row, int column, int m, int n, int inner,
                                              int v) {
  const int r = tile.row + row, c = tile.column + column;
  const long long batch = static_cast<long long>(tile.outer) * inner + tile.inner;
  return {tile.outer, tile.inner, r, c, n - c < v ? n - c : v, (batch * m + r) * n + c};
}

// V neighbours, 16 bytes at most at a time.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_pieces(const T* address) {
  if constexpr (V <= kPack<T>) {
    return load<V>(address);
  } else {
    Pack<T, V> pack;
#pragma unroll
    for (int i = 0; i < V; i += kPack<T>) {
      const auto piece = load<kPack<T>>(address + i);
#pragma unroll
      for (int e = 0; e < kPack<T>; ++e) pack.values[i + e] = piece.values[e];
    }
    return pack;
  }
}
template <class T, int V>
__device__ __forceinline__ void store_pieces(T* address, const Pack<T, V>& pack) {
  if constexpr (V <= kPack<T>) {
    store(address, pack);
  } else {
#pragma unroll
    for (int i = 0; i < V; i += kPack<T>) {
      Pack<T, kPack<T>> piece;
#pragma unroll
      for (int e = 0; e < kPack<T>; ++e) piece.values[e] = pack.values[i + e];
      store(address + i, piece);
    }
  }
}

// An operand of an epilogue: a matrix, row, column or number per member of the batch, by its strides.
template <class T>
struct GemmOperand {
  const T* data;
  long long outer, inner, row, column;
  bool vector;  // V neighbours may be read at once, wherever V columns begin

  template <int V>
  __device__ __forceinline__ Pack<T, V> take(const GemmPlace& at) const {
    const T* const first = data + at.outer * outer + at.inner * inner + at.row * row + at.column * column;
    if (vector && at.count == V) return load_pieces<V>(first);
    Pack<T, V> pack;
#pragma unroll
    for (int i = 0; i < V; ++i) pack.values[i] = first[(i < at.count ? i : 0) * column];
    return pack;
  }
};

// Writes values at a place of a packed result.
template <class T, int V>
__device__ __forceinline__ void put(T* out, const GemmPlace& at, const Pack<T, V>& pack, bool vector) {
  if (vector && at.count == V) {
    store_pieces(out + at.index, pack);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      if (i < at.count) out[at.index + i] = pack.values[i];
    }
  }
}

// The epilogue of plain products: alpha · (a · b) + beta · c; c may be null. An epilogue is called with the sums of V
// neighbours and their place. pyframe/expr/cuda_epilogue.py writes others from scalar expressions. One with kSums returns
// what it wrote, before rounding: the kernel adds that up along the columns, as the gradient of a bias needs it, and
// leaves rows of parts at `column_sums` [rows of parts, n].
template <class T>
struct Scaled {
  using C = compute_t<T>;
  static constexpr bool kSums = false;
  T* out;
  bool vector;
  GemmOperand<T> c;
  C alpha, beta;

  template <int V>
  __device__ __forceinline__ void operator()(const GemmPlace& at, const C (&sums)[V]) const {
    Pack<T, V> pack;
    if (c.data != nullptr) {
      const Pack<T, V> given = c.template take<V>(at);
#pragma unroll
      for (int i = 0; i < V; ++i) pack.values[i] = narrow<T>(alpha * sums[i] + beta * widen(given.values[i]));
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) pack.values[i] = narrow<T>(alpha * sums[i]);
    }
    put(out, at, pack, vector);
  }
};

// Calls f(tile, first, last, slot) for each tile of this unit and the steps of it; `slot` says where in `partial` the
// unit's part of the tile goes, or is negative if the tile is all its own. A unit has two parts at most: the end or the
// middle of a tile (its slot 0) and the beginning of another (slot 1).
template <class F>
__device__ __forceinline__ void for_tiles(const GemmWork& work, F f) {
  const auto begin = static_cast<unsigned long long>(blockIdx.x) * work.per_unit;
  const auto rest = static_cast<unsigned long long>(work.tiles) * work.steps - begin;
  unsigned left = rest < work.per_unit ? static_cast<unsigned>(rest) : work.per_unit;
  unsigned tile = blockIdx.x, first = 0;
  if (work.per_unit != work.steps) {
    tile = static_cast<unsigned>(begin / work.steps);
    first = static_cast<unsigned>(begin % work.steps);
  }
  while (left > 0) {
    const unsigned count = work.steps - first < left ? work.steps - first : left;
    const bool whole = count == work.steps;
    f(tile, static_cast<int>(first), static_cast<int>(first + count),
      whole ? -1 : static_cast<int>(blockIdx.x * 2 + (first == 0)));
    left -= count;
    ++tile;
    first = 0;
  }
}

// What an epilogue with kSums returned so far for V columns; nothing for others.
template <class C, int V, bool SUMS>
struct ColumnSums {
  C values[V] = {};

  template <class Epilogue>
  __device__ __forceinline__ void add(const Epilogue& epilogue, const GemmPlace& at, const C (&sums)[V]) {
    const Pack<C, V> written = epilogue(at, sums);
#pragma unroll
    for (int e = 0; e < V; ++e) values[e] += written.values[e];
  }
  // Adds what lanes ACROSS, 2 · ACROSS, … further have, all in the same order.
  template <int ACROSS>
  __device__ __forceinline__ void add_lanes() {
#pragma unroll
    for (int far = ACROSS; far < 32; far *= 2) {
#pragma unroll
      for (int e = 0; e < V; ++e) values[e] += __shfl_xor_sync(kAllLanes, values[e], far);
    }
  }
  __device__ __forceinline__ void write(C* row, int column, int n) const {
#pragma unroll
    for (int e = 0; e < V; ++e) {
      if (column + e < n) row[column + e] = values[e];
    }
  }
};
template <class C, int V>
struct ColumnSums<C, V, false> {
  template <class Epilogue>
  __device__ __forceinline__ void add(const Epilogue& epilogue, const GemmPlace& at, const C (&sums)[V]) {
    epilogue(at, sums);
  }
};

constexpr int kReduceThreads = 256;
template <class C, int V>
struct ColumnStorage {
  C values[kReduceThreads][V];
};

// Adds up the parts of a tile that several units have, and finishes it. Block x: the tile; blocks along y and their
// threads share the groups of V neighbours, one block all of them where columns are summed: that fills the tile's row
// `rows` · (number of the tile down) of the parts.
template <int M, int N, int V, class C, class Epilogue>
__device__ __forceinline__ void reduce_tile(const C* partial, int m, int n, int inner, unsigned steps,
                                            unsigned per_unit, const Epilogue& epilogue) {
  static_assert(kReduceThreads % (N / V) == 0, "a thread stays on its columns");
  const auto begin = static_cast<unsigned long long>(blockIdx.x) * steps;
  const auto first = static_cast<unsigned>(begin / per_unit);
  const auto last = static_cast<unsigned>((begin + steps - 1) / per_unit);
  if (first == last) return;  // the unit has finished it
  const GemmTile tile = locate_tile<M, N>(blockIdx.x, m, n, inner);
  ColumnSums<C, V, Epilogue::kSums> columns;
  for (int group = blockIdx.y * blockDim.x + threadIdx.x; group < M * N / V; group += gridDim.y * blockDim.x) {
    const int row = group / (N / V), column = group % (N / V) * V;
    if (tile.row + row >= m || tile.column + column >= n) continue;
    C sums[V];
#pragma unroll
    for (int i = 0; i < V; ++i) sums[i] = 0;
    for (unsigned unit = first; unit <= last; ++unit) {
      const long long slot = unit * 2ll + (static_cast<unsigned long long>(unit) * per_unit <= begin);
      const Pack<C, V> pack = load<V>(partial + slot * (M * N) + group * V);
#pragma unroll
      for (int i = 0; i < V; ++i) sums[i] += pack.values[i];
    }
    columns.add(epilogue, place_of(tile, row, column, m, n, inner, V), sums);
  }
  if constexpr (Epilogue::kSums) {
    constexpr int kAcross = N / V;
    auto& storage = shared<ColumnStorage<C, V>>();
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int e = 0; e < V; ++e) storage.values[thread][e] = columns.values[e];
    __syncthreads();
    if (thread >= kAcross) return;
    for (int other = thread + kAcross; other < kReduceThreads; other += kAcross) {
#pragma unroll
      for (int e = 0; e < V; ++e) columns.values[e] += storage.values[other][e];
    }
    columns.write(epilogue.column_sums + static_cast<long long>(tile.row / M) * epilogue.rows * n,
                  tile.column + thread * V, n);
  }
}

}  // namespace pf
