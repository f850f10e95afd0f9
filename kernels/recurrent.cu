// One step through time of a recurrent layer, after the product with the recurrent weights: LSTM, GRU and the plain
// recurrence, forward and backward. A thread has one element of the hidden state of one row.
//
// Arrays are [steps, rows, …] and contiguous; `step` is the step in question, `before` the one that came before it in the
// layer's order, or -1.
#include "pyframe/recurrent.cuh"

namespace {

enum Cell { kLstm, kGru, kTanh, kRelu };

}  // namespace

// gates: the inputs' part of the gates, becomes the gates (plain recurrence: y has it and becomes the state). first: the
// state before the first step, of the LSTM that of the cells. bias: the recurrent one of the GRU, or null. saved: of the
// LSTM the cells, of the GRU what the reset gate multiplies.
template <class T, int CELL>
__global__ void __launch_bounds__(256)
    recurrent_step(const T* __restrict__ product, const T* __restrict__ first, const T* __restrict__ bias, T* gates,
                   T* y, T* saved, long long step, long long before, int rows, int hidden) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= rows * hidden) return;
  const int row = i / hidden, column = i % hidden;
  const long long states = static_cast<long long>(rows) * hidden, here = step * states + i;
  if (CELL == kLstm) {
    const T* const p = product + 4LL * row * hidden + column;
    T* const a = gates + 4 * (step * states + static_cast<long long>(row) * hidden) + column;
    T gate[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) gate[k] = a[k * hidden] + p[k * hidden];
    const T cell = pf::lstm_cell(gate, before < 0 ? first[i] : saved[before * states + i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) a[k * hidden] = gate[k];
    saved[here] = cell;
    y[here] = gate[3] * tanh(cell);
  } else if (CELL == kGru) {
    const T* const p = product + 3LL * row * hidden + column;
    T* const a = gates + 3 * (step * states + static_cast<long long>(row) * hidden) + column;
    const T* const b = bias + column;
    const T inner = p[2 * hidden] + (bias ? b[2 * hidden] : T(0));
    T gate[3] = {a[0] + p[0] + (bias ? b[0] : T(0)), a[hidden] + p[hidden] + (bias ? b[hidden] : T(0)), a[2 * hidden]};
    const T state = pf::gru_cell(gate, inner, before < 0 ? first[i] : y[before * states + i]);
#pragma unroll
    for (int k = 0; k < 3; ++k) a[k * hidden] = gate[k];
    saved[here] = inner;
    y[here] = state;
  } else {
    const T a = y[here] + product[i];
    y[here] = CELL == kTanh ? tanh(a) : a < 0 ? T(0) : a;
  }
}

// product: the gradient of the state that comes from the step after this one. carry: of the LSTM the gradient of the
// cells, of the GRU that part of the state's gradient which skips the product; [rows, hidden]. d: the gradients of the
// gates' inputs, of the GRU on the recurrent side; d_new: of its new gate's input on the other side.
template <class T, int CELL>
__global__ void __launch_bounds__(256)
    recurrent_step_backward(const T* __restrict__ product, const T* __restrict__ g_y, const T* __restrict__ first,
                            const T* __restrict__ gates, const T* __restrict__ y, const T* __restrict__ saved,
                            T* __restrict__ carry, T* __restrict__ d, T* __restrict__ d_new, long long step,
                            long long before, int rows, int hidden) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= rows * hidden) return;
  const int row = i / hidden, column = i % hidden;
  const long long states = static_cast<long long>(rows) * hidden, here = step * states + i;
  const T by_state = g_y[here] + product[i];
  if (CELL == kLstm) {
    const long long at = 4 * (step * states + static_cast<long long>(row) * hidden) + column;
    T gate[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) gate[k] = gates[at + k * hidden];
    pf::lstm_cell_backward(gate, by_state, saved[here], before < 0 ? first[i] : saved[before * states + i], carry[i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) d[at + k * hidden] = gate[k];
  } else if (CELL == kGru) {
    const long long at = 3 * (step * states + static_cast<long long>(row) * hidden) + column;
    T gate[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) gate[k] = gates[at + k * hidden];
    const T state = before < 0 ? first[i] : y[before * states + i];
    d_new[here] = pf::gru_cell_backward(gate, by_state, saved[here], state, carry[i]);
#pragma unroll
    for (int k = 0; k < 3; ++k) d[at + k * hidden] = gate[k];
  } else {
    d[here] = CELL == kTanh ? by_state * (1 - y[here] * y[here]) : y[here] > 0 ? by_state : T(0);
  }
}
