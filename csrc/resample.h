// Resampling of images by short weighted sums along height and width: every kind of interpolation, and its gradient,
// which is the same with other tables.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Output o is the sum over t of weight[t * to + o] times input index[t * to + o]; without taps, output o is input o.
template <class T>
struct ResampleAxis {
  std::int64_t from, to, taps;
  const std::int64_t* index;
  const T* weight;
};

template <class T>
struct ResampleShape {
  ResampleAxis<T> height, width;
};

constexpr std::int64_t kResampleRows = 16;  // output rows of one piece of work

template <class T>
struct ResampleKernels {
  // Pieces begin to end, counted over (planes, blocks of output rows).
  void (*run)(const ResampleShape<T>& shape, const T* x, T* y, std::int64_t begin, std::int64_t end, void* scratch);
};

// Bytes of scratch memory that a call of `run` needs.
template <class T>
std::int64_t resample_scratch(const ResampleShape<T>& shape) {
  const std::int64_t outputs = shape.width.to + 64, vectors = outputs * shape.width.taps * 3;
  return (shape.width.from + 64 + vectors) * static_cast<std::int64_t>(sizeof(T)) + outputs * shape.width.taps * 8;
}

struct ResampleTable {
  ResampleKernels<float> f32;
  ResampleKernels<double> f64;
};
PYFRAME_ISA_TABLE(ResampleTable, resample_table, resample_kernels)

}  // namespace pyframe
