// Convolutions with few channels per group, depthwise ones above all: a thread convolves its positions itself, since a
// matrix product would have next to nothing to share.
//
// `pixels`: arrays in C order, neighbouring threads at neighbouring positions. `channels`: channels-last arrays of
// depthwise convolutions, neighbouring threads at neighbouring packs of channels. KW > 0: kernels of KW columns without
// dilation along the width; a thread then makes kColumns neighbouring positions from one window that it keeps in
// registers, for S = stride. KW = 0: any geometry.
#include "pyframe/conv.cuh"

namespace {

constexpr int kColumns = 4;

// Where the window of a row of positions from column i on begins, and how its columns meet the taps.
template <int KW, int S>
struct Row {
  static constexpr int kLength = (kColumns - 1) * S + KW;
  int at, tap, tap_step;
  __device__ __forceinline__ Row(const pf::ConvGeometry& g, int i, bool transposed)
      : at(transposed ? i + g.padding[2] - (KW - 1) : i * S - g.padding[2]),
        tap(transposed ? KW - 1 : 0),
        tap_step(transposed ? -1 : 1) {}
};

}  // namespace

// y[n, m, q] = bias[m] + Σ w · x[n, c, ...] over the channels c of m's group; a thread per position (KW = 0) or per
// kColumns of them. `outs` and `ins` are channels per group of y and of x.
template <class T, int KW, int S>
__global__ void __launch_bounds__(256, 2)
    direct_pixels(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
                  unsigned total, int channels, int outs, int ins, int transposed, PF_CONV_GEOMETRY) {
  using C = pf::compute_t<T>;
  constexpr int kMade = KW ? kColumns : 1;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const pf::Place p = pf::place(i, g.out[0], g.out[1], (g.out[2] + kMade - 1) / kMade);
  const int column = p.at[2] * kMade, m = static_cast<int>(p.rest % static_cast<unsigned>(channels));
  const int group = m / outs, taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  const long long image = p.rest / static_cast<unsigned>(channels), groups = channels / outs;
  const T* plane = x + (image * groups + group) * ins * (static_cast<long long>(g.size[0]) * g.size[1] * g.size[2]);
  // The weight is [outputs, inputs / groups, taps] of the convolution, whichever of its sides is read here.
  const T* weight = w + (transposed ? (static_cast<long long>(group) * ins * outs + m % outs) * taps
                                    : static_cast<long long>(m) * ins * taps);
  const pf::Reach a = pf::Reach::inside(g, 0, p.at[0], transposed), b = pf::Reach::inside(g, 1, p.at[1], transposed);
  C sum[kMade] = {};
  for (int c = 0; c < ins; ++c) {
    for (int ka = 0; ka < a.count; ++ka) {
      for (int kb = 0; kb < b.count; ++kb) {
        const T* const row =
            plane + (static_cast<long long>(a.at + ka * a.step) * g.size[1] + b.at + kb * b.step) * g.size[2];
        const T* const tap = weight + ((a.tap + ka * a.tap_step) * g.kernel[1] + b.tap + kb * b.tap_step) * g.kernel[2];
        if constexpr (KW > 0) {
          using Window = Row<KW, S>;
          const Window here(g, column, transposed);
          C values[Window::kLength], factors[KW];
#pragma unroll
          for (int j = 0; j < Window::kLength; ++j) {
            const int at = here.at + j;
            values[j] = at >= 0 && at < g.size[2] ? C(pf::widen(row[at])) : C(0);
          }
#pragma unroll
          for (int k = 0; k < KW; ++k) factors[k] = pf::widen(tap[here.tap + k * here.tap_step]);
#pragma unroll
          for (int made = 0; made < kMade; ++made) {
#pragma unroll
            for (int k = 0; k < KW; ++k) sum[made] += values[made * S + k] * factors[k];
          }
        } else {
          const pf::Reach r = pf::Reach::inside(g, 2, column, transposed);
          for (int k = 0; k < r.count; ++k) {
            sum[0] += C(pf::widen(row[r.at + k * r.step])) * C(pf::widen(tap[r.tap + k * r.tap_step]));
          }
        }
      }
    }
    plane += static_cast<long long>(g.size[0]) * g.size[1] * g.size[2];
    weight += transposed ? static_cast<long long>(outs) * taps : taps;
  }
  const C shift = bias ? C(pf::widen(bias[m])) : C(0);
  const long long line = (static_cast<long long>(p.rest) * g.out[0] + p.at[0]) * g.out[1] + p.at[1];
  T* const target = y + line * g.out[2] + column;
#pragma unroll
  for (int made = 0; made < kMade; ++made) {
    if (column + made < g.out[2]) target[made] = pf::narrow<T>(sum[made] + shift);
  }
}

