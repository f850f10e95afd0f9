// The loops of reductions over any dimensions. A reduction is a type R: a small State, how an element is added to one
// (`add`, with the element's place among those that are reduced), how two are merged, and how one becomes a result.
//
//   struct R {
//     using Item; using Result;   // in memory
//     struct State { ... };       // members of 4 or 8 bytes without padding: states are shuffled and stored as words
//     static State none();
//     static void add(State& state, Item item, long long place, double option);  // see FromFirst
//     static State merge(State a, State b);
//     static void write(State state, Result* out, long long* places, long long at, double factor, double option);
//   };
//
// The order of additions depends on shapes alone: the bits of a result are the same in every run and on every device.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// Where elements are, counted in elements: results are numbered over three dimensions, what each reduces over two.
// Numbers that are divided have 32 bits: a division of 64 is a function call.
struct ReducedShape {
  unsigned results, kept1, kept2;        // results in all; lengths of the last two kept dimensions
  long long stride0, stride1, stride2;   // of the kept dimensions
  long long length, inner;               // elements per result; length of the last reduced dimension
  long long outer_stride, inner_stride;  // of the reduced dimensions
  long long part;                        // elements of a part, the work of one block for a result

  __device__ __forceinline__ long long start(unsigned result) const {
    const unsigned rest = result / kept2;
    return rest / kept1 * stride0 + rest % kept1 * stride1 + result % kept2 * stride2;
  }
  // With two reduced dimensions, `length` is below 2^31.
  __device__ __forceinline__ long long place(long long j) const {
    if (inner == length) return j * inner_stride;
    const unsigned index = static_cast<unsigned>(j), n = static_cast<unsigned>(inner);
    return index / n * outer_stride + index % n * inner_stride;
  }
  __device__ __forceinline__ long long begin() const { return blockIdx.y * part; }
  __device__ __forceinline__ long long end() const { return begin() + part < length ? begin() + part : length; }
};

// The state of lane (lane ^ bit), moved 4 bytes at a time.
template <class State>
__device__ __forceinline__ State shuffle_state(const State& state, int bit) {
  struct Words {
    unsigned words[sizeof(State) / 4];
  };
  static_assert(sizeof(State) % 4 == 0, "whole words");
  Words words = *reinterpret_cast<const Words*>(&state);
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(State) / 4); ++i) {
    words.words[i] = __shfl_xor_sync(kAllLanes, words.words[i], bit);
  }
  return *reinterpret_cast<const State*>(&words);
}

template <class R>
__device__ __forceinline__ typename R::State merge_lanes(typename R::State state) {
#pragma unroll
  for (int bit = 16; bit > 0; bit >>= 1) {
    const typename R::State other = shuffle_state(state, bit);
    state = (threadIdx.x & bit) ? R::merge(other, state) : R::merge(state, other);
  }
  return state;
}

constexpr int kReduceThreads = 512;  // of a block, at most

template <class State>
struct WarpStates {
  State states[kReduceThreads / 32];
};

// Merges the states of threads with the same y; blockDim.x is a multiple of 32. Thread x = 0 gets the result.
template <class R>
__device__ __forceinline__ typename R::State merge_threads(typename R::State state) {
  state = merge_lanes<R>(state);
  if (blockDim.x == 32) return state;
  const int warps = blockDim.x / 32, first = threadIdx.y * warps;
  auto& storage = shared<WarpStates<typename R::State>>();
  if (threadIdx.x % 32 == 0) storage.states[first + threadIdx.x / 32] = state;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < warps; ++warp) state = R::merge(state, storage.states[first + warp]);
  }
  return state;
}

// The results go to `out` (and `places`), or where the work for a result is cut into parts, states to `partial`.
template <class R>
struct Target {
  typename R::Result* out;
  long long* places;
  typename R::State* partial;
  double factor, option;

  __device__ __forceinline__ void put(const typename R::State& state, unsigned result) const {
    if (partial != nullptr) {
      partial[static_cast<long long>(result) * gridDim.y + blockIdx.y] = state;
    } else {
      R::write(state, out, places, result, factor, option);
    }
  }
};

// Whether `add` of R gets the first of a result's elements as its option.
template <class R>
struct FromFirst {
  static constexpr bool value = false;
};

