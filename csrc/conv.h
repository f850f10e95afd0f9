// Convolution without an im2col matrix: sliding sums over one, two or three dimensions.
//
// A piece of the padded source that fits in the second-level cache is copied into a window, channel by channel. All that
// a tap of the kernel does is then an offset into that window, and the microkernels read it there; or, where output rows
// are short, after the values of a few hundred taps and pixels have been lined up as packed panels.
//
// The bits of a result depend on the shapes and the instruction set level only, not on the number of threads.
#pragma once

#include <cstdint>
#include <vector>

namespace pyframe {

// Strided access to images: batch, channels and three dimensions; absent ones come first with length 1. Strides count
// elements and may be anything.
template <class T>
struct Images {
  T* data = nullptr;
  std::int64_t image = 0, channel = 0, stride[3] = {0, 0, 0};
  std::int64_t size[3] = {1, 1, 1};
};

// Sliding sums, the common form of a convolution and of its gradients:
//   out[n, g, m, j] = bias[g, m] + sum over c and taps t of
//                     weight[g * weight_group + m * weight_out + c * weight_in + tap[t]] * source[n, g, c, j * step + place[t]]
// with zeros outside of the source. The taps are the product of those of each dimension.
template <class T>
struct Correlation {
  std::int64_t batch = 1, groups = 1, outs = 1, ins = 1;  // channels of one group
  Images<const T> source;
  Images<T> out;  // its size holds the lengths of j
  std::int64_t step[3] = {1, 1, 1};
  std::vector<std::int64_t> place[3], tap[3];
  const T* weight = nullptr;
  std::int64_t weight_group = 0, weight_out = 0, weight_in = 0;
  const T* bias = nullptr;
  bool relu = false;
};

// Runs on all threads (inside a parallel loop: on the calling thread). Throws std::bad_alloc.
void correlate(const Correlation<float>& problem);
void correlate(const Correlation<double>& problem);

// The gradient with respect to the weight: writes `target`, laid out as `weight` is, where `out` holds the gradient of
// the sums. weight, bias and relu are not looked at.
void correlate_weight(const Correlation<float>& problem, float* target);
void correlate_weight(const Correlation<double>& problem, double* target);

// What a layer says: sizes and parameters per dimension, `before` being the padding in front.
template <class T>
struct Convolution {
  std::int64_t batch = 1, groups = 1, outs = 1, ins = 1;  // channels of one group
  Images<T> input, output;
  std::int64_t kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, before[3] = {0, 0, 0}, dilation[3] = {1, 1, 1};
  T* weight = nullptr;
  std::int64_t weight_out = 0, weight_in = 0, weight_stride[3] = {0, 0, 0};
  const T* bias = nullptr;
  bool relu = false;
};

// Output from input and weight; input from output and weight (plus a bias per input channel: a transposed convolution);
// weight from output and input. Everything but what is computed is only read.
template <class T>
void convolve(const Convolution<T>& layer);
template <class T>
void convolve_transposed(const Convolution<T>& layer);
template <class T>
void convolve_weight(const Convolution<T>& layer);

}  // namespace pyframe
