// Weight gradients of the convolutions of conv_direct.cu. Blocks make a weight's sum over a chunk of positions each,
// and `direct_weight_sum` adds these in order.
#include "pyframe/chunks.cuh"
#include "pyframe/conv.cuh"

namespace {

constexpr int kColumns = 4;

// A column of sums per thread of a block with at most 256.
template <class C, int V>
struct Columns {
  C sums[256][V];
};

}  // namespace

// part[chunk, o, c, tap] = Σ g[n, o, q] · x[n, c, ...] for arrays in C order, with a block per (o, c), chunk and tap
// (KW = 0) or ROWS rows of KW taps. `total` counts units: positions, or kColumns of them.
template <class T, int ROWS, int KW, int S>
__global__ void __launch_bounds__(256, 2)
    direct_weight_pixels(const T* __restrict__ grad, const T* __restrict__ x, pf::compute_t<T>* __restrict__ part,
                         unsigned total, unsigned chunk, int channels, int outs, int ins, PF_CONV_GEOMETRY) {
  using C = pf::compute_t<T>;
  constexpr int kMade = KW ? kColumns : 1, kTaps = KW ? KW : 1, kLength = KW ? (kColumns - 1) * S + KW : 1;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const int pair = static_cast<int>(blockIdx.x), o = pair / ins, c = o / outs * ins + pair % ins;
  const int inputs = channels / outs * ins;
  int tap = static_cast<int>(blockIdx.z), column_tap = 0;
  if (KW == 0) {
    column_tap = tap % g.kernel[2];
    tap /= g.kernel[2];
  } else {
    tap *= ROWS;
  }
  const int ka = tap / g.kernel[1], kb = tap % g.kernel[1];
  const pf::Chunk mine(total, chunk);
  C sum[ROWS][kTaps] = {};
  for (unsigned i = mine.first + threadIdx.x; i < mine.last; i += blockDim.x) {
    const pf::Place p = pf::place(i, g.out[0], g.out[1], (g.out[2] + kMade - 1) / kMade);
    const int column = p.at[2] * kMade;
    const T* const from =
        grad + (((p.rest * static_cast<long long>(channels) + o) * g.out[0] + p.at[0]) * g.out[1] + p.at[1]) * g.out[2];
    C factors[kMade];
#pragma unroll
    for (int made = 0; made < kMade; ++made) {
      factors[made] = column + made < g.out[2] ? C(pf::widen(from[column + made])) : C(0);
    }
    const int plane = p.at[0] * g.stride[0] - g.padding[0] + ka * g.dilation[0];
    const int start = column * g.stride[2] - g.padding[2] + column_tap * g.dilation[2];
    if (plane < 0 || plane >= g.size[0]) continue;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int line = p.at[1] * g.stride[1] - g.padding[1] + (kb + r) * g.dilation[1];
      if (line < 0 || line >= g.size[1]) continue;
      const T* const row =
          x + (((p.rest * static_cast<long long>(inputs) + c) * g.size[0] + plane) * g.size[1] + line) * g.size[2];
      C values[kLength];
#pragma unroll
      for (int j = 0; j < kLength; ++j) {
        values[j] = start + j >= 0 && start + j < g.size[2] ? C(pf::widen(row[start + j])) : C(0);
      }
#pragma unroll
      for (int made = 0; made < kMade; ++made) {
#pragma unroll
        for (int k = 0; k < kTaps; ++k) sum[r][k] += factors[made] * values[made * S + k];
      }
    }
  }
  const int taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  C* const target = part + (static_cast<long long>(blockIdx.y) * channels * ins + pair) * taps +
                    (ka * g.kernel[1] + kb) * g.kernel[2] + column_tap;
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      const C whole = pf::block_reduce<256>(sum[r][k], pf::Sum());
      if (threadIdx.x == 0) target[r * kTaps + k] = whole;
    }
  }
}

// The same for depthwise convolutions of channels-last arrays: blocks of (packs of V channels, lanes of positions).
template <class T, int V, int KW, int S>
__global__ void __launch_bounds__(256, 2)
    direct_weight_channels(const T* __restrict__ grad, const T* __restrict__ x, pf::compute_t<T>* __restrict__ part,
                           unsigned total, unsigned chunk, int channels, PF_CONV_GEOMETRY) {
  using C = pf::compute_t<T>;
  constexpr int kTaps = KW ? KW : 1;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const int channel = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * V;
  int tap = static_cast<int>(blockIdx.z), column_tap = 0;
  if (KW == 0) {
    column_tap = tap % g.kernel[2];
    tap /= g.kernel[2];
  }
  const int ka = tap / g.kernel[1], kb = tap % g.kernel[1];
  const pf::Chunk mine(total, chunk);
  C sum[kTaps][V] = {};
  for (unsigned i = mine.first + threadIdx.y; i < mine.last && channel < channels; i += blockDim.y) {
    const pf::Place p = pf::place(i, g.out[0], g.out[1], g.out[2]);
    const int plane = p.at[0] * g.stride[0] - g.padding[0] + ka * g.dilation[0];
    const int line = p.at[1] * g.stride[1] - g.padding[1] + kb * g.dilation[1];
    const int start = p.at[2] * g.stride[2] - g.padding[2] + column_tap * g.dilation[2];
    if (plane < 0 || plane >= g.size[0] || line < 0 || line >= g.size[1]) continue;
    const auto factors = pf::load<V>(grad + static_cast<long long>(i) * channels + channel);
    const T* const row =
        x + ((p.rest * static_cast<long long>(g.size[0]) + plane) * g.size[1] + line) * g.size[2] * channels + channel;
#pragma unroll
    for (int k = 0; k < kTaps; ++k) {
      if (start + k < 0 || start + k >= g.size[2]) continue;
      const auto values = pf::load<V>(row + static_cast<long long>(start + k) * channels);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[k][v] += C(pf::widen(factors.values[v])) * C(pf::widen(values.values[v]));
    }
  }
  auto& columns = pf::shared<Columns<C, V>>();
  const int lane = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  const int taps = g.kernel[0] * g.kernel[1] * g.kernel[2];
  C* const target = part + (static_cast<long long>(blockIdx.y) * channels + channel) * taps +
                    (ka * g.kernel[1] + kb) * g.kernel[2] + column_tap;
#pragma unroll
  for (int k = 0; k < kTaps; ++k) {
    if (k) __syncthreads();
#pragma unroll
    for (int v = 0; v < V; ++v) columns.sums[lane][v] = sum[k][v];
    __syncthreads();
    if (threadIdx.y == 0 && channel < channels) {
      for (unsigned j = 1; j < blockDim.y; ++j) {
#pragma unroll
        for (int v = 0; v < V; ++v) sum[k][v] += columns.sums[j * blockDim.x + threadIdx.x][v];
      }
#pragma unroll
      for (int v = 0; v < V; ++v) target[v * taps + k] = sum[k][v];
    }
  }
}

// The sum over the chunks of a weight gradient with `total` values.
template <class T>
__global__ void __launch_bounds__(256, 2)
    direct_weight_sum(const pf::compute_t<T>* __restrict__ parts, T* __restrict__ y, long long total, int chunks) {
  pf::add_chunks(parts, y, total, total, chunks, [](long long i) { return i; });
}
