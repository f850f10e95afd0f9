// Reductions over any dimensions; the loops are in pyframe/reduce.cuh, here is what is computed.
#include "pyframe/reduce.cuh"

namespace {

// The dtype of sums: that of a floating point input, else int64.
template <class T>
struct Total {
  using type = long long;
};
template <>
struct Total<float> {
  using type = float;
};
template <>
struct Total<pf::float16> {
  using type = pf::float16;
};
template <>
struct Total<pf::bfloat16> {
  using type = pf::bfloat16;
};
template <>
struct Total<double> {
  using type = double;
};
template <class T>
using total_t = typename Total<T>::type;

// What values are added up in: float32 for half types, int64 for integers and bool.
template <class T>
using accumulator_t = pf::compute_t<total_t<T>>;

// What no value is above, or below.
template <class A>
__device__ __forceinline__ A highest() { return static_cast<A>(__int_as_float(0x7f800000)); }
template <>
__device__ __forceinline__ long long highest() { return 0x7fffffffffffffffLL; }
template <class A>
__device__ __forceinline__ A lowest() { return -highest<A>(); }
template <>
__device__ __forceinline__ long long lowest() { return -0x7fffffffffffffffLL - 1; }

template <class A>
__device__ __forceinline__ A scaled(A total, double factor) { return total * static_cast<A>(factor); }
__device__ __forceinline__ long long scaled(long long total, double) { return total; }

// 1 / n for a number of elements, by Newton's iteration from an approximation with 22 bits: an exact division is a
// function call on the device.
template <class A>
__device__ __forceinline__ A reciprocal(A n) {
  A inverse = static_cast<A>(__fdividef(1.0f, static_cast<float>(n)));
#pragma unroll
  for (int i = 0; i < (sizeof(A) == 8 ? 2 : 1); ++i) inverse += inverse * (A(1) - n * inverse);
  return inverse;
}

template <class A>
__device__ __forceinline__ A magnitude(A value) { return value < 0 ? -value : value == 0 ? A(0) : value; }

template <class T>
__device__ __forceinline__ accumulator_t<T> accumulated(T item) {
  return static_cast<accumulator_t<T>>(pf::widen(item));
}

// factor · Σ x: sums and means.
template <class T>
struct Sum {
  using Item = T;
  using Result = total_t<T>;
  using A = accumulator_t<T>;
  struct State {
    A total;
  };
  __device__ static State none() { return {A(0)}; }
  __device__ static void add(State& state, T item, long long, double) { state.total += accumulated(item); }
  __device__ static State merge(State a, State b) { return {a.total + b.total}; }
  __device__ static void write(State state, Result* out, long long*, long long at, double factor, double) {
    out[at] = pf::narrow<Result>(scaled(state.total, factor));
  }
};

template <class T>
struct Product {
  using Item = T;
  using Result = total_t<T>;
  using A = accumulator_t<T>;
  struct State {
    A total;
  };
  __device__ static State none() { return {A(1)}; }
  __device__ static void add(State& state, T item, long long, double) { state.total *= accumulated(item); }
  __device__ static State merge(State a, State b) { return {a.total * b.total}; }
  __device__ static void write(State state, Result* out, long long*, long long at, double, double) {
    out[at] = pf::narrow<Result>(state.total);
  }
};

// The largest or smallest x or |x|; NaN where one is NaN.
template <class T, bool LARGEST, bool MAGNITUDE>
struct Extreme {
  using Item = T;
  using Result = T;
  using A = accumulator_t<T>;
  struct State {
    A value;
  };
  __device__ static State none() { return {LARGEST ? lowest<A>() : highest<A>()}; }
  __device__ static void add(State& state, T item, long long, double) {
    const A value = accumulated(item);
    state = merge(state, {MAGNITUDE ? magnitude(value) : value});
  }
  __device__ static State merge(State a, State b) {
    return {(LARGEST ? a.value > b.value : a.value < b.value) || a.value != a.value ? a.value : b.value};
  }
  __device__ static void write(State state, T* out, long long*, long long at, double, double) {
    out[at] = pf::narrow<T>(state.value);
  }
};

// The first place of the largest or smallest element, and its value; NaN counts as the most extreme.
template <class T, bool LARGEST>
struct Place {
  using Item = T;
  using Result = T;
  using A = accumulator_t<T>;
  struct State {
    A value;
    unsigned low, high;  // of the place; all ones: there is none yet
    __device__ long long place() const { return static_cast<long long>(1ull * high << 32 | low); }
  };
  __device__ static State at(A value, long long place) {
    return {value, static_cast<unsigned>(place), static_cast<unsigned>(place >> 32)};
  }
  __device__ static State none() { return at(A(0), -1); }
  __device__ static void add(State& state, T item, long long place, double) {
    state = merge(state, at(accumulated(item), place));
  }
  __device__ static State merge(State a, State b) {
    if (b.place() < 0) return a;
    if (a.place() < 0) return b;
    if (LARGEST ? a.value > b.value : a.value < b.value) return a;
    if (LARGEST ? b.value > a.value : b.value < a.value) return b;
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    if (a_nan != b_nan) return a_nan ? a : b;
    return a.place() < b.place() ? a : b;
  }
  __device__ static void write(State state, T* out, long long* places, long long at, double, double) {
    if (out != nullptr) out[at] = pf::narrow<T>(state.value);
    places[at] = state.place();
  }
};

// factor · Σ (x - mean)², its square root with option = 1. Welford's update and Chan's merge: no difference of large
// sums, and the data are read once. The first element is subtracted from all, which is exact for numbers that are far
// from 0 and close to each other: otherwise the running mean of numbers near 10,000 would be wrong by 5e-4.
template <class T>
struct Variance {
  using Item = T;
  using Result = T;
  using A = accumulator_t<T>;
  struct State {
    A count, mean, squares;
  };
  __device__ static State none() { return {A(0), A(0), A(0)}; }
  __device__ static void add(State& state, T item, long long, double first) {
    const A value = accumulated(item) - static_cast<A>(first), delta = value - state.mean;
    state.count += A(1);
    state.mean += delta * reciprocal(state.count);
    state.squares += delta * (value - state.mean);
  }
  __device__ static State merge(State a, State b) {
    if (b.count == A(0)) return a;
    if (a.count == A(0)) return b;
    const A count = a.count + b.count, delta = b.mean - a.mean, share = b.count * reciprocal(count);
    return {count, a.mean + delta * share, a.squares + b.squares + delta * delta * (a.count * share)};
  }
  __device__ static void write(State state, T* out, long long*, long long at, double factor, double option) {
    const A variance = state.squares * static_cast<A>(factor);
    out[at] = pf::narrow<T>(option == 1.0 ? sqrt(variance) : variance);
  }
};

// log Σ e^x, relative to the maximum so far.
template <class T>
struct LogSumExp {
  using Item = T;
  using Result = T;
  using A = accumulator_t<T>;
  struct State {
    A maximum, sum;
  };
  __device__ static State none() { return {lowest<A>(), A(0)}; }
  __device__ static void add(State& state, T item, long long, double) {
    state = merge(state, {accumulated(item), A(1)});
  }
  // Equal maxima are not subtracted: they may be infinite. Where a maximum is NaN, so is the sum.
  __device__ static State merge(State a, State b) {
    if (a.maximum == b.maximum) return {a.maximum, a.sum + b.sum};
    if (a.maximum > b.maximum) return {a.maximum, a.sum + b.sum * exp(b.maximum - a.maximum)};
    return {b.maximum, b.sum + a.sum * exp(a.maximum - b.maximum)};
  }
  __device__ static void write(State state, T* out, long long*, long long at, double, double) {
    out[at] = pf::narrow<T>(log(state.sum) + state.maximum);
  }
};

// (Σ |x|^p)^(1/p) with p = ORDER, or `option` where ORDER is -1 (p = 0 counts what is not 0).
template <class T, int ORDER>
struct Norm {
  using Item = T;
  using Result = T;
  using A = accumulator_t<T>;
  struct State {
    A total;
  };
  __device__ static State none() { return {A(0)}; }
  __device__ static void add(State& state, T item, long long, double order) {
    const A value = accumulated(item);
    if (ORDER == 1) state.total += magnitude(value);
    if (ORDER == 2) state.total += value * value;
    if (ORDER == -1) state.total += order == 0.0 ? A(value != A(0)) : pow(magnitude(value), static_cast<A>(order));
  }
  __device__ static State merge(State a, State b) { return {a.total + b.total}; }
  __device__ static void write(State state, T* out, long long*, long long at, double, double order) {
    A result = state.total;
    if (ORDER == 2) result = sqrt(result);
    if (ORDER == -1 && order != 0.0) result = pow(result, static_cast<A>(1.0 / order));
    out[at] = pf::narrow<T>(result);
  }
};

// How many elements are not 0.
template <class T>
struct Count {
  using Item = T;
  using Result = long long;
  struct State {
    long long count;
  };
  __device__ static State none() { return {0}; }
  __device__ static void add(State& state, T item, long long, double) { state.count += pf::widen(item) != 0; }
  __device__ static State merge(State a, State b) { return {a.count + b.count}; }
  __device__ static void write(State state, Result* out, long long*, long long at, double, double) {
    out[at] = state.count;
  }
};

// Whether at least `option` elements are not 0: 1 for any, their number for all.
template <class T>
struct AtLeast : Count<T> {
  using Result = bool;
  __device__ static void write(typename Count<T>::State state, bool* out, long long*, long long at, double,
                               double option) {
    out[at] = static_cast<double>(state.count) >= option;
  }
};

}  // namespace

