#include "recurrent.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "allocator.h"
#include "gemm.h"
#include "gemm_table.h"
#include "sizes.h"
#include "step_team.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

template <class T>
const RecurrentKernels<T>& kernels() {
  if constexpr (sizeof(T) == 4) return recurrent_kernels().f32;
  else return recurrent_kernels().f64;
}
template <class T>
const GemmKernels<T>& products() {
  if constexpr (sizeof(T) == 4) return gemm_kernels().f32;
  else return gemm_kernels().f64;
}

template <class T>
class Memory {
 public:
  explicit Memory(int64_t count) : data_(count ? allocate(static_cast<std::size_t>(count) * sizeof(T)) : nullptr) {
    if (count && !data_) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { deallocate(data_); }
  operator T*() const { return static_cast<T*>(data_); }

 private:
  void* data_;
};

// The product of every step with the same weights: groups (gates) of `lines` sums over `depth` elements.
//
// With few rows the weights are read where they lie, by the kernels for thin products; else they are packed once.
template <class T>
class Product {
  const GemmKernels<T>& use_ = products<T>();

 public:
  // Columns of the hidden state that are computed at once, and the unit in which threads share them.
  const int64_t block, unit;
  const int64_t groups, lines, depth;

  Product(const T* weights, int64_t line_stride, int64_t depth_stride, int64_t groups, int64_t lines, int64_t depth,
          int64_t rows)
      : block(rows <= kThin ? lines : use_.columns),
        unit(rows <= kThin ? kThinUnit : use_.columns),
        groups(groups),
        lines(lines),
        depth(depth),
        thin_(rows <= kThin),
        part_(depth > kDepth ? ceil_div(depth, ceil_div(depth, kDepth)) : depth),
        group_size_(round_up(lines, use_.columns) * depth),
        packed_(thin_ ? 0 : groups * group_size_) {
    weights_.data = weights, weights_.line_stride = line_stride, weights_.depth_stride = depth_stride;
    if (thin_) return;
    const int64_t parts = ceil_div(depth, part_);
    const int64_t grain = std::max<int64_t>(1, kGrain / (part_ * lines));
    parallel_for(0, groups * parts, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / parts, k = i % parts * part_;
        use_.pack(weights_, group * lines, lines, k, std::min(part_, depth - k), use_.columns,
                  packed_ + group * group_size_ + k * (group_size_ / depth));
      }
    });
  }

  // Distance of rows of the left factor. Rows a multiple of 2 KB apart would compete for a few lines of the cache.
  int64_t left_row() const { return thin_ ? depth : depth + 64 / static_cast<int64_t>(sizeof(T)); }

  // sums[row * groups * block + group * block + column] = left row · line (group, j + column), for rows left_row apart
  // (left_row() with few rows); `block` columns have room.
  void run(const T* left, int64_t left_row, int64_t rows, int64_t j, int64_t columns, T* sums) const {
    if (thin_) return run_thin(left, rows, j, columns, sums);
    const int64_t width = use_.columns;
    Gemm<T> p;
    p.m = rows, p.k = depth, p.row_stride = groups * block;
    GemmBlock<T> b{};
    b.rows = rows, b.columns = p.n = 2 * columns <= width ? width / 2 : width;
    b.height = ceil_div(rows, ceil_div(rows, use_.rows));
    b.left_line = left_row, b.left_depth = 1, b.left_panel = b.height * b.left_line;
    b.right_depth = width;
    b.rows_inside = true;
    for (int64_t group = 0; group < groups; ++group) {
      p.c = sums + group * block;
      const T* const right = packed_ + group * group_size_;
      for (int64_t k = 0; k < depth; k += part_) {
        b.depth = std::min(part_, depth - k);
        b.left = left + k;
        b.right = right + k * (group_size_ / depth) + j * b.depth;
        b.right_panel = width * b.depth;
        b.first = k == 0, b.last = k + b.depth == depth;
        use_.multiply(p, b);
      }
    }
  }

 private:
  static constexpr int64_t kDepth = 256;     // elements of a sum whose factors stay in the first-level cache
  static constexpr int64_t kThinUnit = 64;

  void run_thin(const T* left, int64_t rows, int64_t j, int64_t columns, T* sums) const {
    const T* const from = static_cast<const T*>(weights_.data) + j * weights_.line_stride;
    const int64_t row = groups * block;
    for (int64_t group = 0; group < groups; ++group) {
      const T* const big = from + group * lines * weights_.line_stride;
      if (weights_.depth_stride == 1) {
        use_.thin_dot(left, rows, big, weights_.line_stride, columns, depth, sums + group * block, row, 1);
      } else {
        use_.thin_axpy(left, rows, big, weights_.depth_stride, columns, depth, sums + group * block, row);
      }
    }
  }

  Factor<T> weights_;
  bool thin_;
  int64_t part_, group_size_;
  Memory<T> packed_;
};

