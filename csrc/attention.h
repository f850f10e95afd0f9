// Scaled dot-product attention in blocks: softmax(q kᵀ · scale + mask) v and its gradients. The matrix of scores is
// never in memory: a block of it at a time is formed, used and forgotten, and formed again in the backward pass.
#pragma once

#include <cstdint>

#include "isa_tables.h"
#include "random.h"

namespace pyframe {

// Queries and keys of a block: multiples of every level's register tiles. A block of scores (64 KB in float32) and the
// operands it comes from stay in the second cache level.
constexpr std::int64_t kQueryBlock = 128, kKeyBlock = 128;
// Queries of a block in the forward pass of long sequences, which keeps the scores of a few queries only: keys and
// values are fetched half as often.
constexpr std::int64_t kLongQueryBlock = 256;

enum class AttentionMask { none, bytes, numbers };  // bytes: 0 leaves a key out; numbers are added to the scores

// What all heads of a call share.
struct AttentionShape {
  std::int64_t queries, keys, width, value_width;  // of one head; width: features of queries and keys
  double scale;
  bool causal;  // query i sees the keys 0 to i
  AttentionMask mask;
  std::int64_t mask_row, mask_column;  // strides
  // Dropout of weights: weight i (in the order of [heads, queries, keys]) is multiplied by kept_scale where word i of
  // the stream is below the threshold, else by 0.
  bool dropout;
  Stream stream;
  std::uint32_t threshold;
  double kept_scale;
};

// Rows of numbers that lie one after the other.
template <class T>
struct Rows {
  T* data;
  std::int64_t stride;
  T* operator[](std::int64_t row) const { return data + row * stride; }
};

// One head.
template <class T>
struct AttentionHead {
  Rows<const T> q, k, v;
  const void* mask;
  std::int64_t first_word;  // of dropout
  T* log_mass;              // log Σ exp(scores) per query; 0 where there is no key. Read by the backward pass.
};

template <class T>
struct AttentionKernels {
  // Numbers of T that each function needs as scratch memory, aligned to 64 bytes.
  std::int64_t (*forward_scratch)(const AttentionShape& shape, std::int64_t queries);
  std::int64_t (*backward_scratch)(const AttentionShape& shape);

  // The output of `queries` queries from `begin` on, a multiple of kQueryBlock.
  void (*forward)(const AttentionShape& shape, const AttentionHead<T>& head, std::int64_t begin, std::int64_t queries,
                  Rows<T> y, T* scratch);

  // What up to kQueryBlock queries from `begin` on contribute: their gradient gq, and sums added to `key_sums` and `value_sums`, arrays of
  // sums_size(keys, width) and sums_size(keys, value_width) numbers in the level's own layout.
  void (*backward)(const AttentionShape& shape, const AttentionHead<T>& head, std::int64_t begin, Rows<const T> g,
                   Rows<const T> y, Rows<T> gq, T* key_sums, T* value_sums, T* scratch);
  std::int64_t (*sums_size)(std::int64_t keys, std::int64_t width);
  // rows = sums of `count` such arrays, `apart` numbers from each other.
  void (*write_sums)(const T* sums, std::int64_t count, std::int64_t apart, std::int64_t keys, std::int64_t width,
                     Rows<T> rows);
};

struct AttentionTable {
  AttentionKernels<float> f32;
  AttentionKernels<double> f64;
};
PYFRAME_ISA_TABLE(AttentionTable, attention_table, attention_kernels)

// All heads: operands as [dims..., rows, columns] with strides in numbers (0 where an operand is broadcast); columns
// lie one after the other.
struct AttentionOperand {
  static constexpr int kMaxDims = 8;
  void* data = nullptr;
  std::int64_t strides[kMaxDims] = {};
  std::int64_t row = 0;
};
struct AttentionCall {
  AttentionShape shape;
  int dims = 0;
  std::int64_t lengths[AttentionOperand::kMaxDims] = {};
  AttentionOperand q, k, v, mask, y;  // the mask's strides are in its own elements; y and gq are not broadcast
  void* log_mass = nullptr;           // [dims..., queries], contiguous
  // For the backward pass. gk and gv have a stride of 0 in the dimensions they are summed over, both in the same.
  AttentionOperand g, gq, gk, gv;
};
template <class T> void attention_forward(const AttentionCall& call);
template <class T> void attention_backward(const AttentionCall& call);

}  // namespace pyframe
