// Softmax and log-softmax, forward and backward.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// What one thread does for a range of rows (the reduced dimension is contiguous) or of columns (it is strided).
template <class T>
struct SoftmaxKernels {
  // y = softmax(x) of `rows` rows of length n; with `log` its logarithm.
  void (*rows)(const T* x, T* y, std::int64_t rows, std::int64_t n, bool log, bool past_cache);
  // The same along the first dimension of [n, inner], for the columns begin to end.
  void (*columns)(const T* x, T* y, std::int64_t n, std::int64_t inner, std::int64_t begin, std::int64_t end, bool log);
  void (*rows_backward)(const T* g, const T* y, T* gx, std::int64_t rows, std::int64_t n, bool log, bool past_cache);
  void (*columns_backward)(const T* g, const T* y, T* gx, std::int64_t n, std::int64_t inner, std::int64_t begin,
                           std::int64_t end, bool log);
};

struct SoftmaxTable {
  SoftmaxKernels<float> f32;
  SoftmaxKernels<double> f64;
};
PYFRAME_ISA_TABLE(SoftmaxTable, softmax_table, softmax_kernels)

}  // namespace pyframe
