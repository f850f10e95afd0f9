// The kernels of the matrix product for one instruction set level.
#include "gemm_table.h"

#include "isa/gemm_finish.h"
#include "isa/gemm_micro.h"
#include "isa/gemm_pack.h"
#include "isa/gemm_thin.h"
#include "isa/gemm_tiles.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// Twelve independent chains hide the latency of a fused multiply-add on all processors known to us.
template <class T>
double peak(int64_t rounds) {
  constexpr int kChains = 12;
  Vec<T> sum[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sum[i] = splat(T(2 + i));  // not 1: it is a fixed point, and would be folded away
  const Vec<T> factor = splat(T(0.999)), term = splat(T(0.001));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) sum[i] = sum[i] * factor + term;
  }
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) sum[0] += sum[i];
  T lanes[kLanes<T>];
  store<T>(lanes, sum[0]);
  asm volatile("" : : "m"(lanes));  // the sums are used
  return 2.0 * kChains * kLanes<T> * static_cast<double>(rounds);
}

template <class T>
constexpr GemmKernels<T> kernels{kRows,          kColumns<T>,     &pack<T>,         &multiply<T, Multiply>,
                                 &finish<T>,     &thin_dot<T>,    &thin_axpy<T>,    &add<T>,
                                 &peak<T>};

}  // namespace

extern const GemmTable gemm_table{kernels<float>, kernels<double>};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
