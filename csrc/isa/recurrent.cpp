#include "recurrent.h"

#include "isa/vec_special.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// Calls body(i, part) for the vectors of a row; `part` loads and stores whole vectors or the last elements.
template <class T>
struct Whole {
  PYFRAME_INLINE Vec<T> get(const T* from) const { return load(from); }
  PYFRAME_INLINE void put(T* to, Vec<T> v) const { store<T>(to, v); }
};
template <class T>
struct Rest {
  int64_t count;
  PYFRAME_INLINE Vec<T> get(const T* from) const { return load_part(from, count); }
  PYFRAME_INLINE void put(T* to, Vec<T> v) const { store_part<T>(to, v, count); }
};
template <class T, class Body>
PYFRAME_INLINE void each_vector(int64_t columns, Body body) {
  int64_t i = 0;
  for (; i + kLanes<T> <= columns; i += kLanes<T>) body(i, Whole<T>{});
  if (i < columns) body(i, Rest<T>{columns - i});
}

// Asks for the line that the next row's stores go to: those that miss the first-level cache are waited for one after
// the other, which took longer than all functions of the gates.
template <class T>
PYFRAME_INLINE void prefetch_store(const T* to) { __builtin_prefetch(to, 1); }

// ---- forward

// A gate's sum before its function. With `Bias`, the biases are not in the inputs' part yet.
template <class T, bool Bias>
struct Sums {
  const T *inputs, *sums, *bias;
  int64_t input_gate, sum_gate, hidden;

  PYFRAME_INLINE Sums(const RecurrentStep<T>& s, int64_t r)
      : inputs(s.inputs + r * s.input_row), sums(s.sums + r * s.sum_row), bias(s.bias), input_gate(s.input_gate),
        sum_gate(s.sum_gate), hidden(s.hidden) {}

  template <class Part>
  PYFRAME_INLINE Vec<T> of_inputs(int64_t gate, int64_t j, Part part) const {
    const Vec<T> a = part.get(inputs + gate * input_gate + j);
    if constexpr (Bias) return a + part.get(bias + gate * hidden + j);
    else return a;
  }
  template <class Part>
  PYFRAME_INLINE Vec<T> recurrent(int64_t gate, int64_t j, Part part) const {
    return part.get(sums + gate * sum_gate + j);
  }
  template <class Part>
  PYFRAME_INLINE Vec<T> both(int64_t gate, int64_t j, Part part) const {
    return of_inputs(gate, j, part) + recurrent(gate, j, part);
  }
};

template <class T, bool Bias>
void lstm_rows(const RecurrentStep<T>& s) {
  const int64_t n = s.hidden;
  for (int64_t r = 0; r < s.rows; ++r) {
    const Sums<T, Bias> sums(s, r);
    const T* const before = s.before + r * n;
    T *const gates = s.gates + r * 4 * n, *const cells = s.saved + r * n, *const h = s.h + r * n;
    T *const next = s.next + r * s.next_row, *const after = next + s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      for (int64_t g = 4; g < 8; ++g) prefetch_store(gates + g * n + j);
      prefetch_store(cells + n + j);
      prefetch_store(h + n + j);
      prefetch_store(after + j);
      const Vec<T> in = vsigmoid<T>(sums.both(0, j, part)), forget = vsigmoid<T>(sums.both(1, j, part));
      const Vec<T> cell = vtanh<T>(sums.both(2, j, part)), out = vsigmoid<T>(sums.both(3, j, part));
      const Vec<T> c = forget * part.get(before + j) + in * cell, y = out * vtanh<T>(c);
      part.put(gates + j, in);
      part.put(gates + n + j, forget);
      part.put(gates + 2 * n + j, cell);
      part.put(gates + 3 * n + j, out);
      part.put(cells + j, c);
      part.put(h + j, y);
      part.put(next + j, y);
    });
  }
}