// How the threads share a sequence. Rows of the batch need nothing from each other, so every thread takes some through
// all steps; a batch too small for that is cut into columns, with all threads meeting after each step.
template <class T>
class Split {
 public:
  Split(const Product<T>& product, int64_t rows) : product_(product), rows_(rows) {
    const int64_t threads = in_parallel() ? 1 : num_threads();
    const int64_t units = ceil_div(product.lines, product.unit);
    const int64_t work = rows * product.groups * product.lines * product.depth;
    row_parts_ = std::min(threads, std::max<int64_t>(1, std::min(rows / kLeastRows, work / kLeastWork)));
    column_parts_ = std::min(threads, std::max<int64_t>(1, std::min(units, work / kLeastWork)));
    if (row_parts_ >= column_parts_) column_parts_ = 1;
    else row_parts_ = 1;
  }

  // The most rows of a thread.
  int64_t rows() const { return ceil_div(rows_, row_parts_); }

  // Calls step(number, row, rows, column, columns, sums), for whole blocks of columns; `sums` is the product's memory.
  template <class Step>
  void run(int64_t steps, const Step& step) const {
    const int64_t size = round_up(rows() * product_.groups * product_.block, 16);
    Memory<T> sums(size * row_parts_ * column_parts_);
    if (column_parts_ == 1) {
      parallel_for(0, row_parts_, 1, [&](int64_t begin, int64_t end) {
        for (int64_t part = begin; part < end; ++part) {
          const int64_t row = part * rows_ / row_parts_, stop = (part + 1) * rows_ / row_parts_;
          for (int64_t s = 0; s < steps; ++s) blocks(step, s, row, stop - row, 0, product_.lines, sums + part * size);
        }
      });
    } else {
      const int64_t units = ceil_div(product_.lines, product_.unit);
      run_steps(steps, column_parts_, [&](int64_t s, int64_t part) {
        const int64_t begin = part * units / column_parts_ * product_.unit;
        const int64_t end = std::min(product_.lines, (part + 1) * units / column_parts_ * product_.unit);
        blocks(step, s, 0, rows_, begin, end, sums + part * size);
      });
    }
  }

 private:
  static constexpr int64_t kLeastRows = 8;         // fewer would not keep the multipliers busy
  static constexpr int64_t kLeastWork = 1 << 16;   // multiplications per step and thread: 1 µs and more

  template <class Step>
  void blocks(const Step& step, int64_t s, int64_t row, int64_t rows, int64_t begin, int64_t end, T* sums) const {
    for (int64_t j = begin; j < end; j += product_.block) {
      step(s, row, rows, j, std::min(product_.block, end - j), sums);
    }
  }

  const Product<T>& product_;
  int64_t rows_, row_parts_, column_parts_;
};

// Asks for a rectangle that is needed after the next product. It lies in pieces of a few cache lines that are kilobytes
// apart, which the processor does not foresee.
template <class T>
void prefetch(const T* from, int64_t rows, int64_t stride, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const char* const line = reinterpret_cast<const char*>(from + r * stride);
    for (int64_t at = 0; at < columns * static_cast<int64_t>(sizeof(T)); at += 64) __builtin_prefetch(line + at, 0, 2);
  }
  asm volatile("");  // else the compiler takes a function that only asks for memory to have no effect
}

