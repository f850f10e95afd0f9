// Layer, group and batch normalisation, forward and backward.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// What one thread does. A segment is a contiguous run of elements with the same statistics and weights.
template <class T>
struct NormKernels {
  double (*sum)(const T* x, std::int64_t n);
  // Σ (x - mean)²
  double (*spread)(const T* x, std::int64_t n, T mean);
  // y = (x - mean) · a + b
  void (*scale_shift)(const T* x, T* y, std::int64_t n, T mean, T a, T b, bool past_cache);
  // out[0] = Σ g, out[1] = Σ g · (x - mean)
  void (*dots)(const T* g, const T* x, std::int64_t n, T mean, double* out);
  // gx = a · g - k · (x - mean) - m
  void (*segment_grad)(const T* g, const T* x, T* gx, std::int64_t n, T mean, T a, T k, T m, bool past_cache);

  // Rows with a weight and a bias (or null) for each of their n elements.
  void (*layer)(const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, std::int64_t rows, std::int64_t n, double eps,
                bool past_cache);
  // Adds Σ g · z and Σ g over the rows to gw and gb.
  void (*layer_backward)(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, T* gw, T* gb,
                         std::int64_t rows, std::int64_t n, bool past_cache);

  // Columns of a block of rows: means and Σ (x - mean)² of each.
  void (*column_stats)(const T* x, std::int64_t rows, std::int64_t n, T* mean, T* spread);
  void (*columns_scale)(const T* x, T* y, std::int64_t rows, std::int64_t n, const T* mean, const T* a, const T* b,
                        bool past_cache);
  // sums = Σ g, dots = Σ g · (x - mean) of each column.
  void (*column_dots)(const T* g, const T* x, std::int64_t rows, std::int64_t n, const T* mean, T* sums, T* dots);
  void (*columns_grad)(const T* g, const T* x, T* gx, std::int64_t rows, std::int64_t n, const T* mean, const T* a,
                       const T* k, const T* m, bool past_cache);
};

struct NormTable {
  NormKernels<float> f32;
  NormKernels<double> f64;
};
PYFRAME_ISA_TABLE(NormTable, norm_table, norm_kernels)

}  // namespace pyframe
