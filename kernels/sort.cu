// Stable sorting of rows, and choosing by rank.
//
// A value becomes an unsigned key that is in order where values are (NaN the largest, -0 equal to 0; turned over where
// the largest comes first), and key and position together an item. No two items of a row are equal, so any way of
// sorting gives the stable order. Tiles are sorted in shared memory by a bitonic network (K. E. Batcher, "Sorting
// networks and their applications", 1968), then merged two by two, each block its part of the result (O. Green,
// R. McColl, D. A. Bader, "GPU merge path", 2012).
#include "pyframe/device.cuh"

namespace {

constexpr unsigned kNowhere = 0xffffffffu;  // the position of an item that only fills up a tile; the key is as large

// Key and position of values of up to 32 bits, in one number.
struct Narrow32 {
  unsigned long long bits;
  __device__ __forceinline__ static Narrow32 of(unsigned key, unsigned position) {
    return {static_cast<unsigned long long>(key) << 32 | position};
  }
  __device__ __forceinline__ static Narrow32 filler() { return of(0xffffffffu, kNowhere); }
  __device__ __forceinline__ unsigned position() const { return static_cast<unsigned>(bits); }
  __device__ __forceinline__ bool has_largest_key() const { return bits >> 32 == 0xffffffffu; }
  __device__ __forceinline__ bool operator<(Narrow32 other) const { return bits < other.bits; }
};

// The same of 64 bits.
struct alignas(16) Wide64 {
  unsigned long long key, where;
  __device__ __forceinline__ static Wide64 of(unsigned long long key, unsigned position) { return {key, position}; }
  __device__ __forceinline__ static Wide64 filler() { return of(~0ull, kNowhere); }
  __device__ __forceinline__ unsigned position() const { return static_cast<unsigned>(where); }
  __device__ __forceinline__ bool has_largest_key() const { return key == ~0ull; }
  __device__ __forceinline__ bool operator<(Wide64 other) const {
    return key < other.key || (key == other.key && where < other.where);
  }
};

__device__ __forceinline__ unsigned key_of(int value) { return static_cast<unsigned>(value) ^ 0x80000000u; }
__device__ __forceinline__ unsigned long long key_of(long long value) {
  return static_cast<unsigned long long>(value) ^ 0x8000000000000000ull;
}
__device__ __forceinline__ unsigned key_of(float value) {
  if (value != value) return 0xffffffffu;
  const unsigned bits = value == 0 ? 0 : __float_as_uint(value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long key_of(double value) {
  if (value != value) return ~0ull;
  const auto bits = value == 0 ? 0ull : static_cast<unsigned long long>(__double_as_longlong(value));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}
__device__ __forceinline__ unsigned key_of(signed char value) { return key_of(static_cast<int>(value)); }
__device__ __forceinline__ unsigned key_of(unsigned char value) { return value; }
__device__ __forceinline__ unsigned key_of(short value) { return key_of(static_cast<int>(value)); }
__device__ __forceinline__ unsigned key_of(pf::float16 value) { return key_of(pf::widen(value)); }
__device__ __forceinline__ unsigned key_of(pf::bfloat16 value) { return key_of(pf::widen(value)); }

// Items for values of U bytes.
template <int BYTES>
struct ItemOf {
  using type = Narrow32;
};
template <>
struct ItemOf<8> {
  using type = Wide64;
};
template <class U>
using Item = typename ItemOf<sizeof(U)>::type;

// Where an item of a rank in its row goes: to values and indices, if the rank is one of `count` from `first` on.
// Values are moved as units U of their size; `values` may be null.
template <class U>
struct Results {
  const U* x;
  U* values;
  long long* indices;
  int n, first, count;
  __device__ __forceinline__ void take(long long row, int rank, unsigned position) const {
    if (rank < first || rank >= first + count) return;
    const long long at = row * count + (rank - first);
    if (values) values[at] = x[row * n + position];
    if (indices) indices[at] = position;
  }
};

// Sorts each `width` neighbouring items of a tile, a power of two.
template <class I>
__device__ void sort_in_tile(I* items, int tile, int width) {
  for (int size = 2; size <= width; size *= 2) {
    for (int distance = size / 2; distance > 0; distance /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < tile / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = 2 * pair - (pair & (distance - 1));
        // The first step of each size compares from both ends inwards, so that all runs ascend.
        const int high = distance == size / 2 ? (low & ~(size - 1)) + size - 1 - (low & (size - 1)) : low + distance;
        const I a = items[low], b = items[high];
        if (b < a) {
          items[low] = b;
          items[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

// Sorts the tiles of a block and hands over the first `keep` of each: as items, `keep` to a tile, or as results. A tile
// has one part of a row, or `width` < tile items of each of several rows.
template <class U, class Get>
__device__ void sort_block(Get get, Item<U>* out, const Results<U>& results, long long rows, int n, int tile, int width,
                           int keep) {
  auto* const items = pf::dynamic_shared<Item<U>>();
  const int parts = width < tile ? 1 : (n + tile - 1) / tile, together = tile / width;
  const long long row = static_cast<long long>(blockIdx.x) / parts * together;
  const int part = static_cast<int>(blockIdx.x % parts), start = part * tile;
  for (int i = static_cast<int>(threadIdx.x); i < tile; i += static_cast<int>(blockDim.x)) {
    const int j = start + i % width;
    items[i] = j < n && row + i / width < rows ? get(row + i / width, j) : Item<U>::filler();
  }
  sort_in_tile(items, tile, width);
  for (int i = static_cast<int>(threadIdx.x); i < tile; i += static_cast<int>(blockDim.x)) {
    const int rank = i % width;
    const long long mine = row + i / width;
    if (mine >= rows) break;
    if (!out) {
      if (rank < n) results.take(mine, rank, items[i].position());
    } else if (keep < width) {  // a fixed number from every part
      if (rank < keep) out[(mine * parts + part) * keep + rank] = items[i];
    } else if (start + rank < n) {
      out[mine * n + start + rank] = items[i];
    }
  }
}

}  // namespace

// Sorts the tiles of x, of values T and units U of the same size. Items go to `out`, or results to values and indices.
template <class T, class U>
__global__ void __launch_bounds__(256)
    sort_values(const T* __restrict__ x, Item<U>* __restrict__ out, U* __restrict__ values,
                long long* __restrict__ indices, long long rows, int n, int tile, int width, int keep, int first,
                int count, int descending) {
  const Results<U> results{reinterpret_cast<const U*>(x), values, indices, n, first, count};
  const auto get = [&](long long row, int j) {
    const auto key = key_of(x[row * n + j]);
    return Item<U>::of(descending ? ~key : key, static_cast<unsigned>(j));
  };
  sort_block<U>(get, out, results, rows, n, tile, width, keep);
}

// The same of items, `m` of them to a row of n values.
template <class U>
__global__ void __launch_bounds__(256)
    sort_items(const Item<U>* __restrict__ in, const U* __restrict__ x, Item<U>* __restrict__ out,
               U* __restrict__ values, long long* __restrict__ indices, long long rows, int m, int n, int tile,
               int width, int keep, int first, int count) {
  const Results<U> results{x, values, indices, n, first, count};
  sort_block<U>([&](long long row, int j) { return in[row * m + j]; }, out, results, rows, m, tile, width, keep);
}

namespace {

constexpr int kMerged = 1024;  // items that a block of 256 threads merges

template <class I>
struct MergeStorage {
  I items[kMerged];
  int from[2];
};

// How many of the first `k` merged items come from a.
template <class I>
__device__ __forceinline__ int merged_from(const I* a, int na, const I* b, int nb, int k) {
  int low = max(0, k - nb), high = min(k, na);
  while (low < high) {
    const int middle = (low + high) / 2;
    if (a[middle] < b[k - 1 - middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace

// Merges runs of `run` items, a multiple of 512, two by two; a block makes 1024 items of a row. Items go to `out`, or
// results to values and indices.
template <class U>
__global__ void __launch_bounds__(256)
    merge_runs(const Item<U>* __restrict__ in, Item<U>* __restrict__ out, const U* __restrict__ x,
               U* __restrict__ values, long long* __restrict__ indices, int n, int run, int first, int count) {
  using I = Item<U>;
  const Results<U> results{x, values, indices, n, first, count};
  const int blocks = (n + kMerged - 1) / kMerged;
  const long long row = blockIdx.x / blocks;
  const int start = static_cast<int>(blockIdx.x % blocks) * kMerged, used = min(kMerged, n - start);
  const int pair = static_cast<int>(start - start % (2ll * run)), na = min(run, n - pair), nb = min(run, n - pair - na);
  const I* const a = in + row * n + pair;
  const I* const b = a + na;
  auto& storage = pf::shared<MergeStorage<I>>();
  const int thread = static_cast<int>(threadIdx.x);
  // Two warps look for the ends of this block's parts of the runs.
  if (thread % 32 == 0 && thread < 64) {
    storage.from[thread / 32] = merged_from(a, na, b, nb, start - pair + (thread ? used : 0));
  }
  __syncthreads();
  const int from_a = storage.from[0], from_b = start - pair - from_a, ma = storage.from[1] - from_a, mb = used - ma;
  for (int i = thread; i < used; i += 256) storage.items[i] = i < ma ? a[from_a + i] : b[from_b + i - ma];
  __syncthreads();
  constexpr int kEach = kMerged / 256;
  const I* const left = storage.items;
  const I* const right = storage.items + ma;
  const int k = min(thread * kEach, used);
  int i = merged_from(left, ma, right, mb, k), j = k - i;
#pragma unroll
  for (int step = 0; step < kEach; ++step) {
    if (k + step >= used) break;
    const I item = j >= mb || (i < ma && left[i] < right[j]) ? left[i++] : right[j++];
    if (out) out[row * n + start + k + step] = item;
    else results.take(row, start + k + step, item.position());
  }
}

// The item of rank `rank` of each row of n sorted items, or the first NaN where there is one: a thread per row.
template <class U>
__global__ void __launch_bounds__(256)
    pick_rank(const Item<U>* __restrict__ in, const U* __restrict__ x, U* __restrict__ values,
              long long* __restrict__ indices, long long rows, int n, int rank) {
  const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= rows) return;
  const Item<U>* const items = in + row * n;
  int at = rank;
  if (items[n - 1].has_largest_key()) {  // no other value has the key of NaN
    int low = 0, high = n - 1;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (items[middle].has_largest_key()) high = middle;
      else low = middle + 1;
    }
    at = low;
  }
  const unsigned position = items[at].position();
  values[row] = x[row * n + position];
  indices[row] = position;
}
