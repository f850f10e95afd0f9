// The backward of a whole sequence of a recurrent layer in one cooperative launch: LSTM and GRU.
//
// As recurrent_persistent.cu, with time reversed. What the blocks hand on to each other are the gradients of the gates'
// inputs; a block keeps the weights of its units for all gates of all units. One product more than there are steps
// gives the gradient of the first state.
#include "pyframe/recurrent_sequence.cuh"

namespace {

using pf::kGru;
using pf::kLstm;

// What a thread reads and writes in a step: arrays at its beginning, [rows, …].
template <class T>
struct Step {
  const T *g_y, *gates, *saved, *before;  // before: the cells of the LSTM, the states of the GRU, before the step
  T *d, *d_new, *to;
};

template <class Tile>
struct Elements : pf::ElementsOf<Tile> {
  using T = typename Tile::T;
  using Computed = typename Tile::Computed;
  using pf::ElementsOf<Tile>::row;
  using pf::ElementsOf<Tile>::unit;
  static constexpr int kGates = Tile::kGates, kCount = Tile::kElements;
  Computed gate[kCount][kGates], by_state[kCount], saved[kCount], before[kCount], carried[kCount];

  using pf::ElementsOf<Tile>::ElementsOf;

  // Reads what no other block writes.
  __device__ __forceinline__ void load(const Step<T>& step, const Computed* carry, int hidden) {
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      if (row[q] < 0) continue;
      const long long line = row[q], here = line * hidden + unit;
#pragma unroll
      for (int k = 0; k < kGates; ++k) gate[q][k] = pf::widen(step.gates[(line * kGates + k) * hidden + unit]);
      by_state[q] = pf::widen(step.g_y[here]);
      saved[q] = pf::widen(step.saved[here]);
      before[q] = pf::widen(step.before[here]);
      carried[q] = carry[here];
    }
  }

  // The product: the gradient of the state from the step behind. Without sums it is given.
  __device__ __forceinline__ Computed product(const Computed* sums, const T* given, int q, int hidden) const {
    if (!sums) return pf::widen(given[static_cast<long long>(row[q]) * hidden + unit]);
    Computed sum = 0;
#pragma unroll
    for (int part = 0; part < Tile::kSummed; ++part) sum += Tile::product(sums, q, part);
    return sum;
  }

  __device__ __forceinline__ void finish(const Computed* sums, const T* given, const Step<T>& step, Computed* carry,
                                         int hidden, int stride) {
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      if (row[q] < 0) continue;
      const long long line = row[q], here = line * hidden + unit;
      const Computed by = by_state[q] + product(sums, given, q, hidden);
      if constexpr (kGates == kLstm) {
        pf::lstm_cell_backward(gate[q], by, saved[q], before[q], carried[q]);
      } else {
        step.d_new[here] = pf::narrow<T>(pf::gru_cell_backward(gate[q], by, saved[q], before[q], carried[q]));
      }
      carry[here] = carried[q];
#pragma unroll
      for (int k = 0; k < kGates; ++k) {
        const T value = pf::narrow<T>(gate[q][k]);
        step.d[(line * kGates + k) * hidden + unit] = value;
        step.to[(line * kGates + k) * stride + unit] = value;
      }
    }
  }

  // Behind the last step: the gradient of the first state.
  __device__ __forceinline__ void finish(const Computed* sums, const Computed* carry, T* g_h, int hidden) const {
#pragma unroll
    for (int q = 0; q < kCount; ++q) {
      if (row[q] < 0) continue;
      const long long here = static_cast<long long>(row[q]) * hidden + unit;
      const Computed by = product(sums, nullptr, q, hidden);
      g_h[here] = pf::narrow<T>(kGates == kGru ? by + carry[here] : by);
    }
  }
};

}  // namespace

// weights: [gates · hidden, hidden]. first: the cells of the LSTM, the state of the GRU, before the first step. states:
// those after each step. carry: as of recurrent_step_backward. g_h: the gradient of the last state, becomes that of the
// first. exchange: two copies of [rows, gates, stride], zeros. counter: 0. d, d_new: as of recurrent_step_backward.
template <class T, int GATES, int ROWS>
__global__ void __launch_bounds__(256, ROWS == 64 ? 1 : 2)
    recurrent_sequence_backward(const T* __restrict__ weights, const T* __restrict__ first,
                                const T* __restrict__ states, const T* __restrict__ g_y, const T* __restrict__ gates,
                                const T* __restrict__ saved, pf::compute_t<T>* carry, T* g_h, T* exchange,
                                unsigned* counter, T* d, T* d_new, int steps, int rows, int hidden, int stride,
                                int reverse) {
  using Tile = pf::Part<T, GATES, ROWS, true>;
  pf::KeptWeights<Tile> kept(weights, hidden, stride, false);
  const long long copy = static_cast<long long>((rows + ROWS - 1) / ROWS * ROWS) * kept.length();
  const long long size = static_cast<long long>(rows) * hidden, back = reverse ? size : -size;
  for (int n = 0; n <= steps; ++n) {
    const int last = min(n, steps - 1);  // behind the steps there is a product, and no more to read
    const long long here = (reverse ? last : steps - 1 - last) * size;
    const T* const from = exchange + n % 2 * copy;
    const T* const before = n + 1 < steps ? states + here + back : first;
    const Step<T> step{g_y + here,       gates + GATES * here, saved + here, before,
                       d + GATES * here, d_new + here,         exchange + (n + 1) % 2 * copy};
    for (int first_row = 0; first_row < rows; first_row += ROWS) {
      Elements<Tile> mine(rows, first_row, hidden);
      if (n < steps) mine.load(step, carry, hidden);
      if (first_row == 0 && n > 0) pf::wait_for_all(counter, n);
      const pf::compute_t<T>* sums = nullptr;
      if (n > 0) sums = kept.multiply(from + static_cast<long long>(first_row) * kept.length());
      if (n < steps) {
        mine.finish(sums, g_h, step, carry, hidden, stride);
      } else {
        mine.finish(sums, carry, g_h, hidden);
      }
      __syncthreads();
    }
    if (threadIdx.x == 0 && n < steps) pf::grid_arrive(counter);
  }
}
