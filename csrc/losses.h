// Losses of single elements, summed up: forward in one pass, and the gradient of the input in another.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// What is summed up, with z = x - t; the formulas are those of the Python ops of these names.
enum class Loss : int { squared, absolute, smooth, huber, entropy_of_logits, count };

template <class T>
struct LossKernels {
  // Σ loss(x, t); `bound` is where a parabola ends.
  double (*sum[static_cast<int>(Loss::count)])(const T* x, const T* t, std::int64_t n, T bound);
  // gx = g · d loss / d x
  void (*grad[static_cast<int>(Loss::count)])(const T* x, const T* t, T* gx, std::int64_t n, T bound, T g,
                                              bool past_cache);
};

struct LossTable {
  LossKernels<float> f32;
  LossKernels<double> f64;
};
PYFRAME_ISA_TABLE(LossTable, loss_table, loss_kernels)

}  // namespace pyframe
