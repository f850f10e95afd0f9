// Gradients of the weights and biases of all normalisations: Σ g · (x - mean) · rstd and Σ g over each channel of an
// array [N, C, S], in two deterministic passes. A layer norm's columns are channels with one position.
#include "pyframe/channels.cuh"

// Statistics of element (n, c) are at n · stride + c / per_group: batch norm has stride 0 and per_group 1, group norm
// `groups` and the channels of a group, layer norm 1 and all columns. `mean` is null for RMS norm. With `limited`, g counts
// only where the output (x - mean) · rstd · weight + bias lies between the limits.
template <class T, bool COLUMNS>
__global__ void __launch_bounds__(256)
    channel_sums(const T* __restrict__ grad, const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
                 const pf::compute_t<T>* __restrict__ rstd, const pf::compute_t<T>* __restrict__ weight,
                 const pf::compute_t<T>* __restrict__ bias, pf::compute_t<T>* __restrict__ products,
                 pf::compute_t<T>* __restrict__ sums, int pairs, int channels, int positions, int chunk, int stride,
                 int per_group, int vector, int limited, double low, double high) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const int channel = pf::channel_here<COLUMNS>();
  const int first = static_cast<int>(blockIdx.y) * chunk, last = first + min(chunk, pairs - first);
  const int group = channel / per_group;
  C product = 0, sum = 0;
  if (channel < channels) {
    const C factor = limited && weight ? weight[channel] : C(1), shift = limited && bias ? bias[channel] : C(0);
    auto add = [&](C g, C d, C scale) {
      if (limited && !pf::inside(d * (scale * factor) + shift, C(low), C(high))) g = 0;
      sum += g;
      product += g * (d * scale);
    };
    if (!COLUMNS && vector) {
      pf::for_pairs<COLUMNS, V>(first, last, positions, [&](int n, int s) {
        const long long at = (static_cast<long long>(n) * channels + channel) * positions + s;
        const long long statistic = static_cast<long long>(n) * stride + group;
        const C center = mean ? mean[statistic] : C(0), scale = rstd[statistic];
        const auto gs = pf::load<V>(grad + at);
        const auto xs = pf::load<V>(x + at);
#pragma unroll
        for (int k = 0; k < V; ++k) add(pf::widen(gs.values[k]), pf::widen(xs.values[k]) - center, scale);
      });
    } else {
      pf::for_pairs<COLUMNS, 1>(first, last, positions, [&](int n, int s) {
        const long long at = (static_cast<long long>(n) * channels + channel) * positions + s;
        const long long statistic = static_cast<long long>(n) * stride + group;
        add(pf::widen(grad[at]), pf::widen(x[at]) - (mean ? mean[statistic] : C(0)), rstd[statistic]);
      });
    }
  }
  product = pf::channel_total<COLUMNS>(product);
  if (sums) sum = pf::channel_total<COLUMNS>(sum);
  if (pf::writes_channel<COLUMNS>(channel, channels)) {
    const long long at = static_cast<long long>(channel) * gridDim.y + blockIdx.y;
    products[at] = product;
    if (sums) sums[at] = sum;
  }
}

// Adds up the chunks of each channel: a warp per channel, block (32, channels of a block).
template <class C>
__global__ void __launch_bounds__(256)
    merge_sums(const C* __restrict__ products, const C* __restrict__ sums, C* __restrict__ product,
               C* __restrict__ sum, int channels, int chunks) {
  const int channel = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
  if (channel >= channels) return;
  const long long start = static_cast<long long>(channel) * chunks;
  C a = 0, b = 0;
  for (int j = static_cast<int>(threadIdx.x); j < chunks; j += 32) {
    a += products[start + j];
    if (sums) b += sums[start + j];
  }
  a = pf::warp_reduce(a, pf::Sum());
  b = pf::warp_reduce(b, pf::Sum());
  if (threadIdx.x == 0) {
    product[channel] = a;
    if (sums) sum[channel] = b;
  }
}
