// One step through time of a recurrent layer, after the product with the recurrent weights: LSTM, GRU and the plain
// recurrence, forward and backward. A thread has one element of the hidden state of one row.
//
// Arrays are [steps, rows, …] and contiguous; `step` is the step in question, `before` the one that came before it in the
// layer's order, or -1. The gates' orders are those of PyTorch: i, f, g, o and r, z, n.
#include "pyframe/device.cuh"

namespace {

enum Cell { kLstm, kGru, kTanh, kRelu };

template <class T>
__device__ __forceinline__ T sigmoid(T a) { return 1 / (1 + exp(-a)); }

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
    const T in = sigmoid(a[0] + p[0]), forget = sigmoid(a[hidden] + p[hidden]);
    const T fresh = tanh(a[2 * hidden] + p[2 * hidden]), out = sigmoid(a[3 * hidden] + p[3 * hidden]);
    const T cell = forget * (before < 0 ? first[i] : saved[before * states + i]) + in * fresh;
    a[0] = in;
    a[hidden] = forget;
    a[2 * hidden] = fresh;
    a[3 * hidden] = out;
    saved[here] = cell;
    y[here] = out * tanh(cell);
  } else if (CELL == kGru) {
    const T* const p = product + 3LL * row * hidden + column;
    T* const a = gates + 3 * (step * states + static_cast<long long>(row) * hidden) + column;
    const T* const b = bias + column;
    const T reset = sigmoid(a[0] + p[0] + (bias ? b[0] : T(0)));
    const T update = sigmoid(a[hidden] + p[hidden] + (bias ? b[hidden] : T(0)));
    const T inner = p[2 * hidden] + (bias ? b[2 * hidden] : T(0));
    const T fresh = tanh(a[2 * hidden] + reset * inner);
    const T state = before < 0 ? first[i] : y[before * states + i];
    a[0] = reset;
    a[hidden] = update;
    a[2 * hidden] = fresh;
    saved[here] = inner;
    y[here] = (state - fresh) * update + fresh;
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
  const T dh = g_y[here] + product[i];
  if (CELL == kLstm) {
    const long long at = 4 * (step * states + static_cast<long long>(row) * hidden) + column;
    const T in = gates[at], forget = gates[at + hidden], fresh = gates[at + 2 * hidden], out = gates[at + 3 * hidden];
    const T squashed = tanh(saved[here]), cell = before < 0 ? first[i] : saved[before * states + i];
    const T dc = carry[i] + dh * out * (1 - squashed * squashed);
    d[at] = dc * fresh * in * (1 - in);
    d[at + hidden] = dc * cell * forget * (1 - forget);
    d[at + 2 * hidden] = dc * in * (1 - fresh * fresh);
    d[at + 3 * hidden] = dh * squashed * out * (1 - out);
    carry[i] = dc * forget;
  } else if (CELL == kGru) {
    const long long at = 3 * (step * states + static_cast<long long>(row) * hidden) + column;
    const T reset = gates[at], update = gates[at + hidden], fresh = gates[at + 2 * hidden];
    const T state = before < 0 ? first[i] : y[before * states + i], whole = dh + carry[i];
    const T by_new = whole * (1 - update) * (1 - fresh * fresh);
    d[at] = by_new * saved[here] * reset * (1 - reset);
    d[at + hidden] = whole * (state - fresh) * update * (1 - update);
    d[at + 2 * hidden] = by_new * reset;
    d_new[here] = by_new;
    carry[i] = whole * update;
  } else {
    d[here] = CELL == kTanh ? dh * (1 - y[here] * y[here]) : y[here] > 0 ? dh : T(0);
  }
}
