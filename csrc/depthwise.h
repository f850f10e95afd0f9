// Convolutions with few channels per group, depthwise ones above all, computed directly: every channel's image is
// copied tile by tile into a small padded window, on which the taps of the kernel are sums of shifted vectors.
//
// The gradient with respect to the input is such a sum too: of the output's gradient, with the kernel turned round. With
// a stride it falls into as many independent sums (phases) as the stride has steps, each with its own taps.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

constexpr int kMostPhases = 8;
constexpr std::int64_t kSmallWindow = 1536;  // elements of windows of which two are kept

// The taps that reach the destinations of one phase: tap first_tap + u * tap_step is for the source `first` + u * spread.
struct DepthwisePhase {
  std::int64_t taps, first_tap, tap_step, first;
};

// One dimension. Destination i * phases + p is a sum over the sources from i * stride on.
struct DepthwiseAxis {
  std::int64_t from, to;              // lengths of source and destination
  std::int64_t stride, spread;        // between the windows of neighbours, and between taps
  std::int64_t low, reach;            // what all phases need of the source: i * stride + low up to that plus reach
  std::int64_t phases;
  DepthwisePhase phase[kMostPhases];
};

struct DepthwisePlan {
  std::int64_t batch, groups, ins, outs;      // source and destination channels of a group
  std::int64_t kernel[3];
  std::int64_t in_weights, out_weights;       // elements between the weights of neighbouring channels
  DepthwiseAxis axis[3];                      // depth, height, width
  std::int64_t tile[2], tiles[2];             // size (in destinations of one phase) and number along height and width
  std::int64_t rows, lane, pitch;             // of a window: rows, elements of one residue of the stride, row distance
  std::int64_t window, spare;                 // scratch elements for a window, and for the phases of a tile
  bool flat;                                  // small images without stride or change of size need no window
  bool across;                                // narrow images: a vector holds a pixel of several channels, not a row's
  std::int64_t above, below;                  // rows of zeros around those
};

template <class T>
struct DepthwiseKernels {
  std::int64_t lanes;
  // Tiles begin to end, counted over (batch, groups, depth, tiles). `bias` may be nullptr.
  void (*correlate)(const DepthwisePlan& plan, const T* from, const T* weight, const T* bias, T* to, std::int64_t begin,
                    std::int64_t end, T* scratch);
  // The weight's gradient of groups begin to end over images first to last; `plan` is the forward's.
  void (*weight)(const DepthwisePlan& plan, const T* from, const T* gradient, T* weight, std::int64_t begin,
                 std::int64_t end, std::int64_t first, std::int64_t last, T* scratch);
  // The sums of `lanes` groups at once: window[above + row + below][column][lanes], weight[tap][lanes] and `first`, what
  // sums start from, to to[row][column][lanes].
  void (*across)(const DepthwisePlan& plan, const T* window, const T* weight, const T* first, T* to);
};

struct DepthwiseTable {
  DepthwiseKernels<float> f32;  // double would be 50 KB of a wheel that has a limit, for what tests compute with
};
PYFRAME_ISA_TABLE(DepthwiseTable, depthwise_table, depthwise_kernels)

// A convolution as Python describes it.
struct DepthwiseShape {
  std::int64_t batch, groups, ins, outs;  // channels per group of its input and output
  std::int64_t size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
};

// y = convolution of x, or x's gradient from y's; `bias` may be nullptr.
void depthwise_forward(const DepthwiseShape& shape, const float* x, const float* weight, const float* bias, float* y);
void depthwise_grad_input(const DepthwiseShape& shape, const float* g, const float* weight, float* gx);
void depthwise_grad_weight(const DepthwiseShape& shape, const float* g, const float* x, float* gw);

}  // namespace pyframe