template <class T>
struct pf::FromFirst<Variance<T>> {
  static constexpr bool value = true;
};

// Two blocks per multiprocessor: with fewer registers than that leaves (64), some entries would spill.
template <class R>
__global__ void __launch_bounds__(pf::kReduceThreads, 2)
    rows(const typename R::Item* __restrict__ x, typename R::Result* __restrict__ out, long long* __restrict__ places,
         typename R::State* __restrict__ partial, double factor, double option, unsigned results, unsigned kept1,
         unsigned kept2, long long stride0, long long stride1, long long stride2, long long length, long long inner,
         long long outer_stride, long long inner_stride, long long part, int packed) {
  const pf::ReducedShape shape{results, kept1, kept2, stride0,      stride1,      stride2,
                               length,  inner, outer_stride, inner_stride, part};
  pf::reduce_rows<R>(x, {out, places, partial, factor, option}, shape, packed);
}

template <class R>
__global__ void __launch_bounds__(pf::kReduceThreads, 2)
    columns(const typename R::Item* __restrict__ x, typename R::Result* __restrict__ out,
            long long* __restrict__ places, typename R::State* __restrict__ partial, double factor, double option,
            unsigned results, unsigned kept1, unsigned kept2, long long stride0, long long stride1,
            long long stride2, long long length, long long inner, long long outer_stride, long long inner_stride,
            long long part) {
  const pf::ReducedShape shape{results, kept1, kept2, stride0,      stride1,      stride2,
                               length,  inner, outer_stride, inner_stride, part};
  pf::reduce_columns<R>(x, {out, places, partial, factor, option}, shape);
}

template <class R>
__global__ void __launch_bounds__(pf::kReduceThreads, 2)
    parts(const typename R::State* __restrict__ partial, typename R::Result* __restrict__ out,
          long long* __restrict__ places, double factor, double option, unsigned results, int count) {
  pf::reduce_parts<R>(partial, {out, places, nullptr, factor, option}, results, count);
}
