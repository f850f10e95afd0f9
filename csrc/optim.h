// Optimizer steps: one call updates a run of elements of a parameter and its state.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Choices of a step; what they mean is in the Python classes, whose formulas these kernels follow.
enum OptimFlags : int {
  kMaximize = 1,
  kDecay = 2,       // weight decay is not 0
  kDecoupled = 4,   // it scales the parameter instead of being added to the gradient
  kLerpFromEnd = 8, // averages move from the other end (weights of 0.5 and more)
  kAmsgrad = 16,
  kNesterov = 32,
  kDampening = 64,
  kMomentum = 128,
  kCentered = 256,
};

// Parameter p, gradient g, three arrays of state (null where there is none), the numbers of the class.
template <class T>
using OptimStep = void (*)(T* p, const T* g, T* const* states, std::int64_t n, const double* numbers, int flags);

template <class T>
struct OptimKernels {
  OptimStep<T> sgd, adam, rmsprop;
  double (*square_sum)(const T* x, std::int64_t n);
  void (*scale)(T* x, std::int64_t n, T factor);
};

struct OptimTable {
  OptimKernels<float> f32;
  OptimKernels<double> f64;
};
PYFRAME_ISA_TABLE(OptimTable, optim_table, optim_kernels)

}  // namespace pyframe
