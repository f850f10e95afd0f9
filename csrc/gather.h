// Sums of rows chosen by an index.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

struct GatherTable {
  // out = factor · Σ x[order[i]] over `count` rows of `width` elements, in that order.
  void (*sum_rows_f32)(const float* x, const std::int64_t* order, std::int64_t count, std::int64_t width, float factor,
                       float* out);
  void (*sum_rows_f64)(const double* x, const std::int64_t* order, std::int64_t count, std::int64_t width,
                       double factor, double* out);
  void (*add_row_f32)(float* to, const float* from, std::int64_t width);
  void (*add_row_f64)(double* to, const double* from, std::int64_t width);
  // The least and the greatest of count > 0 numbers.
  void (*range)(const std::int64_t* index, std::int64_t count, std::int64_t* least_and_greatest);
  // places[i] = the number in C order of the element (index[i], index[step + i], ...) of an array with `dims` lengths.
  void (*places)(const std::int64_t* index, std::int64_t step, const std::int64_t* lengths, std::int64_t dims,
                 std::int64_t count, std::int64_t* places);
};
PYFRAME_ISA_TABLE(GatherTable, gather_table, gather_kernels)

}  // namespace pyframe
