// Stable sorting of rows of moderate length, and choosing by rank. Longer rows: radix.cu.
//
// Tiles of items (pyframe/keys.cuh) are sorted in shared memory by a bitonic network (K. E. Batcher, "Sorting networks
// and their applications", 1968), then merged two by two, each block its part of the result (O. Green, R. McColl,
// D. A. Bader, "GPU merge path", 2012).
#include "pyframe/keys.cuh"

namespace {

using pf::Item;
using pf::Results;

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
  const auto get = [&](long long row, int j) { return pf::item_of(x[row * n + j], j, descending); };
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

// Merges runs of `run` items, a multiple of 512, two by two; a block makes 1024 items of the m of a row of n values.
// Items go to `out`, or results to values and indices.
template <class U>
__global__ void __launch_bounds__(256)
    merge_runs(const Item<U>* __restrict__ in, Item<U>* __restrict__ out, const U* __restrict__ x,
               U* __restrict__ values, long long* __restrict__ indices, int m, int n, int run, int first, int count) {
  using I = Item<U>;
  const Results<U> results{x, values, indices, n, first, count};
  const int blocks = (m + kMerged - 1) / kMerged;
  const long long row = blockIdx.x / blocks;
  const int start = static_cast<int>(blockIdx.x % blocks) * kMerged, used = min(kMerged, m - start);
  const int pair = static_cast<int>(start - start % (2ll * run)), na = min(run, m - pair), nb = min(run, m - pair - na);
  const I* const a = in + row * m + pair;
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
    if (out) out[row * m + start + k + step] = item;
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
