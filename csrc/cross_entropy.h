// Cross entropy of logits against classes or probabilities, with weights and smoothed labels; and Σ exp(x) alone.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// What a loss compares with. Its q are the target's probabilities: those given, or 1 for the target's class, both
// times `keep`, plus `share`, times the weight of the class.
template <class T>
struct CrossTarget {
  const std::int64_t* classes;  // or null
  const T* probabilities;       // laid out like x, or null
  const T* weight;              // of each class, or null
  std::int64_t ignored;         // a class that counts nothing
  T keep, share;                // 1 - smoothing, smoothing / classes
  T weight_sum;                 // of all classes
};

// What one thread does for rows of n logits, or for the columns begin to end of [n, inner] where classes are strided.
// Everything points to the first row or to column 0.
template <class T>
struct CrossKernels {
  // The maximum and Σ exp(x - maximum); with `finite`, an infinite maximum counts as 0.
  void (*rows_mass)(const T* x, T* top, T* mass, std::int64_t rows, std::int64_t n, bool finite);
  void (*columns_mass)(const T* x, T* top, T* mass, std::int64_t n, std::int64_t inner, std::int64_t begin,
                       std::int64_t end, bool finite);
  // Also the losses; adds up losses and weights of the targets in sums[0] and sums[1].
  void (*rows)(const CrossTarget<T>& target, const T* x, T* loss, T* top, T* mass, std::int64_t rows, std::int64_t n,
               double* sums);
  void (*columns)(const CrossTarget<T>& target, const T* x, T* loss, T* top, T* mass, std::int64_t n,
                  std::int64_t inner, std::int64_t begin, std::int64_t end, double* sums);
  // gx = g · (softmax · Σ q - q), where g[i * g_step] · scale is the cotangent of loss i.
  void (*rows_backward)(const CrossTarget<T>& target, const T* x, const T* g, std::int64_t g_step, T scale,
                        const T* top, const T* mass, T* gx, std::int64_t rows, std::int64_t n, bool past_cache);
  void (*columns_backward)(const CrossTarget<T>& target, const T* x, const T* g, std::int64_t g_step, T scale,
                           const T* top, const T* mass, T* gx, std::int64_t n, std::int64_t inner, std::int64_t begin,
                           std::int64_t end);
};

struct CrossTable {
  CrossKernels<float> f32;
  CrossKernels<double> f64;
};
PYFRAME_ISA_TABLE(CrossTable, cross_table, cross_kernels)

}  // namespace pyframe
