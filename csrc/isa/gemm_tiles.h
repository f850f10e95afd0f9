// The loops over the tiles of a block of C, around the microkernel with one step or another.
#pragma once

#include "gemm_table.h"

#include "isa/gemm_finish.h"
#include "isa/gemm_micro.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T, class Step>
constexpr Microkernels<T, Step> microkernels{};

// Whether tiles may be finished in the microkernel's registers: it knows biases and relu, and adds to C.
template <class T>
PYFRAME_INLINE bool finishes_in_registers(const Gemm<T>& p, const GemmBlock<T>& b) {
  if (p.alpha != 1 || (b.first && p.beta != 0) || (p.segment == 0 && p.column_stride != 1)) return false;
  return !b.last || (!p.residual && !p.map && !p.half);
}

// One tile of C.
template <class T, class Step>
PYFRAME_INLINE void tile(const Gemm<T>& p, const GemmBlock<T>& b, bool in_registers, int64_t i, int64_t rows, int64_t j,
                         int64_t columns) {
  const T* const left = b.left + i / b.height * b.left_panel;
  const bool last_panel = columns < kColumns<T> && b.right_tail;
  const T* const right = last_panel ? b.right_tail : b.right + j / kColumns<T> * b.right_panel;
  const int64_t right_depth = last_panel ? b.right_tail_depth : b.right_depth;
  const int vectors = static_cast<int>((columns + kLanes<T> - 1) / kLanes<T>);
  const Microkernel<T> kernel = microkernels<T, Step>.of[rows][vectors];
  const int64_t row = b.row + i, column = b.column + j;
  const int64_t tail = columns - (vectors - 1) * kLanes<T>;
  if (in_registers && (kMaskedTail || tail == kLanes<T>)) {
    int64_t offset = column;
    bool straight = true;
    if (p.segment != 0) {
      const int64_t inside = column % p.segment;
      offset = column / p.segment * p.segment_stride + inside;
      straight = inside + columns <= p.segment;
    }
    if (straight) {
      Target<T> to{p.c + row * p.row_stride + offset, p.row_stride, !b.first, tail};
      if (b.last) {
        if (p.row_bias) to.row_bias = p.row_bias + row;
        if (p.column_bias) to.column_bias = p.column_bias + column;
        to.relu = p.activation == Activation::relu;
      }
      return kernel(b.depth, left, b.left_line, b.left_depth, right, right_depth, to);
    }
  }
  alignas(64) T sums[kRows * kColumns<T>];
  kernel(b.depth, left, b.left_line, b.left_depth, right, right_depth, Target<T>{sums, kColumns<T>});
  for (int64_t r = 0; r < rows; ++r) {
    finish_row(p, row + r, column, columns, sums + r * kColumns<T>, b.first, b.last);
  }
}

template <class T, class Step>
void multiply(const Gemm<T>& p, const GemmBlock<T>& b) {
  const bool in_registers = finishes_in_registers(p, b);
  if (b.rows_inside) {
    for (int64_t j = 0; j < b.columns; j += kColumns<T>) {
      const int64_t columns = smaller<int64_t>(b.columns - j, kColumns<T>);
      for (int64_t i = 0; i < b.rows; i += b.height) {
        tile<T, Step>(p, b, in_registers, i, smaller<int64_t>(b.rows - i, b.height), j, columns);
      }
    }
  } else {
    for (int64_t i = 0; i < b.rows; i += b.height) {
      const int64_t rows = smaller<int64_t>(b.rows - i, b.height);
      for (int64_t j = 0; j < b.columns; j += kColumns<T>) {
        tile<T, Step>(p, b, in_registers, i, rows, j, smaller<int64_t>(b.columns - j, kColumns<T>));
      }
    }
  }
}

template <class T>
void add(T* target, const T* sum, int64_t count) {
  for (int64_t i = 0; i < count; ++i) target[i] += sum[i];
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
