// Copies between arrays of any strides, and conversions between types.
#pragma once

#include <cstdint>

#include "isa_tables.h"
#include "pointwise_ops.h"

namespace pyframe {

constexpr int kCopySizes = 4;  // items of 1, 2, 4 and 8 bytes

// What one thread does. All steps are in bytes; nothing overlaps.
struct CopyTable {
  // out[c * out_step + r items] = in[r * in_step + c items] for c < columns and r < rows.
  void (*transpose[kCopySizes])(char* out, const char* in, std::int64_t rows, std::int64_t columns,
                                std::int64_t out_step, std::int64_t in_step, bool past_cache);
  // `count` lines of n items: out[k * out_outer + i * out_step] = in[k * in_outer + i * in_step].
  void (*lines[kCopySizes])(char* out, const char* in, std::int64_t count, std::int64_t n, std::int64_t out_outer,
                            std::int64_t in_outer, std::int64_t out_step, std::int64_t in_step);
  // `count` runs of adjacent bytes.
  void (*rows)(char* out, const char* in, std::int64_t count, std::int64_t bytes, std::int64_t out_step,
               std::int64_t in_step, bool past_cache);
  void (*bytes_to_floats)(float* out, const std::uint8_t* in, std::int64_t count);
  // out[j] = in[index[j]]: adjacent rows of `bytes` bytes, of which `in` has n. A negative index counts from the end.
  void (*chosen_rows)(char* out, const char* in, const std::int64_t* index, std::int64_t count, std::int64_t n,
                      std::int64_t bytes);
};
PYFRAME_ISA_TABLE(CopyTable, copy_table, copy_kernels)

constexpr int kMostCopyDims = 65;  // NumPy has at most 64, and an item of 16 bytes is one more

// out[i] = in[i] for arrays of one shape whose items have 1, 2, 4, 8 or 16 bytes. A stride of `in` may be 0; elements
// of `out` are distinct, and none of `in` lies in `out`.
void copy_strided(char* out, const char* in, int dims, const std::int64_t* shape, const std::int64_t* out_strides,
                  const std::int64_t* in_strides, std::int64_t item);

// out[i] = in[i] for i < count, converted; both aligned to their items.
void convert(char* out, Storage to, const char* in, Storage from, std::int64_t count);

// Planes of rows x columns items: those with column - row <= diagonal (or >=, if not `lower`), zeros elsewhere.
void copy_triangle(char* out, const char* in, std::int64_t planes, std::int64_t rows, std::int64_t columns,
                   std::int64_t item, std::int64_t diagonal, bool lower);

// out[i] = start + step * i for i < turn, else end - step * (count - 1 - i), computed in double.
void ramp(float* out, std::int64_t count, std::int64_t turn, double start, double step, double end);
void ramp(double* out, std::int64_t count, std::int64_t turn, double start, double step, double end);
// out[i] = start + step * i.
void ramp(std::int64_t* out, std::int64_t count, std::int64_t start, std::int64_t step);

}  // namespace pyframe
