// Maximum and average pooling over up to three dimensions, plane by plane.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Lengths along (depth, height, width); fewer dimensions have ones in front. A stride of 0 stands for adaptive windows:
// that of output o goes from o * size / out, rounded down, to (o + 1) * size / out, rounded up.
struct PoolShape {
  std::int64_t size[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
};

template <class T>
struct PoolKernels {
  // Maxima of one plane and, unless `places` is null, where they are in it: the first of equal ones, but the last NaN.
  // `readable` is how many elements may be read from x on.
  void (*max)(const PoolShape& shape, const T* x, std::int64_t readable, T* y, std::int64_t* places);
  // gx = 0, then gx[places[i]] += g[i]. A place must lie in its output's window.
  void (*max_backward)(const PoolShape& shape, const T* g, const std::int64_t* places, T* gx);
  // Window sums of one plane, times a factor for each output position along each dimension.
  void (*average)(const PoolShape& shape, const T* x, std::int64_t readable, T* y, const T* const* factors);
  void (*average_backward)(const PoolShape& shape, const T* g, T* gx, const T* const* factors);
  // Sums of whole planes times a factor.
  void (*average_whole)(const T* x, T* y, std::int64_t planes, std::int64_t pixels, T factor);
};

struct PoolTable {
  PoolKernels<float> f32;
  PoolKernels<double> f64;
};
PYFRAME_ISA_TABLE(PoolTable, pool_table, pool_kernels)

}  // namespace pyframe