// out = left · rightᵀ for rows of contiguous elements; bias per column, may be null.
template <class T>
void times_transposed(const T* left, const T* right, const T* bias, T* out, int64_t m, int64_t n, int64_t k) {
  Gemm<T> p;
  p.m = m, p.n = n, p.k = k;
  p.left.data = left, p.left.line_stride = k, p.left.depth_stride = 1;
  p.right.data = right, p.right.line_stride = k, p.right.depth_stride = 1;
  p.c = out, p.row_stride = n, p.column_bias = bias;
  gemm(p);
}

// Rows of gradients, as the left factor of sums over all rows. Panels of a few columns of rows that are kilobytes apart
// would read every cache line twice.
template <class T>
struct Gradients {
  const T* rows;
  int64_t stride;

  static void pack(const void* context, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width,
                   T* packed) {
    const Gradients& g = *static_cast<const Gradients*>(context);
    kernels<T>().pack(g.rows, g.stride, line, lines, k, depth, width, packed);
  }
};

// What the gates' inputs were linear in, for all steps: columns of x, then those of the states before.
template <class T>
struct Sources {
  const T *x, *first, *states;  // first: h0; states: those before every other step
  int64_t width, hidden;
  int64_t first_begin, first_end, states_shift;  // rows of h0; states of row k are at row k + states_shift

  // The states of row k, and the end of the rows whose states follow on them.
  const T* state(int64_t k, int64_t& end) const {
    if (k >= first_begin && k < first_end) {
      end = std::min(end, first_end);
      return first + (k - first_begin) * hidden;
    }
    if (k < first_begin) end = std::min(end, first_begin);
    return states + (k + states_shift) * hidden;
  }
  static void pack(const void* context, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width,
                   T* packed) {
    const Sources& s = *static_cast<const Sources*>(context);
    for (int64_t begin = line; begin < line + lines; begin += width) {
      const int64_t end = std::min(begin + width, line + lines);
      if (end <= s.width) {
        kernels<T>().pack(s.x, s.width, begin, end - begin, k, depth, width, packed);
        packed += depth * width;
        continue;
      }
      for (int64_t kk = k, next; kk < k + depth; kk = next) {
        const T* const state = s.state(kk, next = k + depth);
        if (begin >= s.width) {
          kernels<T>().pack(state, s.hidden, begin - s.width, end - begin, 0, next - kk, width, packed);
          packed += (next - kk) * width;
          continue;
        }
        for (int64_t i = kk; i < next; ++i, packed += width) {  // the last columns of x and the first ones of the states
          T* const middle = std::copy(s.x + i * s.width + begin, s.x + (i + 1) * s.width, packed);
          const T* const row = state + (i - kk) * s.hidden;
          std::fill(std::copy(row, row + (end - s.width), middle), packed + width, T{0});
        }
      }
    }
  }
};

