// Scans along a dimension: running sums, products and extrema, and the recurrence behind the gradient of a running
// product.
//
// A line of n values, `inner` apart in memory, is cut into chunks. A first launch, without outputs, writes what each
// chunk combines to; the second one combines the totals of the chunks before its own and goes on from there. Values are
// combined in an order that depends on the sizes alone, so results are the same in every run.
#include "pyframe/device.cuh"

namespace {

// Running sums, or products: a choice at run time, since memory is the cost and it halves the instances.
template <class T>
struct Total {
  using Value = T;
  using State = pf::compute_t<T>;
  int product;
  __device__ __forceinline__ State element(T value, T, long long) const { return pf::widen(value); }
  __device__ __forceinline__ State combine(State a, State b) const { return product ? a * b : a + b; }
  __device__ __forceinline__ State up(State a, int lanes) const { return __shfl_up_sync(pf::kAllLanes, a, lanes); }
  __device__ __forceinline__ T value(State a) const { return pf::narrow<T>(a); }
  __device__ __forceinline__ long long index(State) const { return 0; }
};

template <class C>
struct Found {
  C value;
  long long index;
};

// Running maxima or minima with the index of the last of equal ones; NaN stays.
template <class T>
struct Extremum {
  using Value = T;
  using C = pf::compute_t<T>;
  using State = Found<C>;
  int smallest;
  __device__ __forceinline__ State element(T value, T, long long i) const { return {pf::widen(value), i}; }
  __device__ __forceinline__ State combine(State a, State b) const {
    const bool wins = smallest ? b.value <= a.value : b.value >= a.value;
    return wins || b.value != b.value ? b : a;
  }
  __device__ __forceinline__ State up(State a, int lanes) const {
    return {__shfl_up_sync(pf::kAllLanes, a.value, lanes), __shfl_up_sync(pf::kAllLanes, a.index, lanes)};
  }
  __device__ __forceinline__ T value(State a) const { return pf::narrow<T>(a.value); }
  __device__ __forceinline__ long long index(State a) const { return a.index; }
};

template <class C>
struct Affine {
  C factor, value;
};

// out[i] = value[i] + factor[i] · out[i-1].
template <class T>
struct Recurrence {
  using Value = T;
  using State = Affine<T>;
  int unused;
  __device__ __forceinline__ State element(T value, T factor, long long) const { return {factor, value}; }
  __device__ __forceinline__ State combine(State a, State b) const {
    return {a.factor * b.factor, b.value + b.factor * a.value};
  }
  __device__ __forceinline__ State up(State a, int lanes) const {
    return {__shfl_up_sync(pf::kAllLanes, a.factor, lanes), __shfl_up_sync(pf::kAllLanes, a.value, lanes)};
  }
  __device__ __forceinline__ T value(State a) const { return a.value; }
  __device__ __forceinline__ long long index(State) const { return 0; }
};

template <class State, int GROUP>
struct ScanStorage {
  State warps[GROUP / 32];
};

// What the threads before this one combine to (nothing for the first one) and, as `all`, what all of them do. There is
// no neutral element: threads without a value must be the last ones, and what follows from theirs must not be used.
template <int GROUP, class Kind>
__device__ typename Kind::State before_this_thread(const Kind& kind, typename Kind::State mine,
                                                   typename Kind::State& all) {
  using State = typename Kind::State;
  auto& storage = pf::shared<ScanStorage<State, GROUP>>();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const State other = kind.up(mine, lanes);
    if (lane >= lanes) mine = kind.combine(other, mine);
  }
  if (lane == 31) storage.warps[warp] = mine;
  State before = kind.up(mine, 1);
  __syncthreads();
  all = storage.warps[0];
  State earlier = all;
#pragma unroll
  for (int w = 1; w < GROUP / 32; ++w) {
    if (w == warp) earlier = all;
    all = kind.combine(all, storage.warps[w]);
  }
  __syncthreads();
  if (warp) before = lane ? kind.combine(earlier, before) : earlier;
  return before;
}

template <class State>
struct CarryStorage {
  State carry;
};

