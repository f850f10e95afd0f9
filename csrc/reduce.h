// Sums, extrema and their like over contiguous rows or over the columns of blocks of rows.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

enum class Fold : int { sum, max, min, square_spread, prod };  // square_spread: Σ (x - mean)²

// Of elements in memory that are computed as T.
template <class T>
struct FoldKernels {
  // One row of n elements. `mean` counts for square_spread only.
  double (*row)(const void* x, std::int64_t n, Fold fold, T mean);
  // Folds [rows, inner] along the first dimension into out[begin..end), starting anew; `mean` is per column.
  void (*columns)(const void* x, std::int64_t rows, std::int64_t inner, std::int64_t begin, std::int64_t end, Fold fold,
                  const T* mean, T* out);
};

template <class T>
struct ReduceKernels {
  FoldKernels<T> fold;
  // The first index of the largest (or smallest) element; NaN counts as that.
  std::int64_t (*arg)(const T* x, std::int64_t n, bool largest);
  // The same along the first dimension of [rows, inner], for the columns begin to end; rows < 2^31.
  void (*arg_columns)(const T* x, std::int64_t rows, std::int64_t inner, std::int64_t begin, std::int64_t end,
                      bool largest, std::int64_t* out);
  // Of the first n elements, how many from the front are surely none beyond `bar` (greater, or smaller) and no NaN.
  std::int64_t (*within)(const T* x, std::int64_t n, T bar, bool largest);
  // Running sums (or products) along the first dimension of [n, inner], for the columns begin to end; from the end if
  // `reverse`.
  void (*scan)(const T* x, T* y, std::int64_t n, std::int64_t inner, std::int64_t begin, std::int64_t end, bool reverse,
               bool product);
};

struct ReduceTable {
  ReduceKernels<float> f32;
  ReduceKernels<double> f64;
  FoldKernels<float> f16, bf16;
};
PYFRAME_ISA_TABLE(ReduceTable, reduce_table, reduce_kernels)

}  // namespace pyframe
