// A layer's convolution and its gradients as sliding sums.
#include <algorithm>

#include "conv.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
Images<const T> read_only(const Images<T>& images) {
  Images<const T> r;
  r.data = images.data, r.image = images.image, r.channel = images.channel;
  std::copy_n(images.stride, 3, r.stride);
  std::copy_n(images.size, 3, r.size);
  return r;
}

// Output from input.
template <class T>
Correlation<T> sums_of(const Convolution<T>& l) {
  Correlation<T> p;
  p.batch = l.batch, p.groups = l.groups, p.outs = l.outs, p.ins = l.ins;
  p.source = read_only(l.input);
  p.out = l.output;
  for (int d = 0; d < 3; ++d) {
    p.step[d] = l.stride[d];
    for (int64_t t = 0; t < l.kernel[d]; ++t) {
      p.place[d].push_back(t * l.dilation[d] - l.before[d]);
      p.tap[d].push_back(t * l.weight_stride[d]);
    }
  }
  p.weight = l.weight;
  p.weight_out = l.weight_out, p.weight_in = l.weight_in, p.weight_group = l.outs * l.weight_out;
  p.bias = l.bias, p.relu = l.relu;
  return p;
}

}  // namespace

template <class T>
void convolve(const Convolution<T>& layer) {
  correlate(sums_of(layer));
}

// Input pixel i gets output pixel p through tap t where i + before = p * stride + t * dilation. Inputs whose i + before
// has the same remainder by the stride see the same taps, and neighbours among them see neighbouring outputs: one
// correlation with step 1 per combination of remainders.
template <class T>
void convolve_transposed(const Convolution<T>& l) {
  const int64_t* const size = l.input.size;
  int64_t first[3];
  for (first[0] = 0; first[0] < std::min(l.stride[0], size[0]); ++first[0]) {
    for (first[1] = 0; first[1] < std::min(l.stride[1], size[1]); ++first[1]) {
      for (first[2] = 0; first[2] < std::min(l.stride[2], size[2]); ++first[2]) {
        Correlation<T> p;
        p.batch = l.batch, p.groups = l.groups, p.outs = l.ins, p.ins = l.outs;
        p.source = read_only(l.output);
        p.out = l.input;
        for (int d = 0; d < 3; ++d) {
          const int64_t stride = l.stride[d];
          p.out.data += first[d] * l.input.stride[d];
          p.out.stride[d] = l.input.stride[d] * stride;
          p.out.size[d] = (size[d] - first[d] + stride - 1) / stride;
          for (int64_t t = 0; t < l.kernel[d]; ++t) {
            const int64_t at = first[d] + l.before[d] - t * l.dilation[d];
            if (at % stride) continue;
            p.place[d].push_back(at / stride);
            p.tap[d].push_back(t * l.weight_stride[d]);
          }
        }
        p.weight = l.weight;
        p.weight_out = l.weight_in, p.weight_in = l.weight_out, p.weight_group = l.outs * l.weight_out;
        p.bias = l.bias, p.relu = l.relu;
        correlate(p);
      }
    }
  }
}

template <class T>
void convolve_weight(const Convolution<T>& layer) {
  correlate_weight(sums_of(layer), layer.weight);
}

template void convolve(const Convolution<float>&);
template void convolve(const Convolution<double>&);
template void convolve_transposed(const Convolution<float>&);
template void convolve_transposed(const Convolution<double>&);
template void convolve_weight(const Convolution<float>&);
template void convolve_weight(const Convolution<double>&);

}  // namespace pyframe