template <class R>
__device__ __forceinline__ double add_option(const typename R::Item* elements, const Target<R>& target,
                                             const ReducedShape& shape) {
  return FromFirst<R>::value && shape.length > 0 ? static_cast<double>(widen(*elements)) : target.option;
}

// Elements of a result that lie next to each other: blockDim.x threads (a warp or more) per result, blockDim.y results
// per block. With `packed`, 16 bytes at once, into several states, whose updates do not wait for each other.
template <class R>
__device__ __forceinline__ void reduce_rows(const typename R::Item* x, const Target<R>& target,
                                            const ReducedShape& shape, int packed) {
  using State = typename R::State;
  using Item = typename R::Item;
  constexpr int V = kPack<Item>, kMost = sizeof(State) <= 8 ? 4 : 2, kStates = V < kMost ? V : kMost;
  constexpr int kPacks = V <= 4 ? 4 : 2;  // in flight
  const unsigned result = blockIdx.x * blockDim.y + threadIdx.y;
  State state = R::none();
  if (result < shape.results) {
    const Item* const row = x + shape.start(result);
    const long long end = shape.end();
    const double option = add_option(row, target, shape);
    if (packed) {
      State states[kStates];
#pragma unroll
      for (int i = 0; i < kStates; ++i) states[i] = R::none();
#pragma unroll kPacks
      for (long long j = shape.begin() + threadIdx.x * V; j + V <= end; j += blockDim.x * V) {
        const Pack<Item, V> pack = load<V>(row + shape.place(j));
#pragma unroll
        for (int i = 0; i < V; ++i) R::add(states[i % kStates], pack.values[i], j + i, option);
      }
      state = states[0];
#pragma unroll
      for (int i = 1; i < kStates; ++i) state = R::merge(state, states[i]);
      const long long last = end - (end - shape.begin()) % V + threadIdx.x;  // fewer than V are left
      if (last < end) R::add(state, row[shape.place(last)], last, option);
    } else {
#pragma unroll 4
      for (long long j = shape.begin() + threadIdx.x; j < end; j += blockDim.x) {
        R::add(state, row[shape.place(j)], j, option);
      }
    }
  }
  state = merge_threads<R>(state);
  if (threadIdx.x == 0 && result < shape.results) target.put(state, result);
}

template <class State>
struct ColumnStates {
  State states[kReduceThreads / 32][32];
};

// Results whose elements lie next to each other's: a thread per result (32 along x, so that reads are coalesced) and
// share of its elements (along y).
template <class R>
__device__ __forceinline__ void reduce_columns(const typename R::Item* x, const Target<R>& target,
                                               const ReducedShape& shape) {
  using State = typename R::State;
  const unsigned result = blockIdx.x * 32 + threadIdx.x;
  State state = R::none();
  if (result < shape.results) {
    const typename R::Item* const column = x + shape.start(result);
    const long long end = shape.end();
    const double option = add_option(column, target, shape);
#pragma unroll 4
    for (long long j = shape.begin() + threadIdx.y; j < end; j += blockDim.y) {
      R::add(state, column[shape.place(j)], j, option);
    }
  }
  auto& storage = shared<ColumnStates<State>>();
  if (blockDim.y > 1) {
    if (threadIdx.y > 0) storage.states[threadIdx.y][threadIdx.x] = state;
    __syncthreads();
  }
  if (threadIdx.y == 0 && result < shape.results) {
    for (int y = 1; y < static_cast<int>(blockDim.y); ++y) {
      state = R::merge(state, storage.states[y][threadIdx.x]);
    }
    target.put(state, result);
  }
}

// Merges the parts of each result: a warp per result.
template <class R>
__device__ __forceinline__ void reduce_parts(const typename R::State* partial, const Target<R>& target,
                                             unsigned results, int parts) {
  const unsigned result = blockIdx.x * blockDim.y + threadIdx.y;
  typename R::State state = R::none();
  if (result < results) {
    for (int part = threadIdx.x; part < parts; part += 32) {
      state = R::merge(state, partial[static_cast<long long>(result) * parts + part]);
    }
  }
  state = merge_lanes<R>(state);
  if (threadIdx.x == 0 && result < results) target.put(state, result);
}

}  // namespace pf
