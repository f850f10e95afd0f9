// A layer's convolution and its gradients as sliding sums.
#include <algorithm>
#include <numeric>

#include "conv.h"
#include "conv_winograd.h"

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

// How far apart the taps of a dimension lie, all being multiples of it from each other.
template <class T>
int64_t apart(const Correlation<T>& p, int d) {
  int64_t distance = 0;
  for (int64_t place : p.place[d]) distance = std::gcd(distance, place - p.place[d][0]);
  return p.step[d] == 1 ? std::max<int64_t>(distance, 1) : 1;
}

// The sums at every `distance`th index of a dimension from `first` on: all they see of the source are such indices too,
// among which the taps are neighbours.
template <class T>
Correlation<T> every(const Correlation<T>& p, int d, int64_t distance, int64_t first) {
  Correlation<T> q = p;
  const int64_t at = first + p.place[d][0], rest = (at % distance + distance) % distance;
  for (int64_t& place : q.place[d]) place = (first + place - rest) / distance;
  q.out.data += first * p.out.stride[d];
  q.out.stride[d] *= distance;
  q.out.size[d] = (p.out.size[d] - first + distance - 1) / distance;
  if (rest < p.source.size[d]) q.source.data += rest * p.source.stride[d];
  q.source.stride[d] *= distance;
  q.source.size[d] = std::max<int64_t>(0, p.source.size[d] - rest + distance - 1) / distance;
  return q;
}

// Every `distance`th row as `distance` slices of an unused third dimension, where all of them are alike.
template <class T>
bool slice_rows(Correlation<T>& p, int64_t distance) {
  if (p.out.size[0] != 1 || p.source.size[0] != 1 || p.place[0].size() != 1 || p.place[0][0] || p.step[0] != 1 ||
      p.out.size[1] % distance || p.source.size[1] % distance || p.place[1][0] % distance) {
    return false;
  }
  const int64_t out = p.out.stride[1], source = p.source.stride[1];
  p = every(p, 1, distance, 0);
  p.out.size[0] = p.source.size[0] = distance;
  p.out.stride[0] = out, p.source.stride[0] = source;
  return true;
}

// A dilated kernel works as dense ones on every so manieth row and column. That pays where Winograd's transforms then
// fit, which save more than half of the multiplications, and there are enough channels for them and enough pixels for
// the transformed weights.
template <class T>
void correlate_apart(const Correlation<T>& p) {
  constexpr int64_t kPixels = 256, kChannels = 32;
  for (const std::vector<int64_t>& places : p.place) {
    if (places.empty()) return correlate(p);  // no tap reaches these outputs
  }
  const int64_t rows = apart(p, 1), columns = winograd_form(every(p, 1, rows, 0)) ? 1 : apart(p, 2);
  const int64_t phases = std::min(rows, p.out.size[1]) * std::min(columns, p.out.size[2]);
  const int64_t pixels = p.batch * p.out.size[0] * p.out.size[1] * p.out.size[2];
  if (rows * columns == 1 || pixels < phases * kPixels || std::min(p.ins, p.outs) < kChannels ||
      !winograd_form(every(every(p, 1, rows, 0), 2, columns, 0))) {
    return correlate(p);
  }
  Correlation<T> sliced = p;
  const int64_t parts = rows == 1 || slice_rows(sliced, rows) ? 1 : rows;
  for (int64_t y = 0; y < std::min(parts, p.out.size[1]); ++y) {
    const Correlation<T> part = parts == 1 ? sliced : every(p, 1, rows, y);
    for (int64_t x = 0; x < std::min(columns, p.out.size[2]); ++x) correlate(every(part, 2, columns, x));
  }
}

}  // namespace

template <class T>
void convolve(const Convolution<T>& layer) {
  correlate_apart(sums_of(layer));
}

// Input pixel i gets output pixel p through tap t where i + before = p * stride + t * dilation. Inputs whose i + before
// has the same remainder by the stride see the same taps, and neighbours among them see neighbouring outputs: one
// correlation with step 1 per combination of remainders. Inputs that no tap of a dimension reaches are done together.
template <class T>
void transposed_from(const Convolution<T>& l, int d, Correlation<T>& p, bool reached) {
  if (d == 3) return correlate_apart(p);
  const int64_t size = l.input.size[d], stride = reached ? l.stride[d] : 1;
  T* const data = p.out.data;
  for (int64_t first = 0; first < std::min(stride, size); ++first) {
    p.out.data = data + first * l.input.stride[d];
    p.out.stride[d] = l.input.stride[d] * stride;
    p.out.size[d] = (size - first + stride - 1) / stride;
    p.place[d].clear(), p.tap[d].clear();
    for (int64_t t = 0; t < l.kernel[d]; ++t) {
      const int64_t at = first + l.before[d] - t * l.dilation[d];
      if (at % stride) continue;
      p.place[d].push_back(at / stride);
      p.tap[d].push_back(t * l.weight_stride[d]);
    }
    transposed_from(l, d + 1, p, reached && !p.place[d].empty());
  }
  p.out.data = data;
}

template <class T>
void convolve_transposed(const Convolution<T>& l) {
  Correlation<T> p;
  p.batch = l.batch, p.groups = l.groups, p.outs = l.ins, p.ins = l.outs;
  p.source = read_only(l.output);
  p.out = l.input;
  p.weight = l.weight;
  p.weight_out = l.weight_in, p.weight_in = l.weight_out, p.weight_group = l.outs * l.weight_out;
  p.bias = l.bias, p.relu = l.relu;
  transposed_from(l, 0, p, true);
}

template <class T>
void convolve_weight(const Convolution<T>& layer) {
  const Correlation<T> p = sums_of(layer);
  Correlation<T> sliced = p;
  const bool apart_rows = apart(p, 1) > 1 && slice_rows(sliced, apart(p, 1)) && fits_winograd_weight(sliced);
  correlate_weight(apart_rows ? sliced : p, layer.weight);
}

template void convolve(const Convolution<float>&);
template void convolve(const Convolution<double>&);
template void convolve_transposed(const Convolution<float>&);
template void convolve_transposed(const Convolution<double>&);
template void convolve_weight(const Convolution<float>&);
template void convolve_weight(const Convolution<double>&);

}  // namespace pyframe