template <class T, bool Bias>
void gru_rows(const RecurrentStep<T>& s) {
  const int64_t n = s.hidden;
  const T* const bias = s.inner_bias;
  for (int64_t r = 0; r < s.rows; ++r) {
    const Sums<T, Bias> sums(s, r);
    const T* const before = s.before + r * n;
    T *const gates = s.gates + r * 3 * n, *const inner = s.saved + r * n, *const h = s.h + r * n;
    T* const next = s.next + r * s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      const Vec<T> reset = vsigmoid<T>(sums.both(0, j, part)), update = vsigmoid<T>(sums.both(1, j, part));
      Vec<T> recurrent = sums.recurrent(2, j, part);
      if (bias) recurrent += part.get(bias + j);
      const Vec<T> fresh = vtanh<T>(sums.of_inputs(2, j, part) + reset * recurrent);
      const Vec<T> y = (part.get(before + j) - fresh) * update + fresh;
      part.put(gates + j, reset);
      part.put(gates + n + j, update);
      part.put(gates + 2 * n + j, fresh);
      part.put(inner + j, recurrent);
      part.put(h + j, y);
      part.put(next + j, y);
    });
  }
}

template <class T, bool Relu, bool Bias>
void plain_rows(const RecurrentStep<T>& s) {
  for (int64_t r = 0; r < s.rows; ++r) {
    const Sums<T, Bias> sums(s, r);
    T *const h = s.h + r * s.hidden, *const next = s.next + r * s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      const Vec<T> a = sums.both(0, j, part);
      Vec<T> y;
      if constexpr (Relu) y = a < 0 ? Vec<T>{} : a;  // NaN stays
      else y = vtanh<T>(a);
      part.put(h + j, y);
      part.put(next + j, y);
    });
  }
}

template <class T>
void lstm(const RecurrentStep<T>& s) {
  s.bias ? lstm_rows<T, true>(s) : lstm_rows<T, false>(s);
}
template <class T>
void gru(const RecurrentStep<T>& s) {
  s.bias ? gru_rows<T, true>(s) : gru_rows<T, false>(s);
}
template <class T, bool Relu>
void plain(const RecurrentStep<T>& s) {
  s.bias ? plain_rows<T, Relu, true>(s) : plain_rows<T, Relu, false>(s);
}

// ---- backward

template <class T>
void lstm_backward(const RecurrentStepBackward<T>& s) {
  const int64_t n = s.hidden;
  for (int64_t r = 0; r < s.rows; ++r) {
    const T *const sums = s.sums + r * s.sum_row, *const g_y = s.g_y + r * n, *const gates = s.gates + r * 4 * n;
    const T *const cells = s.saved + r * n, *const before = s.before + r * n;
    T *const carry = s.carry + r * n, *const d = s.d + r * 4 * n, *const next = s.next + r * s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      const Vec<T> in = part.get(gates + j), forget = part.get(gates + n + j), cell = part.get(gates + 2 * n + j);
      const Vec<T> out = part.get(gates + 3 * n + j), squashed = vtanh<T>(part.get(cells + j));
      const Vec<T> dh = part.get(g_y + j) + part.get(sums + j);
      const Vec<T> dc = part.get(carry + j) + dh * out * (1 - squashed * squashed);
      const Vec<T> d_in = dc * cell * (in * (1 - in));
      const Vec<T> d_forget = dc * part.get(before + j) * (forget * (1 - forget));
      const Vec<T> d_cell = dc * in * (1 - cell * cell);
      const Vec<T> d_out = dh * squashed * (out * (1 - out));
      part.put(carry + j, dc * forget);
      part.put(d + j, d_in);
      part.put(d + n + j, d_forget);
      part.put(d + 2 * n + j, d_cell);
      part.put(d + 3 * n + j, d_out);
      part.put(next + j, d_in);
      part.put(next + n + j, d_forget);
      part.put(next + 2 * n + j, d_cell);
      part.put(next + 3 * n + j, d_out);
    });
  }
}

template <class T>
void gru_backward(const RecurrentStepBackward<T>& s) {
  const int64_t n = s.hidden;
  for (int64_t r = 0; r < s.rows; ++r) {
    const T *const sums = s.sums + r * s.sum_row, *const g_y = s.g_y + r * n, *const gates = s.gates + r * 3 * n;
    const T *const inner = s.saved + r * n, *const before = s.before + r * n;
    T *const carry = s.carry + r * n, *const d = s.d + r * 3 * n, *const d_new = s.d_new + r * n;
    T* const next = s.next + r * s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      const Vec<T> reset = part.get(gates + j), update = part.get(gates + n + j), fresh = part.get(gates + 2 * n + j);
      const Vec<T> dh = (part.get(g_y + j) + part.get(carry + j)) + part.get(sums + j);
      const Vec<T> d_fresh = dh * (1 - update) * (1 - fresh * fresh), d_inner = d_fresh * reset;
      const Vec<T> d_reset = d_fresh * part.get(inner + j) * (reset * (1 - reset));
      const Vec<T> d_update = dh * (part.get(before + j) - fresh) * (update * (1 - update));
      part.put(carry + j, dh * update);
      part.put(d + j, d_reset);
      part.put(d + n + j, d_update);
      part.put(d + 2 * n + j, d_fresh);
      part.put(d_new + j, d_inner);
      part.put(next + j, d_reset);
      part.put(next + n + j, d_update);
      part.put(next + 2 * n + j, d_inner);
    });
  }
}

