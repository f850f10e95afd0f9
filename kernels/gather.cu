// Lookups by index and the sums that are their gradients.
//
// Sums are deterministic: entries are sorted by destination first (a stable sort, by the caller), and each destination
// then adds up its run in order. An atomic variant, whose order of additions is not fixed, is there on request.
#include "pyframe/device.cuh"
#include "pyframe/note.cuh"

namespace {

__device__ __forceinline__ long long global_index() {
  return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Quotient and remainder; with 32 bits where that is enough, because 64 take five times as long.
struct Split {
  long long quotient, remainder;
  __device__ __forceinline__ Split(long long a, long long b) {
    if ((a | b) >> 32) {
      quotient = a / b;
      remainder = a - quotient * b;
    } else {
      const unsigned q = static_cast<unsigned>(a) / static_cast<unsigned>(b);
      quotient = q;
      remainder = static_cast<unsigned>(a) - q * static_cast<unsigned>(b);
    }
  }
};

// The first position in sorted[0 … count-1] that is not below `value`.
__device__ __forceinline__ long long lower_bound(const long long* sorted, long long count, long long value) {
  long long low = 0;
  while (count > 0) {
    const long long half = count / 2;
    if (sorted[low + half] < value) {
      low += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return low;
}

}  // namespace

// out[a, i, b] = x[a, index[i], b] of units U (an unsigned type, of one value or several); an index outside of
// [-rows, rows), or [0, rows) if not `negative`, gives zero bits and is noted.
template <class U, class I>
__global__ void __launch_bounds__(256)
    take_rows(const U* __restrict__ x, const I* __restrict__ index, U* __restrict__ out,
              long long* __restrict__ notes, long long total, long long rows, long long entries, long long width,
              int negative) {
  const long long at = global_index();
  if (at >= total) return;
  const Split unit(at, width), entry(unit.quotient, entries);
  const long long given = static_cast<long long>(index[entry.remainder]);
  const long long k = given < 0 && negative ? given + rows : given;
  const bool inside = k >= 0 && k < rows;
  if (!inside) pf::note_out_of_range(notes, given, rows);
  out[at] = inside ? x[(entry.quotient * rows + k) * width + unit.remainder] : U{};
}

// out[a, i, b] = x[a, index[a, i, b], b]; an index outside of [0, rows) gives zero bits and is noted.
template <class U, class I>
__global__ void __launch_bounds__(256)
    take_elements(const U* __restrict__ x, const I* __restrict__ index, U* __restrict__ out,
                  long long* __restrict__ notes, long long total, long long rows, long long entries, long long width) {
  const long long at = global_index();
  if (at >= total) return;
  const Split unit(at, width), entry(unit.quotient, entries);
  const long long k = static_cast<long long>(index[at]);
  const bool inside = k >= 0 && k < rows;
  if (!inside) pf::note_out_of_range(notes, k, rows);
  out[at] = inside ? x[(entry.quotient * rows + k) * width + unit.remainder] : U{};
}

// Notes an index outside of [low, size), for ops that have no kernel of their own to do it.
template <class I>
__global__ void __launch_bounds__(256)
    check_range(const I* __restrict__ index, long long* __restrict__ notes, long long count, long long low,
                long long size) {
  const long long at = global_index();
  if (at >= count) return;
  const long long k = static_cast<long long>(index[at]);
  if (k < low || k >= size) pf::note_out_of_range(notes, k, size);
}

// Adds to, or writes, the sums of rows: out[a, k, b] (+)= Σ src[a, order[j], b] over the j whose sorted[j] is k. A thread
// sums one column of V values of one destination, so nothing is added by two. Rows of the table called `skipped` get
// nothing; with `mean`, the sum is divided by the number of rows.
template <class T, int V>
__global__ void __launch_bounds__(256)
    sum_runs(const T* __restrict__ src, const long long* __restrict__ sorted, const long long* __restrict__ order,
             T* __restrict__ out, long long total, long long rows, long long entries, long long width,
             long long skipped, int mean, int accumulate) {
  using C = pf::compute_t<T>;
  const long long unit = global_index() * V;
  if (unit >= total) return;
  const Split column(unit, width), row(column.quotient, rows);
  const long long k = row.remainder;
  C sums[V];
#pragma unroll
  for (int v = 0; v < V; ++v) sums[v] = 0;
  if (k != skipped) {
    const long long first = lower_bound(sorted, entries, k);
    long long j = first;
    for (; j < entries && sorted[j] == k; ++j) {
      const auto pack = pf::load<V>(src + (row.quotient * entries + order[j]) * width + column.remainder);
#pragma unroll
      for (int v = 0; v < V; ++v) sums[v] += pf::widen(pack.values[v]);
    }
    if (mean && j > first) {
#pragma unroll
      for (int v = 0; v < V; ++v) sums[v] = sums[v] * (C(1) / C(j - first));
    }
  }
  pf::Pack<T, V> result;
  if (accumulate) result = pf::load<V>(out + unit);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    result.values[v] = pf::narrow<T>(accumulate ? C(pf::widen(result.values[v])) + sums[v] : sums[v]);
  }
  pf::store(out + unit, result);
}

// The same sums in any order, into an array that holds zeros or what is added to.
template <class T>
__global__ void __launch_bounds__(256)
    add_rows_atomic(const T* __restrict__ src, const long long* __restrict__ index, T* __restrict__ out,
                    long long total, long long rows, long long entries, long long width) {
  const long long at = global_index();
  if (at >= total) return;
  const Split unit(at, width), entry(unit.quotient, entries);
  long long k = index[entry.remainder];
  if (k < 0) k += rows;
  if (k >= 0 && k < rows) atomicAdd(out + (entry.quotient * rows + k) * width + unit.remainder, src[at]);
}
