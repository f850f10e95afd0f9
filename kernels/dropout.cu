// Dropout of elements or of whole channels. The mask is never stored: the backward pass makes it again from the same
// stream, four words and so four elements to a thread.
#include "pyframe/device.cuh"
#include "pyframe/philox.cuh"

// y = x · scale where the element's word is below `threshold`, else x · 0 (NaN where x is not finite, as in a product
// with the mask). `inner` elements share a word. If `stream` is not null, seed and first offset are read there, so that a
// graph that is replayed draws from other streams.
template <class T>
__global__ void __launch_bounds__(256)
    dropout(const T* __restrict__ x, T* __restrict__ y, const unsigned long long* __restrict__ stream,
            long long count, long long inner, unsigned long long seed, unsigned long long offset,
            unsigned long long threshold, double scale, int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = sizeof(T) == 8 ? 2 : 4;
  const long long first = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
  if (first >= count) return;
  if (stream) seed = stream[0], offset += stream[1];
  C factors[4];
  if (inner == 1) {
    const pf::Words words = pf::philox(seed, offset, static_cast<unsigned long long>(first) / 4);
#pragma unroll
    for (int k = 0; k < 4; ++k) factors[k] = words.values[k] < threshold ? C(scale) : C(0);
  } else {
    long long known = -1;
    C factor = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const long long word = (first + k) / inner;
      if (word != known) {
        const pf::Words words = pf::philox(seed, offset, static_cast<unsigned long long>(word) / 4);
        const int at = static_cast<int>(word & 3);
        const unsigned value = at & 2 ? (at & 1 ? words.values[3] : words.values[2])
                                      : (at & 1 ? words.values[1] : words.values[0]);
        factor = value < threshold ? C(scale) : C(0);
        known = word;
      }
      factors[k] = factor;
    }
  }
  if (vector && first + 4 <= count) {
#pragma unroll
    for (int part = 0; part < 4; part += V) {
      auto pack = pf::load<V>(x + first + part);
#pragma unroll
      for (int k = 0; k < V; ++k) pack.values[k] = pf::narrow<T>(pf::widen(pack.values[k]) * factors[part + k]);
      pf::store(y + first + part, pack);
    }
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (first + k < count) y[first + k] = pf::narrow<T>(pf::widen(x[first + k]) * factors[k]);
    }
  }
}
