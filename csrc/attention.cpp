#include "attention.h"

#include <algorithm>
#include <new>

#include "allocator.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kThreadWork = 1 << 17;

// With fewer heads than this, the backward pass splits the queries of a head as well. The number of parts depends on
// the shape alone, so sums are added up in one order whatever the number of threads.
constexpr int64_t kEnoughHeads = 8;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
const AttentionKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return attention_kernels().f32;
  else return attention_kernels().f64;
}

// Memory from the caching allocator.
template <class T>
class Memory {
 public:
  explicit Memory(int64_t count) : data_(static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T)))) {
    if (!data_) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { deallocate(data_); }
  T* get() { return data_; }

 private:
  T* data_;
};

// The matrix of an operand for one head.
template <class T, class U = T>
Rows<T> rows_of(const AttentionOperand& operand, int64_t offset) {
  return {static_cast<U*>(operand.data) + offset, operand.row};
}

// Where an operand's matrix for head number `head` begins, heads being counted over the given dimensions.
int64_t offset_of(const AttentionOperand& operand, const AttentionCall& call, int64_t head) {
  int64_t offset = 0;
  for (int d = call.dims - 1; d >= 0; --d) {
    offset += head % call.lengths[d] * operand.strides[d];
    head /= call.lengths[d];
  }
  return offset;
}

template <class T>
AttentionHead<T> head_of(const AttentionCall& call, int64_t head) {
  AttentionHead<T> h;
  h.q = rows_of<const T>(call.q, offset_of(call.q, call, head));
  h.k = rows_of<const T>(call.k, offset_of(call.k, call, head));
  h.v = rows_of<const T>(call.v, offset_of(call.v, call, head));
  const int64_t at = call.mask.data ? offset_of(call.mask, call, head) : 0;
  const int64_t item = call.shape.mask == AttentionMask::numbers ? sizeof(T) : 1;
  h.mask = call.mask.data ? static_cast<const char*>(call.mask.data) + at * item : nullptr;
  h.first_word = head * call.shape.queries * call.shape.keys;
  h.log_mass = static_cast<T*>(call.log_mass) + head * call.shape.queries;
  return h;
}

int64_t heads_of(const AttentionCall& call) {
  int64_t heads = 1;
  for (int d = 0; d < call.dims; ++d) heads *= call.lengths[d];
  return heads;
}

// Items of `work` multiplications that make a thread worth while.
int64_t grain_of(int64_t work) { return std::max<int64_t>(1, kThreadWork / std::max<int64_t>(work, 1)); }

}  // namespace

template <class T>
void attention_forward(const AttentionCall& call) {
  const AttentionShape& s = call.shape;
  const int64_t rows = std::min(s.queries, s.queries > 2 * kLongQueryBlock ? kLongQueryBlock : kQueryBlock);
  const int64_t blocks = ceil_div(s.queries, rows), work = rows * s.keys * (s.width + s.value_width);
  parallel_for(0, heads_of(call) * blocks, grain_of(work), [&](int64_t begin, int64_t end) {
    Memory<T> scratch(table<T>().forward_scratch(s, rows));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / blocks, first = i % blocks * rows;
      const Rows<T> y = rows_of<T>(call.y, offset_of(call.y, call, head));
      table<T>().forward(s, head_of<T>(call, head), first, std::min(rows, s.queries - first), y, scratch.get());
    }
  });
}

namespace {

// The backward pass in two sets of dimensions: those of the keys' gradients (outer), and those summed over (inner).
struct Nest {
  int64_t outer = 1, inner = 1;

  explicit Nest(const AttentionCall& call) : call_(call) {
    for (int d = 0; d < call.dims; ++d) (summed(d) ? inner : outer) *= call.lengths[d];
  }

  // The number of the head with these indices.
  int64_t head(int64_t outer_index, int64_t inner_index) const {
    int64_t head = 0, step = 1;
    for (int d = call_.dims - 1; d >= 0; --d) {
      int64_t& index = summed(d) ? inner_index : outer_index;
      head += index % call_.lengths[d] * step;
      index /= call_.lengths[d];
      step *= call_.lengths[d];
    }
    return head;
  }

 private:
  const AttentionCall& call_;
  bool summed(int d) const { return call_.gk.strides[d] == 0 && call_.lengths[d] > 1; }
};

}  // namespace

template <class T>
void attention_backward(const AttentionCall& call) {
  const AttentionShape& s = call.shape;
  const AttentionKernels<T>& kernels = table<T>();
  const Nest nest(call);
  const int64_t blocks = nest.inner * ceil_div(s.queries, kQueryBlock);
  const int64_t parts = nest.outer >= kEnoughHeads ? 1 : std::min(blocks, ceil_div(kEnoughHeads, nest.outer));
  const int64_t key_size = kernels.sums_size(s.keys, s.width), value_size = kernels.sums_size(s.keys, s.value_width);
  const int64_t size = key_size + value_size;

  // The contribution of every parts-th block of queries, from number `part` on.
  const auto run = [&](int64_t item, int64_t part, T* sums, T* scratch) {
    std::fill(sums, sums + size, T{0});
    for (int64_t b = part; b < blocks; b += parts) {
      const int64_t head = nest.head(item, b % nest.inner);
      kernels.backward(s, head_of<T>(call, head), b / nest.inner * kQueryBlock,
                       rows_of<const T>(call.g, offset_of(call.g, call, head)),
                       rows_of<const T>(call.y, offset_of(call.y, call, head)),
                       rows_of<T>(call.gq, offset_of(call.gq, call, head)), sums, sums + key_size, scratch);
    }
  };
  const auto write = [&](int64_t item, const T* sums) {
    const int64_t head = nest.head(item, 0);
    kernels.write_sums(sums, parts, size, s.keys, s.width, rows_of<T>(call.gk, offset_of(call.gk, call, head)));
    kernels.write_sums(sums + key_size, parts, size, s.keys, s.value_width,
                       rows_of<T>(call.gv, offset_of(call.gv, call, head)));
  };

  const int64_t work = 3 * s.queries * nest.inner * s.keys * (s.width + s.value_width) / parts;
  if (parts == 1) {
    parallel_for(0, nest.outer, grain_of(work), [&](int64_t begin, int64_t end) {
      Memory<T> scratch(kernels.backward_scratch(s)), sums(size);
      for (int64_t item = begin; item < end; ++item) {
        run(item, 0, sums.get(), scratch.get());
        write(item, sums.get());
      }
    });
    return;
  }
  Memory<T> sums(nest.outer * parts * size);
  parallel_for(0, nest.outer * parts, grain_of(work), [&](int64_t begin, int64_t end) {
    Memory<T> scratch(kernels.backward_scratch(s));
    for (int64_t i = begin; i < end; ++i) run(i / parts, i % parts, sums.get() + i * size, scratch.get());
  });
  parallel_for(0, nest.outer, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) write(item, sums.get() + item * parts * size);
  });
}

template void attention_forward<float>(const AttentionCall& call);
template void attention_forward<double>(const AttentionCall& call);
template void attention_backward<float>(const AttentionCall& call);
template void attention_backward<double>(const AttentionCall& call);

}  // namespace pyframe