template <class T, bool Relu>
void plain_backward(const RecurrentStepBackward<T>& s) {
  const int64_t n = s.hidden;
  for (int64_t r = 0; r < s.rows; ++r) {
    const T *const sums = s.sums + r * s.sum_row, *const g_y = s.g_y + r * n, *const y = s.y + r * n;
    T *const d = s.d + r * n, *const next = s.next + r * s.next_row;
    each_vector<T>(s.columns, [=](int64_t j, auto part) __attribute__((always_inline)) {
      const Vec<T> h = part.get(y + j), dh = part.get(g_y + j) + part.get(sums + j);
      Vec<T> a;
      if constexpr (Relu) a = dh * (h > 0 ? splat<T>(1) : Vec<T>{});
      else a = dh * (1 - h * h);
      part.put(d + j, a);
      part.put(next + j, a);
    });
  }
}

// A panel's piece of a row.
template <class T>
PYFRAME_INLINE void copy_piece(const T* from, int64_t count, int64_t width, T* to) {
  int64_t l = 0;
  for (; l + kLanes<T> <= count; l += kLanes<T>) store<T>(to + l, load(from + l));
  if (l < count) store_part<T>(to + l, load_part(from + l, count - l), count - l);
  for (l = count; l < width; ++l) to[l] = 0;
}

template <class T>
void pack(const T* rows, int64_t stride, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width,
          T* packed) {
  for (int64_t kk = 0; kk < depth; ++kk) {
    const T* const row = rows + (k + kk) * stride + line;
    T* to = packed + kk * width;
    int64_t l = 0;
    for (; l + width <= lines; l += width, to += depth * width) copy_piece(row + l, width, width, to);
    if (l < lines) copy_piece(row + l, lines - l, width, to);
  }
}

// Several vectors of columns at a time, over blocks of rows, so that a long sum is a sum of short ones.
template <class T>
void column_sums(const T* d, int64_t rows, int64_t stride, int64_t columns, T* out) {
  constexpr int64_t kBlock = 128;
  constexpr int kSums = kVectorBytes == 64 ? 8 : 4, kLane = kLanes<T>;
  int64_t j = 0;
  for (; j + kSums * kLane <= columns; j += kSums * kLane) {
    Vec<T> total[kSums] = {};
    for (int64_t r = 0; r < rows; r += kBlock) {
      const int64_t end = rows - r < kBlock ? rows : r + kBlock;
      Vec<T> sum[kSums] = {};
      for (int64_t i = r; i < end; ++i) {
        for (int k = 0; k < kSums; ++k) sum[k] += load(d + i * stride + j + k * kLane);
      }
      for (int k = 0; k < kSums; ++k) total[k] += sum[k];
    }
    for (int k = 0; k < kSums; ++k) store<T>(out + j + k * kLane, total[k]);
  }
  each_vector<T>(columns - j, [=](int64_t k, auto part) __attribute__((always_inline)) {
    Vec<T> total{};
    for (int64_t r = 0; r < rows; r += kBlock) {
      const int64_t end = rows - r < kBlock ? rows : r + kBlock;
      Vec<T> sum{};
      for (int64_t i = r; i < end; ++i) sum += part.get(d + i * stride + j + k);
      total += sum;
    }
    part.put(out + j + k, total);
  });
}

template <class T>
constexpr RecurrentKernels<T> kernels() {
  return {{lstm<T>, gru<T>, plain<T, false>, plain<T, true>},
          {lstm_backward<T>, gru_backward<T>, plain_backward<T, false>, plain_backward<T, true>},
          pack<T>, column_sums<T>};
}

}  // namespace

extern const RecurrentTable recurrent_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
