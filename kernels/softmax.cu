// softmax and log_softmax over the rows of a matrix, forward and backward: one block per row.
//
// A row that fits is read once and kept in registers; a longer one is read once for the maximum and the sum together
// (the sum rescaled when the maximum grows: Milakov and Gimelshein, arXiv:1805.02867) and once more for the result.
#include "pyframe/device.cuh"

namespace {

// A maximum and the sum of exp(x - maximum).
template <class T>
struct Normalizer {
  T maximum, sum;
};

template <class T>
__device__ __forceinline__ T lowest() { return -static_cast<T>(__int_as_float(0x7f800000)); }

struct Merge {
  template <class T>
  __device__ __forceinline__ Normalizer<T> operator()(Normalizer<T> a, Normalizer<T> b) const {
    const T maximum = pf::Max()(a.maximum, b.maximum);
    if (maximum == lowest<T>()) return {maximum, a.sum + b.sum};
    return {maximum, a.sum * exp(a.maximum - maximum) + b.sum * exp(b.maximum - maximum)};
  }
};

template <int THREADS, class C>
__device__ Normalizer<C> reduce_normalizer(Normalizer<C> mine) {
  const C maximum = pf::block_reduce<THREADS>(mine.maximum, pf::Max());
  const C scale = maximum == lowest<C>() ? C(1) : exp(mine.maximum - maximum);
  return {maximum, pf::block_reduce<THREADS>(mine.sum * scale, pf::Sum())};
}

}  // namespace

template <class T, int THREADS, bool LOG>
__global__ void __launch_bounds__(THREADS) softmax_forward(const T* __restrict__ x, T* __restrict__ y, int columns) {
  using C = pf::compute_t<T>;
  const T* const row = x + static_cast<long long>(blockIdx.x) * columns;
  T* const out = y + static_cast<long long>(blockIdx.x) * columns;
  Normalizer<C> mine{lowest<C>(), C(0)};
  for (int j = threadIdx.x; j < columns; j += THREADS) {
    mine = Merge()(mine, Normalizer<C>{pf::widen(row[j]), C(1)});
  }
  const Normalizer<C> all = reduce_normalizer<THREADS>(mine);
  const C offset = LOG ? all.maximum + log(all.sum) : all.maximum;
  const C scale = C(1) / all.sum;
  for (int j = threadIdx.x; j < columns; j += THREADS) {
    const C value = pf::widen(row[j]) - offset;
    out[j] = pf::narrow<T>(LOG ? value : exp(value) * scale);
  }
}

template <class T, int THREADS, bool LOG>
__global__ void __launch_bounds__(THREADS)
    softmax_backward(const T* __restrict__ grad, const T* __restrict__ y, T* __restrict__ out, int columns) {
  using C = pf::compute_t<T>;
  const long long start = static_cast<long long>(blockIdx.x) * columns;
  C sum = 0;
  for (int j = threadIdx.x; j < columns; j += THREADS) {
    const C g = pf::widen(grad[start + j]);
    sum += LOG ? g : g * pf::widen(y[start + j]);
  }
  sum = pf::block_reduce<THREADS>(sum, pf::Sum());
  for (int j = threadIdx.x; j < columns; j += THREADS) {
    const C g = pf::widen(grad[start + j]), p = pf::widen(y[start + j]);
    out[start + j] = pf::narrow<T>(LOG ? g - exp(p) * sum : p * (g - sum));
  }
}
