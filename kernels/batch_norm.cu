// Batch normalisation of an array [N, C, S]: statistics of each channel in two deterministic passes, and the elementwise
// passes forward and backward. The sums of the backward pass are in channel_sums.cu.
#include "pyframe/channels.cuh"

// The mean of each chunk of a channel and the sum of squares about it. A chunk is small enough to stay in the cache
// between its two passes, so memory is read once.
template <class T, bool COLUMNS>
__global__ void __launch_bounds__(256)
    channel_statistics(const T* __restrict__ x, pf::compute_t<T>* __restrict__ means,
                       pf::compute_t<T>* __restrict__ squares, int pairs, int channels, int positions, int chunk,
                       int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const int channel = pf::channel_here<COLUMNS>();
  const int first = static_cast<int>(blockIdx.y) * chunk, last = first + min(chunk, pairs - first);
  const bool inside = channel < channels, packs = !COLUMNS && vector;
  auto add_up = [&](auto function) {
    C sum = 0;
    if (inside && packs) {
      pf::for_pairs<COLUMNS, V>(first, last, positions, [&](int n, int s) {
        const auto pack = pf::load<V>(x + (static_cast<long long>(n) * channels + channel) * positions + s);
#pragma unroll
        for (int k = 0; k < V; ++k) sum += function(C(pf::widen(pack.values[k])));
      });
    } else if (inside) {
      pf::for_pairs<COLUMNS, 1>(first, last, positions, [&](int n, int s) {
        sum += function(C(pf::widen(x[(static_cast<long long>(n) * channels + channel) * positions + s])));
      });
    }
    return pf::channel_total<COLUMNS>(sum);
  };
  const C mean = add_up([](C value) { return value; }) / C(last - first);
  const C square = add_up([mean](C value) { return (value - mean) * (value - mean); });
  if (pf::writes_channel<COLUMNS>(channel, channels)) {
    const long long at = static_cast<long long>(channel) * gridDim.y + blockIdx.y;
    means[at] = mean;
    squares[at] = square;
  }
}

// Mean, variance and 1/√(variance + eps) of each channel from those of its chunks (T. F. Chan, G. H. Golub, R. J. LeVeque,
// "Updating formulae and a pairwise algorithm for computing sample variances", 1979): a warp per channel.
template <class C>
__global__ void __launch_bounds__(256)
    merge_statistics(const C* __restrict__ means, const C* __restrict__ squares, C* __restrict__ mean,
                     C* __restrict__ variance, C* __restrict__ rstd, int pairs, int channels, int chunk, int chunks,
                     double eps) {
  const int channel = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
  if (channel >= channels) return;
  const long long start = static_cast<long long>(channel) * chunks;
  // Weights are shares of the whole, so that nothing overflows.
  const C share = C(chunk) / C(pairs), last_share = C(pairs - (chunks - 1) * chunk) / C(pairs);
  C center = 0;
  for (int j = static_cast<int>(threadIdx.x); j < chunks; j += 32) {
    center += means[start + j] * (j == chunks - 1 ? last_share : share);
  }
  center = pf::warp_reduce(center, pf::Sum());
  C spread = 0;
  for (int j = static_cast<int>(threadIdx.x); j < chunks; j += 32) {
    const C d = means[start + j] - center;
    spread += squares[start + j] / C(pairs) + d * d * (j == chunks - 1 ? last_share : share);
  }
  spread = pf::warp_reduce(spread, pf::Sum());
  if (threadIdx.x == 0) {
    mean[channel] = center;
    variance[channel] = spread;
    rstd[channel] = C(1) / sqrt(spread + C(eps));
  }
}

namespace {

// `value`, or the limit that it is beyond; NaN stays.
template <class C>
__device__ __forceinline__ C between(C value, C low, C high) {
  return value < low ? low : value > high ? high : value;
}

// Adds what is given at `from`, if that is not null, to each value, and keeps them between the limits.
template <class T, int V, class C>
__device__ __forceinline__ pf::Pack<T, V> finished(C (&values)[V], const T* from, C low, C high) {
  pf::Pack<T, V> pack;
  if (from != nullptr) {
    pack = pf::load<V>(from);
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] += pf::widen(pack.values[k]);
  }
#pragma unroll
  for (int k = 0; k < V; ++k) pack.values[k] = pf::narrow<T>(between(values[k], low, high));
  return pack;
}

// Calls f(i, c, Width) for this thread's values of an array with `total` values; c is the first one's channel, and the
// others have it too: `vector` says that positions are a multiple of V.
template <int V, class F>
__device__ __forceinline__ void at_channel(long long total, int channels, int positions, F f) {
  const long long i = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  if (i >= total) return;
  // A 64-bit division takes as long as the memory access; nearly all arrays need none.
  const int c = total <= 0x7fffffff
                    ? static_cast<int>(static_cast<unsigned>(i) / static_cast<unsigned>(positions) % channels)
                    : static_cast<int>(i / positions % channels);
  f(i, c);
}

}  // namespace