// What `count` totals, `lines` apart, combine to.
template <int GROUP, class Kind>
__device__ typename Kind::State combined(const Kind& kind, const typename Kind::State* totals, long long lines,
                                         int count) {
  using State = typename Kind::State;
  if constexpr (GROUP == 1) {
    State carry = totals[0];
    for (int c = 1; c < count; ++c) carry = kind.combine(carry, totals[c * lines]);
    return carry;
  } else {
    const int share = (count + GROUP - 1) / GROUP, first = static_cast<int>(threadIdx.x) * share;
    State mine{}, all;
    for (int c = first; c < min(first + share, count); ++c) {
      mine = c == first ? totals[c * lines] : kind.combine(mine, totals[c * lines]);
    }
    const State before = before_this_thread<GROUP>(kind, mine, all);
    auto& storage = pf::shared<CarryStorage<State>>();
    if (first < count && first + share >= count) storage.carry = first ? kind.combine(before, mine) : mine;
    __syncthreads();
    return storage.carry;
  }
}

}  // namespace

// Grid: lines (GROUP 256: a block per line; GROUP 1: a thread per line, where the next line is next in memory) and
// chunks. Without `y`, only the totals are written. `vector`: four values of a line can be read at once.
template <class Kind, int GROUP>
__global__ void __launch_bounds__(256)
    scan(const typename Kind::Value* __restrict__ x, const typename Kind::Value* __restrict__ factor,
         typename Kind::Value* __restrict__ y, long long* __restrict__ indices,
         typename Kind::State* __restrict__ totals, long long lines, int n, int inner, int chunk, int reverse,
         int choice, int vector) {
  using T = typename Kind::Value;
  using State = typename Kind::State;
  constexpr int V = 4 * sizeof(T) > 16 ? 2 : 4;
  const Kind kind{choice};
  const long long line = GROUP == 1 ? static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x : blockIdx.x;
  if (line >= lines) return;
  const long long outer = line / inner, start = outer * n * inner + (line - outer * inner);
  const auto place = [&](int j) { return start + static_cast<long long>(reverse ? n - 1 - j : j) * inner; };
  const auto element = [&](int j) {
    const long long at = place(j);
    return kind.element(x[at], factor ? factor[at] : T{}, reverse ? n - 1 - j : j);
  };
  const int first = static_cast<int>(blockIdx.y) * chunk, last = first + min(chunk, n - first);
  bool carried = y && blockIdx.y;
  State carry{};
  if (carried) carry = combined<GROUP>(kind, totals + line, lines, static_cast<int>(blockIdx.y));
  if constexpr (GROUP == 1) {
#pragma unroll 4
    for (int j = first; j < last; ++j) {
      carry = carried ? kind.combine(carry, element(j)) : element(j);
      carried = true;
      if (!y) continue;
      const long long at = place(j);
      y[at] = kind.value(carry);
      if (indices) indices[at] = kind.index(carry);
    }
  } else {
    for (int tile = first; tile < last; tile += GROUP * V) {
      const int j = tile + static_cast<int>(threadIdx.x) * V, count = min(V, last - j);
      State states[V];
      if (vector && count == V) {
        const long long at = reverse ? place(j + V - 1) : place(j);
        const auto values = pf::load<V>(x + at);
        const auto factors = factor ? pf::load<V>(factor + at) : pf::Pack<T, V>{};
#pragma unroll
        for (int k = 0; k < V; ++k) {
          states[k] = reverse ? kind.element(values.values[V - 1 - k], factors.values[V - 1 - k], n - 1 - j - k)
                              : kind.element(values.values[k], factors.values[k], j + k);
        }
      } else {
#pragma unroll
        for (int k = 0; k < V; ++k) states[k] = k < count ? element(j + k) : State{};
      }
#pragma unroll
      for (int k = 1; k < V; ++k) states[k] = kind.combine(states[k - 1], states[k]);
      State all;
      State before = before_this_thread<GROUP>(kind, states[V - 1], all);
      if (carried) before = threadIdx.x ? kind.combine(carry, before) : carry;
      const bool any = carried || threadIdx.x;
      carry = carried ? kind.combine(carry, all) : all;
      carried = true;
      if (!y) continue;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (any) states[k] = kind.combine(before, states[k]);
      }
      if (vector && count == V) {
        pf::Pack<T, V> values;
#pragma unroll
        for (int k = 0; k < V; ++k) values.values[k] = kind.value(states[reverse ? V - 1 - k : k]);
        pf::store(y + (reverse ? place(j + V - 1) : place(j)), values);
      }
#pragma unroll
      for (int k = 0; k < V; ++k) {
        if (k >= count) break;
        if (!(vector && count == V)) y[place(j + k)] = kind.value(states[k]);
        if (indices) indices[place(j + k)] = kind.index(states[k]);
      }
    }
  }
  if (!y && (GROUP == 1 || threadIdx.x == 0)) totals[blockIdx.y * lines + line] = carry;
}