// The inputs' part of all gates, for a few steps at a time right before they are needed: it never leaves the caches.
// With few rows that would read the weights too often; then it is one product for all steps, in the place of the gates.
template <class T>
class Inputs {
 public:
  Inputs(const RecurrentForward<T>& p, const T* bias, int64_t rows_per_thread)
      : shape_(p.shape),
        gates_(recurrent_gates(shape_.cell)),
        ahead_(shape_.batch > kThin),
        x_(p.x),
        x_row_(shape_.width),
        at_once_(std::max<int64_t>(1, kCacheBytes / (rows_per_thread * gates_ * shape_.hidden * int64_t{sizeof(T)}))),
        product_(p.w_ih, shape_.width, 1, gates_, shape_.hidden, shape_.width, shape_.batch),
        spread_(ahead_ && shape_.width * sizeof(T) % 2048 == 0 ? rows() * (shape_.width + kSpread) : 0),
        sums_(ahead_ ? block_size() * ceil_div(shape_.hidden, product_.block) : 0) {
    if (!ahead_) {
      whole_ = p.gates ? p.gates : p.y;
      times_transposed<T>(p.x, p.w_ih, bias, whole_, rows(), gates_ * shape_.hidden, shape_.width);
    } else if (spread_) {  // rows that would compete for a few lines of the cache
      x_ = spread_, x_row_ = shape_.width + kSpread;
      parallel_for(0, rows(), row_grain(shape_.width), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          std::memcpy(spread_ + r * x_row_, p.x + r * shape_.width, shape_.width * sizeof(T));
        }
      });
    }
  }

  // Points a step at its inputs, after computing them where that is due.
  void prepare(int64_t number, int64_t row, int64_t j, const T* bias, RecurrentStep<T>& step) const {
    const int64_t n = shape_.hidden;
    if (!ahead_) {
      step.inputs = whole_ + (time(number) * shape_.batch + row) * gates_ * n + j;
      step.input_row = gates_ * n, step.input_gate = n;
      return;
    }
    const int64_t row_size = gates_ * product_.block;
    T* const sums = sums_ + j / product_.block * block_size() + row * row_size;
    if (number % at_once_ == 0) {
      for (int64_t i = 0; i < at_once_ && number + i < shape_.steps; ++i) {
        product_.run(x_ + (time(number + i) * shape_.batch + row) * x_row_, x_row_, step.rows, j, step.columns,
                     sums + i * shape_.batch * row_size);
      }
    }
    step.inputs = sums + number % at_once_ * shape_.batch * row_size;
    step.input_row = row_size, step.input_gate = product_.block;
    step.bias = bias ? bias + j : nullptr;
  }

 private:
  static constexpr int64_t kCacheBytes = 256 << 10;  // a part of the second-level cache
  static constexpr int64_t kSpread = 64 / sizeof(T);

  int64_t time(int64_t number) const { return shape_.reverse ? shape_.steps - 1 - number : number; }
  int64_t rows() const { return shape_.steps * shape_.batch; }
  int64_t block_size() const { return at_once_ * shape_.batch * gates_ * product_.block; }

  const RecurrentShape shape_;
  int64_t gates_;
  bool ahead_;
  const T* x_;
  int64_t x_row_;
  int64_t at_once_;  // steps
  Product<T> product_;
  Memory<T> spread_, sums_;
  T* whole_ = nullptr;
};

