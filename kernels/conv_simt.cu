// Convolutions in float32 and float64 without tensor cores, and sums of weight gradients: see pyframe/conv_gemm.cuh.
#include "pyframe/conv_gemm.cuh"

// y = scale · (x ∗ w) + shift + residual, between `low` and `high`; with `transposed` the gradient of the convolution's
// input is in its place. x is [images, positions, channels], w [made channels, taps, channels of a group].
template <class T, int M, int N, int ROWS, int COLUMNS, int STAGES, int BYTES>
__global__ void __launch_bounds__(M* N / ROWS / COLUMNS, 1)
    conv_gather_simt(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y,
                      const pf::compute_t<T>* __restrict__ scale, const pf::compute_t<T>* __restrict__ shift,
                      const T* __restrict__ residual, pf::compute_t<T> low, pf::compute_t<T> high,
                      int channels_last, int vector, int images, int groups, int channels, int outs, int transposed,
                      PF_CONV_GEOMETRY) {
  using Engine = pf::SimtEngine<T, M, N, ROWS, COLUMNS, STAGES, true, BYTES>;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const pf::GatherWork work{images, groups, channels, outs, transposed != 0, channels_last != 0, vector != 0};
  const pf::ConvFinish<T> finish{y, scale, shift, residual, low, high, channels_last != 0, vector != 0};
  pf::conv_gather<Engine>(x, w, work, g, finish);
}

// The parts of a weight gradient that splits of the positions have: [splits, outputs, taps, channels of a group].
template <class T, int M, int N, int ROWS, int COLUMNS, int STAGES, int BYTES>
__global__ void __launch_bounds__(M* N / ROWS / COLUMNS, 1)
    conv_weight_simt(const T* __restrict__ grad, const T* __restrict__ x, pf::compute_t<T>* __restrict__ part,
                      int positions, int groups, int channels, int outs, int steps, PF_CONV_DIVISORS,
                      PF_CONV_GEOMETRY) {
  using Engine = pf::SimtEngine<T, M, N, ROWS, COLUMNS, STAGES, false, BYTES>;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const pf::Divisor out[3] = PF_CONV_DIVISORS_GIVEN;
  pf::conv_weight<Engine>(grad, x, part, {positions, groups, channels, outs, steps}, g, out);
}

// y[o, c, tap] = Σ parts[split, o, tap, c], where the parts have `padded` channels and `y` `channels` of them, and
// groups of `wide` outputs instead of `outs`; `each` values to a split.
template <class T>
__global__ void __launch_bounds__(256)
    conv_weight_sum(const pf::compute_t<T>* __restrict__ parts, T* __restrict__ y, long long total, long long each,
                    int splits, int taps, int channels, int padded, int outs, int wide) {
  pf::add_chunks(parts, y, total, each, splits, [=](long long i) {
    const int tap = static_cast<int>(i % taps), c = static_cast<int>(i / taps % channels);
    const long long o = i / taps / channels;
    return ((o / outs * wide + o % outs) * taps + tap) * padded + c;
  });
}
