// Convolutions on tensor cores, float32 rounded to tf32: see pyframe/conv_gemm.cuh.
#include "pyframe/conv_gemm.cuh"

// y = scale · (x ∗ w) + shift + residual, between `low` and `high`; with `transposed` the gradient of the convolution's
// input is in its place. x is [images, positions, channels], w [made channels, taps, channels of a group].
template <class T, int M, int N, int WARPS_M, int WARPS_N, int STAGES, int BYTES>
__global__ void __launch_bounds__(WARPS_M* WARPS_N * 32, 1)
    conv_gather_mma(const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y,
                     const pf::compute_t<T>* __restrict__ scale, const pf::compute_t<T>* __restrict__ shift,
                     const T* __restrict__ residual, pf::compute_t<T> low, pf::compute_t<T> high,
                     int channels_last, int vector, int images, int groups, int channels, int outs, int transposed,
                     PF_CONV_GEOMETRY) {
  using Engine = pf::MmaEngine<T, M, N, WARPS_M, WARPS_N, STAGES, true, BYTES>;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const pf::GatherWork work{images, groups, channels, outs, transposed != 0, channels_last != 0, vector != 0};
  const pf::ConvFinish<T> finish{y, scale, shift, residual, low, high, channels_last != 0, vector != 0};
  pf::conv_gather<Engine>(x, w, work, g, finish);
}

// The parts of a weight gradient that splits of the positions have: [splits, outputs, taps, channels of a group].
template <class T, int M, int N, int WARPS_M, int WARPS_N, int STAGES, int BYTES>
__global__ void __launch_bounds__(WARPS_M* WARPS_N * 32, 1)
    conv_weight_mma(const T* __restrict__ grad, const T* __restrict__ x, pf::compute_t<T>* __restrict__ part,
                     int positions, int groups, int channels, int outs, int steps, PF_CONV_DIVISORS,
                     PF_CONV_GEOMETRY) {
  using Engine = pf::MmaEngine<T, M, N, WARPS_M, WARPS_N, STAGES, false, BYTES>;
  const pf::ConvGeometry g PF_CONV_GIVEN;
  const pf::Divisor out[3] = PF_CONV_DIVISORS_GIVEN;
  pf::conv_weight<Engine>(grad, x, part, {positions, groups, channels, outs, steps}, g, out);
}
