// Python functions of the softmax family: shapes are counted by the wrappers; threads share rows or columns.
#include <algorithm>

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

void softmax(const Value* v) { v[0].is_double() ? softmax_of<double>(v) : softmax_of<float>(v); }
void softmax_backward(const Value* v) {
  v[0].is_double() ? softmax_backward_of<double>(v) : softmax_backward_of<float>(v);
}
PyMethodDef methods[] = {PYFRAME_METHOD("softmax", softmax, 6),
                         PYFRAME_METHOD("softmax_backward", softmax_backward, 7),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_softmax(PyObject* module) {
  return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace pyframe
