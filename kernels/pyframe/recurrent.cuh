// The arithmetic of recurrent cells. The gates' orders are those of PyTorch: i, f, g, o and r, z, n.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

template <class T>
__device__ __forceinline__ T sigmoid(T a) { return 1 / (1 + exp(-a)); }

// a: the gates' inputs, becomes the gates. Returns the new cell; the state is o · tanh(cell).
template <class T>
__device__ __forceinline__ T lstm_cell(T (&a)[4], T cell) {
  a[0] = sigmoid(a[0]);
  a[1] = sigmoid(a[1]);
  a[2] = tanh(a[2]);
  a[3] = sigmoid(a[3]);
  return a[1] * cell + a[0] * a[2];
}

// a: the gates' inputs, becomes the gates; the new gate's is without `inner`, which the reset gate multiplies. Returns
// the new state.
template <class T>
__device__ __forceinline__ T gru_cell(T (&a)[3], T inner, T state) {
  a[0] = sigmoid(a[0]);
  a[1] = sigmoid(a[1]);
  a[2] = tanh(a[2] + a[0] * inner);
  return (state - a[2]) * a[1] + a[2];
}

// a: the gates, become the gradients of their inputs. carry: the gradient of the cell from the steps behind this one,
// becomes that of the cell `before` the step.
template <class T>
__device__ __forceinline__ void lstm_cell_backward(T (&a)[4], T by_state, T cell, T before, T& carry) {
  const T in = a[0], forget = a[1], fresh = a[2], out = a[3], squashed = tanh(cell);
  const T by_cell = carry + by_state * out * (1 - squashed * squashed);
  a[0] = by_cell * fresh * in * (1 - in);
  a[1] = by_cell * before * forget * (1 - forget);
  a[2] = by_cell * in * (1 - fresh * fresh);
  a[3] = by_state * squashed * out * (1 - out);
  carry = by_cell * forget;
}

// a: the gates, become the gradients of their inputs, of the new gate's that from the recurrent side. by_state: without
// `carry`, the part of the state's gradient that skips the product. Returns the gradient of the new gate's other input.
template <class T>
__device__ __forceinline__ T gru_cell_backward(T (&a)[3], T by_state, T inner, T before, T& carry) {
  const T reset = a[0], update = a[1], fresh = a[2], whole = by_state + carry;
  const T by_new = whole * (1 - update) * (1 - fresh * fresh);
  a[0] = by_new * inner * reset * (1 - reset);
  a[1] = whole * (before - fresh) * update * (1 - update);
  a[2] = by_new * reset;
  carry = whole * update;
  return by_new;
}

}  // namespace pf