// The same for depthwise convolutions of channels-last arrays: a thread makes V channels. w is [taps, channels].
template <class T, int V, int KW, int S>
__global__ void __launch_bounds__(256, 1)
    direct_channels(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ bias, T* __restrict__ y,
                    unsigned total, int channels, int transposed, PF_CONV_GEOMETRY) {
  using C = pf::compute_t<T>;
  constexpr int kMade = KW ? kColumns : 1;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= total) return;
  const unsigned packs = static_cast<unsigned>(channels) / V, group = i / packs;
  const int channel = static_cast<int>(i - group * packs) * V;
  const pf::Place p = pf::place(group, g.out[0], g.out[1], (g.out[2] + kMade - 1) / kMade);
  const int column = p.at[2] * kMade;
  const T* const image =
      x + p.rest * (static_cast<long long>(g.size[0]) * g.size[1] * g.size[2] * channels) + channel;
  const pf::Reach a = pf::Reach::inside(g, 0, p.at[0], transposed), b = pf::Reach::inside(g, 1, p.at[1], transposed);
  C sum[kMade][V] = {};
  for (int ka = 0; ka < a.count; ++ka) {
    for (int kb = 0; kb < b.count; ++kb) {
      const T* const row =
          image + (static_cast<long long>(a.at + ka * a.step) * g.size[1] + b.at + kb * b.step) * g.size[2] * channels;
      const int first = ((a.tap + ka * a.tap_step) * g.kernel[1] + b.tap + kb * b.tap_step) * g.kernel[2];
      const T* const tap = w + static_cast<long long>(first) * channels + channel;
      if constexpr (KW > 0) {
        using Window = Row<KW, S>;
        const Window here(g, column, transposed);
        pf::Pack<T, V> factors[KW];
#pragma unroll
        for (int k = 0; k < KW; ++k) {
          factors[k] = pf::load<V>(tap + static_cast<long long>(here.tap + k * here.tap_step) * channels);
        }
#pragma unroll
        for (int j = 0; j < Window::kLength; ++j) {
          const int at = here.at + j;
          if (at < 0 || at >= g.size[2]) continue;
          const auto values = pf::load<V>(row + static_cast<long long>(at) * channels);
#pragma unroll
          for (int made = 0; made < kMade; ++made) {
            const int k = j - made * S;
            if (k < 0 || k >= KW) continue;
#pragma unroll
            for (int v = 0; v < V; ++v) {
              sum[made][v] += C(pf::widen(values.values[v])) * C(pf::widen(factors[k].values[v]));
            }
          }
        }
      } else {
        const pf::Reach r = pf::Reach::inside(g, 2, column, transposed);
        for (int k = 0; k < r.count; ++k) {
          const auto values = pf::load<V>(row + static_cast<long long>(r.at + k * r.step) * channels);
          const auto factors = pf::load<V>(tap + static_cast<long long>(r.tap + k * r.tap_step) * channels);
#pragma unroll
          for (int v = 0; v < V; ++v) sum[0][v] += C(pf::widen(values.values[v])) * C(pf::widen(factors.values[v]));
        }
      }
    }
  }
  C shift[V] = {};
  if (bias) {
#pragma unroll
    for (int v = 0; v < V; ++v) shift[v] = pf::widen(bias[channel + v]);
  }
  const long long pixel = ((static_cast<long long>(p.rest) * g.out[0] + p.at[0]) * g.out[1] + p.at[1]) * g.out[2];
  T* const target = y + (pixel + column) * channels + channel;
#pragma unroll
  for (int made = 0; made < kMade; ++made) {
    if (column + made >= g.out[2]) break;
    pf::Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.values[v] = pf::narrow<T>(sum[made][v] + shift[v]);
    pf::store(target + static_cast<long long>(made) * channels, pack);
  }
}
