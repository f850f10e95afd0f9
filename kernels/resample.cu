// Resampling of images along up to three dimensions, forward and backward: each value is a weighted sum over the taps
// of its place along every dimension. The tables, made once per size, are those of the forward or of its transpose, so
// one kernel is enough, no value is added up by two threads and the order of sums is fixed. The nearest value is copied.
#include "pyframe/device.cuh"

namespace {

// One dimension: tap t of output i is input index[t · to + i], its factor weight[t · to + i]. Without tables it stays.
template <class C>
struct Axis {
  const int* index;
  const C* weight;
  int from, to, taps;

  // Calls f(input, weight) for the taps of output i. A weight of 0 is a place that a shorter window does not use: what
  // is there, inf for example, does not count.
  template <class F>
  __device__ __forceinline__ void at(int i, F f) const {
    if (!index) {
      f(i, C(1));
      return;
    }
    for (int t = 0; t < taps; ++t) {
      const C w = weight[t * to + i];
      if (w != C(0)) f(index[t * to + i], w);
    }
  }
};

}  // namespace

// Without the 2, the compiler takes 32 registers on sm_100 and spills one.
template <class T>
__global__ void __launch_bounds__(256, 2)
    resample(const T* __restrict__ x, T* __restrict__ y, unsigned total, const int* index0,
             const pf::compute_t<T>* weight0, const int* index1, const pf::compute_t<T>* weight1, const int* index2,
             const pf::compute_t<T>* weight2, int from0, int from1, int from2, int to0, int to1, int to2, int taps0,
             int taps1, int taps2) {
  using C = pf::compute_t<T>;
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const Axis<C> depth{index0, weight0, from0, to0, taps0}, height{index1, weight1, from1, to1, taps1},
      width{index2, weight2, from2, to2, taps2};
  const unsigned line = i / static_cast<unsigned>(to2), slice = line / static_cast<unsigned>(to1);
  const unsigned plane = slice / static_cast<unsigned>(to0);
  const int column = static_cast<int>(i - line * static_cast<unsigned>(to2));
  const int row = static_cast<int>(line - slice * static_cast<unsigned>(to1));
  const int layer = static_cast<int>(slice - plane * static_cast<unsigned>(to0));
  const T* const image = x + static_cast<long long>(plane) * from0 * from1 * from2;
  C sum = 0;
  depth.at(layer, [&](int a, C factor0) {
    C of_layer = 0;
    height.at(row, [&](int b, C factor1) {
      const T* const pixels = image + (static_cast<long long>(a) * from1 + b) * from2;
      C of_row = 0;
      width.at(column, [&](int c, C factor2) { of_row += factor2 * pf::widen(pixels[c]); });
      of_layer += factor1 * of_row;
    });
    sum += factor0 * of_layer;
  });
  y[i] = pf::narrow<T>(sum);
}

// The nearest input of each output, moved as units U of the values' size. Without an index, a dimension stays.
template <class U>
__global__ void __launch_bounds__(256)
    resample_nearest(const U* __restrict__ x, U* __restrict__ y, unsigned total, const int* __restrict__ index0,
                     const int* __restrict__ index1, const int* __restrict__ index2, int from0, int from1, int from2,
                     int to0, int to1, int to2) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const unsigned line = i / static_cast<unsigned>(to2), slice = line / static_cast<unsigned>(to1);
  const unsigned plane = slice / static_cast<unsigned>(to0);
  int layer = static_cast<int>(slice - plane * static_cast<unsigned>(to0));
  int row = static_cast<int>(line - slice * static_cast<unsigned>(to1));
  int column = static_cast<int>(i - line * static_cast<unsigned>(to2));
  if (index0) layer = index0[layer];
  if (index1) row = index1[row];
  if (index2) column = index2[column];
  y[i] = x[((static_cast<long long>(plane) * from0 + layer) * from1 + row) * from2 + column];
}
