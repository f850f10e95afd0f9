// The kernels under gemm(), one table per instruction set level. Only gemm*.cpp and csrc/isa/gemm*.cpp include this.
#pragma once

#include "gemm.h"
#include "isa_tables.h"

namespace pyframe {

// A block of the product for one call of the macrokernel: rows [row, row + rows) and columns [column, column + columns),
// over `depth` elements of K.
template <class T>
struct GemmBlock {
  std::int64_t row, rows, column, columns, depth;
  // Left element (i, kk) at left[i * left_line + kk * left_depth] inside a panel of `height` rows, panels left_panel apart.
  const T* left;
  std::int64_t height, left_line, left_depth, left_panel;
  // Right element (kk, j) at right[kk * right_depth + j] inside a panel of GemmTile::columns columns, panels right_panel
  // apart. A last, incomplete panel must be readable in full width: it lies at `right_tail` where that is given.
  const T* right;
  std::int64_t right_depth, right_panel;
  const T* right_tail;
  std::int64_t right_tail_depth;
  bool first, last;   // whether this is the first and the last part of K
  bool rows_inside;   // inner loop over row panels (the right panel stays in the first-level cache), else over columns
};

// A thin product, for at most kThin lines of one factor: sums of lines of the big factor.
constexpr std::int64_t kThin = 8;

template <class T>
struct GemmKernels {
  std::int64_t rows, columns;  // the register tile

  // Writes lines of a strided factor as panels, as described at Factor::pack.
  void (*pack)(const Factor<T>& factor, std::int64_t line, std::int64_t lines, std::int64_t k, std::int64_t depth,
               std::int64_t width, T* packed);

  void (*multiply)(const Gemm<T>& problem, const GemmBlock<T>& block);

  // Finishes (alpha, beta, bias, ...) rows of sums that lie at sums[i * row_stride + j * column_stride].
  void (*finish)(const Gemm<T>& problem, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns,
                 const T* sums, std::int64_t row_stride, std::int64_t column_stride);

  // out[i * out_few + l * out_line] = sum over k of few[i * depth + k] * big(line + l, k), for `count` <= kThin lines
  // of the thin factor, packed one after the other, and `lines` of the big one. thin_dot: big's depth_stride is 1;
  // thin_axpy: its line_stride is 1 and out_line is 1.
  void (*thin_dot)(const T* few, std::int64_t count, const T* big, std::int64_t line_stride, std::int64_t lines,
                   std::int64_t depth, T* out, std::int64_t out_few, std::int64_t out_line);
  void (*thin_axpy)(const T* few, std::int64_t count, const T* big, std::int64_t depth_stride, std::int64_t lines,
                    std::int64_t depth, T* out, std::int64_t out_few);

  // target[i] += sum[i]
  void (*add)(T* target, const T* sum, std::int64_t count);

  // Runs nothing but fused multiply-adds; returns how many floating point operations that were.
  double (*peak)(std::int64_t rounds);
};

struct GemmTable {
  GemmKernels<float> f32;
  GemmKernels<double> f64;
};
PYFRAME_ISA_TABLE(GemmTable, gemm_table, gemm_kernels)

// The kernels for pairs of bfloat16 elements (Factor::pairs_of), without the thin ones; nullptr where there are none.
#if defined(PYFRAME_AVX512_BF16)
namespace avx512_bf16 { extern const GemmKernels<float> gemm_pair_kernels; }
inline const GemmKernels<float>* pair_kernels() {
  return active_isa() == Isa::avx512_bf16 ? &avx512_bf16::gemm_pair_kernels : nullptr;
}
#else
inline const GemmKernels<float>* pair_kernels() { return nullptr; }
#endif

}  // namespace pyframe
