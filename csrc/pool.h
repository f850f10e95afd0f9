// Maximum and average pooling over up to three dimensions, plane by plane.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Lengths along (depth, height, width); fewer dimensions have ones in front.
struct PoolShape {
  std::int64_t size[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
};

template <class T>
struct PoolKernels {
  // Maxima of one plane and where they are in it: the first of equal ones, but the last NaN. `readable` is how many
  // elements may be read from x on.
  void (*max)(const PoolShape& shape, const T* x, std::int64_t readable, T* y, std::int64_t* places);
  // gx = 0, then gx[places[i]] += g[i].
  void (*max_backward)(const T* g, const std::int64_t* places, T* gx, std::int64_t outputs, std::int64_t pixels);
  // Window sums of one plane, times a factor for each output position along each dimension.
  void (*average)(const PoolShape& shape, const T* x, std::int64_t readable, T* y, const T* const* factors);
  void (*average_backward)(const PoolShape& shape, const T* g, T* gx, const T* const* factors);
};

struct PoolTable {
  PoolKernels<float> f32;
  PoolKernels<double> f64;
};
PYFRAME_ISA_TABLE(PoolTable, pool_table, pool_kernels)

}  // namespace pyframe