template <class T>
void forward(const RecurrentForward<T>& p) {
  const RecurrentShape& s = p.shape;
  const int64_t n = s.hidden, gates = recurrent_gates(s.cell), width = gates * n, state = s.batch * n;
  const bool is_gru = s.cell == RecurrentCell::gru, is_lstm = s.cell == RecurrentCell::lstm;
  // The biases that are simply added. In a GRU's new gate the recurrent one is multiplied with the reset gate.
  Memory<T> bias(p.b_ih || p.b_hh ? width : 0);
  for (int64_t j = 0; bias && j < width; ++j) {
    const bool both = p.b_hh && !(is_gru && j >= 2 * n);
    bias[j] = (p.b_ih ? p.b_ih[j] : T{0}) + (both ? p.b_hh[j] : T{0});
  }
  const Product<T> product(p.w_hh, n, 1, gates, n, n, s.batch);
  const Split<T> split(product, s.batch);
  const Inputs<T> inputs(p, bias, split.rows());
  const int64_t left_row = product.left_row(), left_size = s.batch * left_row;
  Memory<T> left(2 * left_size);  // the states before and after a step, in turn
  for (int64_t r = 0; r < s.batch; ++r) std::memcpy(left + r * left_row, p.h0 + r * n, n * sizeof(T));
  const auto kernel = kernels<T>().forward[static_cast<int>(s.cell)];
  split.run(s.steps, [&](int64_t number, int64_t row, int64_t rows, int64_t j, int64_t columns, T* sums) {
    const int64_t t = s.reverse ? s.steps - 1 - number : number;
    const int64_t at = row * n + j, now = t * state + at;
    const int64_t before = (s.reverse ? t + 1 : t - 1) * state + at;
    const T* const states = is_lstm ? p.saved : p.y;
    const T* const first = is_lstm ? p.c0 : p.h0;
    RecurrentStep<T> step{};
    step.rows = rows, step.columns = columns, step.hidden = n;
    inputs.prepare(number, row, j, bias, step);
    step.gates = p.gates ? p.gates + (t * s.batch + row) * width + j : nullptr;
    step.before = number ? states + before : first ? first + at : nullptr;
    step.h = p.y + now;
    step.saved = p.saved ? p.saved + now : nullptr;
    for (int64_t g = 0; p.gates && g < gates; ++g) prefetch(step.gates + g * n, rows, width, columns);
    if (p.saved) prefetch(step.saved, rows, n, columns);
    if (step.before) prefetch(step.before, rows, n, columns);
    prefetch(step.h, rows, n, columns);
    product.run(left + number % 2 * left_size + row * left_row, left_row, rows, j, columns, sums);
    step.sums = sums, step.sum_row = gates * product.block, step.sum_gate = product.block;
    step.inner_bias = is_gru && p.b_hh ? p.b_hh + 2 * n + j : nullptr;
    step.next = left + (number + 1) % 2 * left_size + row * left_row + j, step.next_row = left_row;
    kernel(step);
  });
  const int64_t last = (s.reverse ? 0 : s.steps - 1) * state;
  std::memcpy(p.h, p.y + last, state * sizeof(T));
  if (is_lstm) std::memcpy(p.c, p.saved + last, state * sizeof(T));
}

// Gradients of weights, biases and inputs, from those of all gates' inputs.
template <class T>
void weight_gradients(const RecurrentBackward<T>& p, const T* d, const T* d_new) {
  const RecurrentShape& s = p.shape;
  const int64_t n = s.hidden, width = recurrent_gates(s.cell) * n, items = s.steps * s.batch;
  Gemm<T> x;
  x.m = items, x.n = s.width, x.k = width;
  x.left.data = d, x.left.line_stride = width, x.left.depth_stride = 1;
  x.right.data = p.w_ih, x.right.line_stride = 1, x.right.depth_stride = s.width;
  x.c = p.gx, x.row_stride = s.width;
  gemm(x);

  const int64_t first = s.reverse ? items - s.batch : 0;
  Sources<T> sources{p.x, p.h0, p.y, s.width, n, first, first + s.batch, s.reverse ? s.batch : -s.batch};
  const auto weights = [&](Gradients<T> left, int64_t lines, int64_t columns, T* out) {
    Gemm<T> w;
    w.m = lines, w.n = w.row_stride = columns, w.k = items;
    w.left.pack = Gradients<T>::pack, w.left.context = &left;
    w.right.pack = Sources<T>::pack, w.right.context = &sources;
    w.c = out;
    gemm(w);
  };
  // Both gradients of weights in one product: it packs d once. In a GRU's new gate the two sides differ.
  const int64_t shared = d_new ? 2 * n : width, columns = s.width + n;
  Memory<T> both(shared * columns);
  weights({d, width}, shared, columns, both);
  for (int64_t i = 0; i < shared; ++i) {
    std::memcpy(p.gw_ih + i * s.width, both + i * columns, s.width * sizeof(T));
    std::memcpy(p.gw_hh + i * n, both + i * columns + s.width, n * sizeof(T));
  }
  if (d_new) {
    weights({d + shared, width}, n, s.width, p.gw_ih + shared * s.width);
    sources.width = 0;
    weights({d_new, n}, n, n, p.gw_hh + shared * n);
  }

  const int64_t unit = 256, units = ceil_div(width, unit);
  parallel_for(0, units, std::max<int64_t>(1, kGrain / (items * unit)), [&](int64_t begin, int64_t end) {
    const int64_t j = begin * unit, columns = std::min(width, end * unit) - j;
    kernels<T>().column_sums(d + j, items, width, columns, p.gb_ih + j);
  });
  if (d_new) {
    std::copy(p.gb_ih, p.gb_ih + shared, p.gb_hh);
    kernels<T>().column_sums(d_new, items, n, n, p.gb_hh + shared);
  }
}

