// Python functions of summed losses: sums over blocks of fixed length, added up in order.
#include <algorithm>
#include <cstdint>

#include "bindings.h"
#include "fastcall.h"
#include "losses.h"
#include "scratch.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const LossKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return loss_kernels().f32;
  else return loss_kernels().f64;
}

// (kind, x, t, y, n, bound, divisor): y = Σ loss / divisor
template <class T>
void loss_of(const Value* v) {
  const auto sum = table<T>().sum[v[0].integer];
  const T *const x = v[1].as<T>(), *const t = v[2].as<T>();
  const int64_t n = v[4].integer, blocks = (n + kGrain - 1) / kGrain;
  const T bound = static_cast<T>(v[5].number);
  Scratch<double> sums(blocks);
  parallel_for(0, blocks, 2, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      sums[b] = sum(x + b * kGrain, t + b * kGrain, std::min(kGrain, n - b * kGrain), bound);
    }
  });
  double total = 0;
  for (int64_t b = 0; b < blocks; ++b) total += sums[b];
  *v[3].as<T>() = static_cast<T>(total / v[6].number);
}

// (kind, x, t, g, gx, n, bound, divisor): gx = g / divisor · slope, with one g for all
template <class T>
void loss_backward_of(const Value* v) {
  const auto grad = table<T>().grad[v[0].integer];
  const T *const x = v[1].as<T>(), *const t = v[2].as<T>();
  T* const gx = v[4].as<T>();
  const int64_t n = v[5].integer;
  const T bound = static_cast<T>(v[6].number);
  const T g = static_cast<T>(static_cast<double>(*v[3].as<T>()) / v[7].number);
  const bool past_cache = exceeds_cache<T>(n);
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    grad(x + begin, t + begin, gx + begin, end - begin, bound, g, past_cache);
  });
}

void summed_loss(const Value* v) { v[1].is_double() ? loss_of<double>(v) : loss_of<float>(v); }
void summed_loss_backward(const Value* v) {
  v[1].is_double() ? loss_backward_of<double>(v) : loss_backward_of<float>(v);
}

PyMethodDef methods[] = {PYFRAME_METHOD("summed_loss", summed_loss, 7),
                         PYFRAME_METHOD("summed_loss_backward", summed_loss_backward, 8),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_losses(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
