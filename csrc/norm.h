// Layer, RMS, group and batch normalisation, forward and backward.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Rows whose column sums are added up in T before they go into doubles.
constexpr std::int64_t kNormStep = 64;

// What one thread does.
template <class T>
struct NormKernels {
  // Channels: `count` runs of s elements one after the other, each with numbers of its own. out[c] += Σ x
  void (*sums)(const T* x, std::int64_t count, std::int64_t s, double* out);
  // out[c] += Σ (x - mean[c])²
  void (*spreads)(const T* x, std::int64_t count, std::int64_t s, const T* mean, double* out);
  // y = (x - mean) · a + b
  void (*scale)(const T* x, T* y, std::int64_t count, std::int64_t s, const T* mean, const T* a, const T* b,
                bool past_cache);
  // out[2 c] += Σ g, out[2 c + 1] += Σ g · (x - mean)
  void (*dots)(const T* g, const T* x, std::int64_t count, std::int64_t s, const T* mean, double* out);
  // gx = a · g - k · (x - mean) - m
  void (*grad)(const T* g, const T* x, T* gx, std::int64_t count, std::int64_t s, const T* mean, const T* a, const T* k,
               const T* m, bool past_cache);

  // Rows, one after the other, with a weight and a bias (or null) for each of their n elements; without a place for the
  // means the rows are not centered (RMS norm).
  void (*layer)(const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, std::int64_t rows, std::int64_t n, double eps,
                bool past_cache);
  // Rows at a distance of `step`, their statistics at a distance of `stat_step`; mean is null for RMS norm. Adds Σ g · z
  // and Σ g over the rows to gw and gb. `scratch` has room for 2 n + 64 elements.
  void (*layer_backward)(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, double* gw, double* gb,
                         T* scratch, std::int64_t rows, std::int64_t n, std::int64_t step, std::int64_t stat_step,
                         bool past_cache);

  // A block of n columns of a matrix with rows of `step` elements, of which up to kNormStep are looked at. Means and
  // Σ (x - mean)² of each column.
  void (*column_stats)(const T* x, std::int64_t rows, std::int64_t n, std::int64_t step, T* mean, T* spread);
  // sums = Σ g, dots = Σ g · (x - mean) of each column.
  void (*column_dots)(const T* g, const T* x, std::int64_t rows, std::int64_t n, std::int64_t step, const T* mean,
                      T* sums, T* dots);
  // Whole rows: y = (x - mean) · a + b and gx = a · g - k · (x - mean) - m with vectors along the row.
  void (*columns_scale)(const T* x, T* y, std::int64_t rows, std::int64_t n, const T* mean, const T* a, const T* b,
                        bool past_cache);
  void (*columns_grad)(const T* g, const T* x, T* gx, std::int64_t rows, std::int64_t n, const T* mean, const T* a,
                       const T* k, const T* m, bool past_cache);
  // total += values
  void (*add_to_double)(const T* values, double* total, std::int64_t n);
  // Joins the means and spreads of `blocks` blocks of kNormStep rows (the last has fewer): blocks of n elements at a
  // distance of `step`.
  void (*join_moments)(const T* means, const T* spreads, std::int64_t blocks, std::int64_t rows, std::int64_t n,
                       std::int64_t step, double* mean, double* spread);
};

struct NormTable {
  NormKernels<float> f32;
  NormKernels<double> f64;
};
PYFRAME_ISA_TABLE(NormTable, norm_table, norm_kernels)

template <class T>
const NormKernels<T>& norms() {
  if constexpr (sizeof(T) == 4) return norm_kernels().f32;
  else return norm_kernels().f64;
}

}  // namespace pyframe