template <class T>
void backward(const RecurrentBackward<T>& p) {
  const RecurrentShape& s = p.shape;
  const int64_t n = s.hidden, width = recurrent_gates(s.cell) * n, state = s.batch * n;
  const bool is_gru = s.cell == RecurrentCell::gru, is_lstm = s.cell == RecurrentCell::lstm;
  Memory<T> d(s.steps * s.batch * width), d_new(is_gru ? s.steps * state : 0);
  T* const carry = is_lstm ? p.gc0 : is_gru ? p.gh0 : nullptr;
  if (is_lstm) std::memcpy(carry, p.g_c, state * sizeof(T));
  if (is_gru) std::fill(carry, carry + state, T{0});

  const Product<T> product(p.w_hh, 1, n, 1, n, width, s.batch);
  const int64_t left_row = product.left_row(), left_size = s.batch * left_row;
  Memory<T> left(2 * left_size);
  const auto kernel = kernels<T>().backward[static_cast<int>(s.cell)];
  // One product more than there are steps: the last one gives the gradient of h0.
  Split<T>(product, s.batch).run(s.steps + 1, [&](int64_t number, int64_t row, int64_t rows, int64_t j,
                                                  int64_t columns, T* sums) {
    const int64_t at = row * n + j;
    if (number == s.steps) {
      product.run(left + number % 2 * left_size + row * left_row, left_row, rows, j, columns, sums);
      for (int64_t r = 0; r < rows; ++r) {
        T* const out = p.gh0 + at + r * n;
        const T* const sum = sums + r * product.block;
        for (int64_t i = 0; i < columns; ++i) out[i] = is_gru ? out[i] + sum[i] : sum[i];
      }
      return;
    }
    const int64_t t = s.reverse ? number : s.steps - 1 - number, now = t * state + at;
    const int64_t before = (s.reverse ? t + 1 : t - 1) * state + at;
    const int64_t gates = (t * s.batch + row) * width + j;
    const T* const states = is_lstm ? p.saved : p.y;
    const T* const first = is_lstm ? p.c0 : p.h0;
    RecurrentStepBackward<T> step{};
    step.rows = rows, step.columns = columns, step.hidden = n;
    step.g_y = p.g_y + now, step.y = p.y + now;
    step.gates = p.gates ? p.gates + gates : nullptr;
    step.saved = p.saved ? p.saved + now : nullptr;
    step.before = number + 1 < s.steps ? states + before : first + at;
    if (number) {
      for (int64_t g = 0; p.gates && g < width / n; ++g) prefetch(step.gates + g * n, rows, width, columns);
      if (p.saved) prefetch(step.saved, rows, n, columns);
      if (step.before) prefetch(step.before, rows, n, columns);
      prefetch(step.g_y, rows, n, columns);
      product.run(left + number % 2 * left_size + row * left_row, left_row, rows, j, columns, sums);
    }
    step.sums = number ? sums : p.g_h + at, step.sum_row = number ? product.block : n;
    step.carry = carry ? carry + at : nullptr;
    step.d = d + gates;
    step.d_new = is_gru ? d_new + now : nullptr;
    step.next = left + (number + 1) % 2 * left_size + row * left_row + j, step.next_row = left_row;
    kernel(step);
  });
  weight_gradients<T>(p, d, d_new);
}

}  // namespace

void recurrent_forward(const RecurrentForward<float>& p) { forward(p); }
void recurrent_forward(const RecurrentForward<double>& p) { forward(p); }
void recurrent_backward(const RecurrentBackward<float>& p) { backward(p); }
void recurrent_backward(const RecurrentBackward<double>& p) { backward(p); }

}  // namespace pyframe
