// Python functions of the softmax family: shapes are counted by the wrappers; threads share rows or columns.
#include <algorithm>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
#include "sizes.h"
#include "softmax.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const SoftmaxKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return softmax_kernels().f32;
  else return softmax_kernels().f64;
}

// (x, y, outer, n, inner, log)
template <class T>
void softmax_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const int64_t outer = v[2].integer, n = v[3].integer, inner = v[4].integer;
  const bool log = v[5].integer != 0;
  const bool past_cache = exceeds_cache<T>(outer * n * inner);
  if (inner == 1) {
    parallel_for(0, outer, row_grain(n), [&](int64_t begin, int64_t end) {
      table<T>().rows(x + begin * n, y + begin * n, end - begin, n, log, past_cache);
    });
    return;
  }
  parallel_for(0, outer * inner, row_grain(n), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t o = begin / inner, first = begin % inner, stop = std::min(inner, first + end - begin);
      table<T>().columns(x + o * n * inner, y + o * n * inner, n, inner, first, stop, log);
      begin += stop - first;
    }
  });
}

// (g, y, gx, outer, n, inner, log)
template <class T>
void softmax_backward_of(const Value* v) {
  const T *const g = v[0].as<T>(), *const y = v[1].as<T>();
  T* const gx = v[2].as<T>();
  const int64_t outer = v[3].integer, n = v[4].integer, inner = v[5].integer;
  const bool log = v[6].integer != 0;
  const bool past_cache = exceeds_cache<T>(outer * n * inner);
  if (inner == 1) {
    parallel_for(0, outer, row_grain(n), [&](int64_t begin, int64_t end) {
      table<T>().rows_backward(g + begin * n, y + begin * n, gx + begin * n, end - begin, n, log, past_cache);
    });
    return;
  }
  parallel_for(0, outer * inner, row_grain(n), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t o = begin / inner, first = begin % inner, stop = std::min(inner, first + end - begin);
      const int64_t at = o * n * inner;
      table<T>().columns_backward(g + at, y + at, gx + at, n, inner, first, stop, log);
      begin += stop - first;
    }
  });
}

// (x, target, weight or None, ignored, loss, top, mass, total, y or None, rows, n, mean). `total` gets the sum of the
// weights, `y` the sum or the mean of the losses.
template <class T>
void cross_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const weight = v[2].as<T>();
  const int64_t* const target = v[1].as<int64_t>();
  const int64_t ignored = v[3].integer, rows = v[9].integer, n = v[10].integer;
  T *const loss = v[4].as<T>(), *const top = v[5].as<T>(), *const mass = v[6].as<T>();
  // Sums of blocks of fixed length, added up in order: the same for any number of threads.
  const int64_t block = row_grain(n), blocks = (rows + block - 1) / block;
  std::vector<double> sums(2 * blocks);
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t r = b * block, count = std::min(block, rows - r);
      table<T>().cross(x + r * n, target + r, weight, ignored, loss + r, top + r, mass + r, count, n, &sums[2 * b]);
    }
  });
  double losses = 0, weights = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    losses += sums[2 * b];
    weights += sums[2 * b + 1];
  }
  *v[7].as<T>() = static_cast<T>(weights);
  if (v[8].data) *v[8].as<T>() = static_cast<T>(v[11].integer ? losses / weights : losses);
}

// (x, target, weight or None, ignored, g, g_step, total or None, top, mass, gx, rows, n)
template <class T>
void cross_backward_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const weight = v[2].as<T>(), *const g = v[4].as<T>();
  const int64_t* const target = v[1].as<int64_t>();
  const int64_t ignored = v[3].integer, step = v[5].integer, rows = v[10].integer, n = v[11].integer;
  const T scale = v[6].data ? T{1} / *v[6].as<T>() : T{1};
  const T *const top = v[7].as<T>(), *const mass = v[8].as<T>();
  T* const gx = v[9].as<T>();
  const bool past_cache = exceeds_cache<T>(rows * n);
  parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
    table<T>().cross_backward(x + begin * n, target + begin, weight, ignored, g + begin * step, step, scale,
                              top + begin, mass + begin, gx + begin * n, end - begin, n, past_cache);
  });
}

void softmax(const Value* v) { v[0].is_double() ? softmax_of<double>(v) : softmax_of<float>(v); }
void softmax_backward(const Value* v) {
  v[0].is_double() ? softmax_backward_of<double>(v) : softmax_backward_of<float>(v);
}
void cross_entropy(const Value* v) { v[0].is_double() ? cross_of<double>(v) : cross_of<float>(v); }
void cross_entropy_backward(const Value* v) {
  v[0].is_double() ? cross_backward_of<double>(v) : cross_backward_of<float>(v);
}

PyMethodDef methods[] = {PYFRAME_METHOD("softmax", softmax, 6),
                         PYFRAME_METHOD("softmax_backward", softmax_backward, 7),
                         PYFRAME_METHOD("cross_entropy", cross_entropy, 12),
                         PYFRAME_METHOD("cross_entropy_backward", cross_entropy_backward, 12),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_softmax(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
