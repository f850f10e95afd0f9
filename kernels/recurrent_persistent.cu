// A whole sequence of a recurrent layer in one cooperative launch: LSTM and GRU, forward.
//
// A block has eight hidden units and keeps the recurrent weights of their gates in shared memory from the first step to
// the last. In a step, each of its warps multiplies an eighth of all units' state by these weights; the warps' sums are
// added in their order; a thread has the gates of one row and unit. Then the blocks wait for each other, because the
// next step needs all of the state.
//
// The state is handed on through global memory in two copies that take turns: who writes one has waited for those that
// read it two steps ago. A copy is [rows, units] filled up with zeros, so that a step has no edges. For half types its
// values are rounded, since tensor cores read them; what an element adds to from step to step stays float in `carry`.
#include "pyframe/recurrent_sequence.cuh"

namespace {

using pf::kGru;
using pf::kLstm;

// One element's step. a: the product's part of the gates, becomes the gates; in: the inputs' part; carry: from step to
// step. Returns the new state.
template <class C>
__device__ __forceinline__ C advance(C (&a)[kLstm], const C (&in)[kLstm], C& carry, C& saved) {
#pragma unroll
  for (int gate = 0; gate < kLstm; ++gate) a[gate] += in[gate];
  saved = carry = pf::lstm_cell(a, carry);
  return a[3] * tanh(carry);
}
template <class C>
__device__ __forceinline__ C advance(C (&a)[kGru], const C (&in)[kGru], C& carry, C& saved) {
  saved = a[2];
  a[0] += in[0];
  a[1] += in[1];
  a[2] = in[2];
  return carry = pf::gru_cell(a, saved, carry);
}

template <class Tile>
struct Elements : pf::ElementsOf<Tile> {
  using T = typename Tile::T;
  using Computed = typename Tile::Computed;
  using pf::ElementsOf<Tile>::row;
  using pf::ElementsOf<Tile>::unit;
  static constexpr int kGates = Tile::kGates, kCount = Tile::kElements;
  Computed in[kCount][kGates], carried[kCount];

  using pf::ElementsOf<Tile>::ElementsOf;

  // Reads what no other block writes. gates: of the step, [rows, gates, hidden].
  __device__ __forceinline__ void load(const T* gates, const Computed* carry, int hidden) {
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      if (row[q] < 0) continue;
      const long long line = row[q];
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) in[q][gate] = pf::widen(gates[(line * kGates + gate) * hidden + unit]);
      carried[q] = carry[line * hidden + unit];
    }
  }

  // Adds the warps' sums up and writes the step's results.
  __device__ __forceinline__ void finish(const Computed* sums, const T* bias, T* gates, Computed* carry, T* saved, T* y,
                                         T* state, int hidden, int stride) {
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      if (row[q] < 0) continue;
      const long long line = row[q], here = line * hidden + unit;
      Computed a[kGates], save;
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) {
        a[gate] = Tile::product(sums, q, gate);
        if (kGates == kGru && bias) a[gate] += pf::widen(bias[gate * hidden + unit]);
      }
      const T next = pf::narrow<T>(advance(a, in[q], carried[q], save));
#pragma unroll
      for (int gate = 0; gate < kGates; ++gate) gates[(line * kGates + gate) * hidden + unit] = pf::narrow<T>(a[gate]);
      carry[here] = carried[q];
      saved[here] = pf::narrow<T>(save);
      y[here] = next;
      state[line * stride + unit] = next;
    }
  }
};

}  // namespace

// weights: [gates · hidden, hidden]. bias: the recurrent one of the GRU, or null. carry: the cells of the LSTM, the state
// of the GRU, [rows, hidden], before the first step and after the last. state: two copies, the first with the first
// state. counter: 0. gates: the inputs' part, becomes the gates. saved: as of recurrent_step. stride: hidden filled up to
// whole chunks. vector: whether rows of weights can be read 16 bytes at a time.
template <class T, int GATES, int ROWS>
__global__ void __launch_bounds__(256, ROWS == 64 ? 1 : 2)
    recurrent_sequence(const T* __restrict__ weights, const T* __restrict__ bias, pf::compute_t<T>* carry, T* state,
                       unsigned* counter, T* gates, T* y, T* saved, int steps, int rows, int hidden, int stride,
                       int reverse, int vector) {
  using Tile = pf::Part<T, GATES, ROWS, false>;
  pf::KeptWeights<Tile> kept(weights, hidden, stride, vector != 0);
  const long long copy = static_cast<long long>((rows + ROWS - 1) / ROWS * ROWS) * kept.length();  // one of the state
  for (int n = 0; n < steps; ++n) {
    const long long here = static_cast<long long>(reverse ? steps - 1 - n : n) * rows * hidden;
    const T* const from = state + n % 2 * copy;
    T* const to = state + (n + 1) % 2 * copy;
    for (int first = 0; first < rows; first += ROWS) {
      Elements<Tile> mine(rows, first, hidden);
      mine.load(gates + GATES * here, carry, hidden);
      if (first == 0 && n > 0) pf::wait_for_all(counter, n);
      const auto* const sums = kept.multiply(from + static_cast<long long>(first) * kept.length());
      mine.finish(sums, bias, gates + GATES * here, carry, saved + here, y + here, to, hidden, stride);
      __syncthreads();
    }
    if (threadIdx.x == 0 && n + 1 < steps) pf::grid_arrive(counter);
  }
}