// y = (x - mean) · scale · weight + bias + residual, not below `low` or above `high`; scale is `statistic`, or
// 1/√(statistic + eps) if it is a variance. Weight, bias and residual may be null.
template <class T, int V>
__global__ void __launch_bounds__(256)
    channel_apply(const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
                  const pf::compute_t<T>* __restrict__ statistic, const pf::compute_t<T>* __restrict__ weight,
                  const pf::compute_t<T>* __restrict__ bias, const T* __restrict__ residual, T* __restrict__ y,
                  long long total, int channels, int positions, int is_variance, double eps, double low, double high) {
  using C = pf::compute_t<T>;
  at_channel<V>(total, channels, positions, [&](long long i, int c) {
    C scale = is_variance ? C(1) / sqrt(statistic[c] + C(eps)) : statistic[c];
    if (weight) scale *= weight[c];
    const C center = mean[c], shift = bias ? bias[c] : C(0);
    const auto pack = pf::load<V>(x + i);
    C values[V];
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = (pf::widen(pack.values[k]) - center) * scale + shift;
    pf::store(y + i, finished(values, residual ? residual + i : nullptr, C(low), C(high)));
  });
}

// gx = weight · rstd · (g - mean(g) - z · mean(g · z)), with the sums of channel_sums.cu. With `limited`, g counts only
// where the output z · weight + bias lies between the limits.
template <class T, int V>
__global__ void __launch_bounds__(256)
    channel_backward(const T* __restrict__ grad, const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
                     const pf::compute_t<T>* __restrict__ rstd, const pf::compute_t<T>* __restrict__ weight,
                     const pf::compute_t<T>* __restrict__ bias, const pf::compute_t<T>* __restrict__ product,
                     const pf::compute_t<T>* __restrict__ sum, T* __restrict__ gx, long long total, int channels,
                     int positions, int pairs, int limited, double low, double high) {
  using C = pf::compute_t<T>;
  at_channel<V>(total, channels, positions, [&](long long i, int c) {
    const C center = mean[c], r = rstd[c], scale = weight ? r * weight[c] : r;
    const C along_z = product[c] / C(pairs) * r, along_1 = sum[c] / C(pairs), shift = bias ? bias[c] : C(0);
    auto gs = pf::load<V>(grad + i);
    const auto xs = pf::load<V>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const C d = pf::widen(xs.values[k]) - center;
      const C g = !limited || pf::inside(d * scale + shift, C(low), C(high)) ? C(pf::widen(gs.values[k])) : C(0);
      gs.values[k] = pf::narrow<T>((g - along_1 - d * along_z) * scale);
    }
    pf::store(gx + i, gs);
  });
}

namespace {

// Calls f(i) for the rows of a matrix [rows, channels] that this thread walks down: i is where its V neighbouring
// channels start. They stay the same, so that what belongs to them can stay in registers. Block: (channels, rows).
template <class F>
__device__ __forceinline__ void down_rows(long long rows, int channels, int channel, F f) {
  const long long step = static_cast<long long>(gridDim.y) * blockDim.y;
  for (long long row = static_cast<long long>(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) {
    f(row * channels + channel);
  }
}

template <int V>
__device__ __forceinline__ int channels_here() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * V; }

}  // namespace

// channel_apply where channels are next to each other in memory.
template <class T, int V>
__global__ void __launch_bounds__(256, 2)
    rows_apply(const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
               const pf::compute_t<T>* __restrict__ statistic, const pf::compute_t<T>* __restrict__ weight,
               const pf::compute_t<T>* __restrict__ bias, const T* __restrict__ residual, T* __restrict__ y,
               long long rows, int channels, int is_variance, double eps, double low, double high) {
  using C = pf::compute_t<T>;
  const int channel = channels_here<V>();
  if (channel >= channels) return;
  C center[V], scale[V], shift[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int c = channel + k;
    center[k] = mean[c];
    scale[k] = is_variance ? C(1) / sqrt(statistic[c] + C(eps)) : statistic[c];
    if (weight) scale[k] *= weight[c];
    shift[k] = bias ? bias[c] : C(0);
  }
  down_rows(rows, channels, channel, [&](long long i) {
    const auto pack = pf::load<V>(x + i);
    C values[V];
#pragma unroll
    for (int k = 0; k < V; ++k) values[k] = (pf::widen(pack.values[k]) - center[k]) * scale[k] + shift[k];
    pf::store(y + i, finished(values, residual ? residual + i : nullptr, C(low), C(high)));
  });
}

// channel_backward where channels are next to each other in memory.
template <class T, int V>
__global__ void __launch_bounds__(256, 2)
    rows_backward(const T* __restrict__ grad, const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
                  const pf::compute_t<T>* __restrict__ rstd, const pf::compute_t<T>* __restrict__ weight,
                  const pf::compute_t<T>* __restrict__ bias, const pf::compute_t<T>* __restrict__ product,
                  const pf::compute_t<T>* __restrict__ sum, T* __restrict__ gx, long long rows, int channels,
                  int limited, double low, double high) {
  using C = pf::compute_t<T>;
  const int channel = channels_here<V>();
  if (channel >= channels) return;
  C center[V], scale[V], shift[V], along_z[V], along_1[V];
#pragma unroll
  for (int k = 0; k < V; ++k) {
    const int c = channel + k;
    center[k] = mean[c];
    scale[k] = weight ? rstd[c] * weight[c] : rstd[c];
    shift[k] = bias ? bias[c] : C(0);
    along_z[k] = product[c] / C(rows) * rstd[c];
    along_1[k] = sum[c] / C(rows);
  }
  down_rows(rows, channels, channel, [&](long long i) {
    auto gs = pf::load<V>(grad + i);
    const auto xs = pf::load<V>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const C d = pf::widen(xs.values[k]) - center[k];
      const C v = d * scale[k] + shift[k];
      const C g = !limited || pf::inside(v, C(low), C(high)) ? C(pf::widen(gs.values[k])) : C(0);
      gs.values[k] = pf::narrow<T>((g - along_1[k] - d * along_z[k]) * scale[k]);
    }
    pf::store(gx + i, gs);
  });
}
