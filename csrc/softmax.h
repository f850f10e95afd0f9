// Softmax, log-softmax and cross entropy, forward and backward.
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
  // Cross entropy of rows: the maximum, the sum of exponentials relative to it, and the loss of the target's class
  // (0 where it is ignored); adds the losses and the weights to sums[0] and sums[1].
  void (*cross)(const T* x, const std::int64_t* target, const T* weight, std::int64_t ignored, T* loss, T* top, T* mass,
                std::int64_t rows, std::int64_t n, double* sums);
  // gx = g · weight[target] · (softmax - onehot), where g[i * g_step] is the cotangent of row i times `scale`.
  void (*cross_backward)(const T* x, const std::int64_t* target, const T* weight, std::int64_t ignored, const T* g,
                         std::int64_t g_step, T scale, const T* top, const T* mass, T* gx, std::int64_t rows,
                         std::int64_t n, bool past_cache);
};

struct SoftmaxTable {
  SoftmaxKernels<float> f32;
  SoftmaxKernels<double> f64;
};
PYFRAME_ISA_TABLE(SoftmaxTable, softmax_table, softmax_kernels)

}  // namespace pyframe
