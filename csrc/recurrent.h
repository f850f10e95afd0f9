// Recurrent layers over a sequence: LSTM, GRU and the plain recurrence, forward and backward through time.
//
// All arrays are C-contiguous: x [steps, batch, width], states [batch, hidden], y [steps, batch, hidden], gates
// [steps, batch, gates · hidden]. The bits of the results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

enum class RecurrentCell : int { lstm, gru, tanh, relu };
constexpr int kRecurrentCells = 4;

// How many gates' inputs a cell has.
constexpr std::int64_t recurrent_gates(RecurrentCell cell) {
  return cell == RecurrentCell::lstm ? 4 : cell == RecurrentCell::gru ? 3 : 1;
}

struct RecurrentShape {
  RecurrentCell cell;
  bool reverse;  // through time backward
  std::int64_t steps, batch, width, hidden;
};

template <class T>
struct RecurrentForward {
  RecurrentShape shape;
  const T *x, *h0, *c0, *w_ih, *w_hh, *b_ih, *b_hh;  // c0: LSTM; the biases may be null
  T *y, *h, *c;                                      // c: LSTM
  T* gates;                                          // LSTM and GRU: all gates, after their functions
  T* saved;  // LSTM: the cells of all steps; GRU: h·w_hhᵀ + b_hh of the new gate; [steps, batch, hidden]
};

template <class T>
struct RecurrentBackward {
  RecurrentShape shape;
  const T *g_y, *g_h, *g_c;
  const T *x, *h0, *c0, *w_ih, *w_hh, *y, *gates, *saved;
  T *gx, *gh0, *gc0, *gw_ih, *gw_hh, *gb_ih, *gb_hh;  // gb_hh: GRU; that of the others is gb_ih
};

void recurrent_forward(const RecurrentForward<float>& p);
void recurrent_forward(const RecurrentForward<double>& p);
void recurrent_backward(const RecurrentBackward<float>& p);
void recurrent_backward(const RecurrentBackward<double>& p);

// ---- what follows the recurrent product of one step: a rectangle of rows of the batch and columns of the hidden state.
// All pointers are those of the rectangle's first element, or null where the cell has no such array. Rows of states are
// `hidden` apart, those of gates gates · hidden; element (row, gate, column) of the product is at
// sums[row * sum_row + gate * sum_gate + column], rows of `next` are next_row apart.

template <class T>
struct RecurrentStep {
  std::int64_t rows, columns, hidden;
  const T* sums;
  std::int64_t sum_row, sum_gate;
  const T* inputs;  // the inputs' part of the gates, laid out in the same way with strides of its own
  std::int64_t input_row, input_gate;
  const T* bias;        // per gate and column, gates `hidden` apart, or null
  T* gates;             // after the gates' functions
  const T* inner_bias;  // GRU, may be null: recurrent bias of the new gate
  const T* before;      // LSTM: the cells before; GRU: h before
  T *h, *saved;
  T* next;  // a second copy of h, for the next step's product
  std::int64_t next_row;
};

template <class T>
struct RecurrentStepBackward {
  std::int64_t rows, columns, hidden;
  const T* sums;  // the gradient of h that comes from the step after this one
  std::int64_t sum_row;
  const T *g_y, *y, *gates, *saved;
  const T* before;  // LSTM: the cells before; GRU: h before
  T* carry;         // [batch, hidden]; LSTM: the gradient of the cells; GRU: the part of dh that skips the product
  T* d;             // gradients of the gates' inputs
  T* d_new;         // GRU: that of the new gate on the recurrent side, [batch, hidden]
  T* next;          // a second copy of d (GRU: on the recurrent side), for the next step's product
  std::int64_t next_row;
};

template <class T>
struct RecurrentKernels {
  void (*forward[kRecurrentCells])(const RecurrentStep<T>& step);
  void (*backward[kRecurrentCells])(const RecurrentStepBackward<T>& step);
  // Packs columns [line, line + lines) of rows [k, k + depth) as csrc/gemm.h says, reading every row once, front to back.
  void (*pack)(const T* rows, std::int64_t stride, std::int64_t line, std::int64_t lines, std::int64_t k,
               std::int64_t depth, std::int64_t width, T* packed);
  // out[j] = sum over rows of d[row * stride + j], for j < columns.
  void (*column_sums)(const T* d, std::int64_t rows, std::int64_t stride, std::int64_t columns, T* out);
};

struct RecurrentTable {
  RecurrentKernels<float> f32;
  RecurrentKernels<double> f64;
};
PYFRAME_ISA_TABLE(RecurrentTable, recurrent_table, recurrent_kernels)

}  // namespace pyframe
