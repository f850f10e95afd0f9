// softmax and log_softmax over the rows of a matrix, forward and backward: a warp or a block per row.
//
// The forward reads a row once for the maximum and the sum together (the sum rescaled when the maximum grows: Milakov
// and Gimelshein, arXiv:1805.02867) and once more, from the cache, for the result.
#include "pyframe/rows.cuh"

namespace {

template <class C>
__device__ __forceinline__ C lowest() { return -static_cast<C>(__int_as_float(0x7f800000)); }

// A maximum and the sum of exp(x - maximum), for the columns that this thread has seen.
template <class C>
struct Normalizer {
  C maximum = lowest<C>(), sum = C(0);

  template <int N, class T>
  __device__ __forceinline__ void add(const pf::Pack<T, N>& pack) {
    C top = maximum;
#pragma unroll
    for (int k = 0; k < N; ++k) top = pf::Max()(top, static_cast<C>(pf::widen(pack.values[k])));
    if (top == lowest<C>()) return;  // -inf - -inf is NaN, and these add nothing
    sum *= exp(maximum - top);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += exp(pf::widen(pack.values[k]) - top);
    maximum = top;
  }
};

}  // namespace

// Block: (GROUP, rows of a block). Without the 2 (at least two blocks at a time, 128 registers a thread) the compiler
// spills 8 bytes around the logarithm of doubles on sm_90.
template <class T, int GROUP, bool LOG>
__global__ void __launch_bounds__(256, 2)
    softmax_forward(const T* __restrict__ x, T* __restrict__ y, long long rows, int columns, int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;  // a whole warp: there is no barrier where a block has several rows
  const T* const in = x + row * columns;
  T* const out = y + row * columns;
  Normalizer<C> mine;
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    mine.add(pf::load<decltype(width)::value>(in + j));
  });
  const C maximum = pf::group_reduce<GROUP>(mine.maximum, pf::Max());
  const C scale = mine.maximum == lowest<C>() ? C(0) : exp(mine.maximum - maximum);
  // A row of -inf alone has the sum 0; its result is NaN, from -inf - -inf.
  const C sum = pf::group_reduce<GROUP>(mine.sum * scale, pf::Sum());
  const C scaled = LOG ? log(sum) : C(1) / sum;
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    auto pack = pf::load<decltype(width)::value>(in + j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) {
      const C shifted = pf::widen(pack.values[k]) - maximum;
      pack.values[k] = pf::narrow<T>(LOG ? shifted - scaled : exp(shifted) * scaled);
    }
    pf::store(out + j, pack);
  });
}

template <class T, int GROUP, bool LOG>
__global__ void __launch_bounds__(256)
    softmax_backward(const T* __restrict__ grad, const T* __restrict__ y, T* __restrict__ out, long long rows,
                     int columns, int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;
  const T* const g = grad + row * columns;
  const T* const p = y + row * columns;
  C sum = 0;
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    constexpr int N = decltype(width)::value;
    const auto gs = pf::load<N>(g + j);
    if constexpr (LOG) {
#pragma unroll
      for (int k = 0; k < N; ++k) sum += pf::widen(gs.values[k]);
    } else {
      const auto ps = pf::load<N>(p + j);
#pragma unroll
      for (int k = 0; k < N; ++k) sum += pf::widen(gs.values[k]) * pf::widen(ps.values[k]);
    }
  });
  sum = pf::group_reduce<GROUP>(sum, pf::Sum());
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    constexpr int N = decltype(width)::value;
    const auto gs = pf::load<N>(g + j);
    auto ps = pf::load<N>(p + j);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const C a = pf::widen(gs.values[k]), b = pf::widen(ps.values[k]);
      ps.values[k] = pf::narrow<T>(LOG ? a - exp(b) * sum : b * (a - sum));
    }
    pf::store(out + row * columns + j, ps);
  });
}
