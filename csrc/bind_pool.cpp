// Python functions of pooling: threads share planes.
#include <cstdint>

#include "bindings.h"
#include "fastcall.h"
#include "pool.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const PoolKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return pool_kernels().f32;
  else return pool_kernels().f64;
}

// 18 integers: size, out, kernel, stride, padding and dilation along three dimensions.
PoolShape shape_of(const Value* v) {
  PoolShape s;
  int64_t* const parts[6] = {s.size, s.out, s.kernel, s.stride, s.padding, s.dilation};
  for (int i = 0; i < 18; ++i) parts[i / 3][i % 3] = v[i].integer;
  return s;
}

int64_t count(const int64_t* lengths) { return lengths[0] * lengths[1] * lengths[2]; }

// (x, y, places or None, planes, shape…)
template <class T>
void max_pool_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  int64_t* const places = v[2].as<int64_t>();
  const int64_t planes = v[3].integer;
  const PoolShape s = shape_of(v + 4);
  const int64_t pixels = count(s.size), outputs = count(s.out);
  parallel_for(0, planes, row_grain(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      table<T>().max(s, x + p * pixels, (planes - p) * pixels, y + p * outputs,
                     places ? places + p * outputs : nullptr);
    }
  });
}

// (g, places, gx, planes, shape…)
template <class T>
void max_pool_backward_of(const Value* v) {
  const T* const g = v[0].as<T>();
  const int64_t* const places = v[1].as<int64_t>();
  T* const gx = v[2].as<T>();
  const int64_t planes = v[3].integer;
  const PoolShape s = shape_of(v + 4);
  const int64_t pixels = count(s.size), outputs = count(s.out);
  parallel_for(0, planes, row_grain(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      table<T>().max_backward(s, g + p * outputs, places + p * outputs, gx + p * pixels);
    }
  });
}

// (x, y, factors ×3, planes, shape…)
template <class T>
void avg_pool_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const T* const factors[3] = {v[2].as<T>(), v[3].as<T>(), v[4].as<T>()};
  const int64_t planes = v[5].integer;
  const PoolShape s = shape_of(v + 6);
  const int64_t pixels = count(s.size), outputs = count(s.out);
  parallel_for(0, planes, row_grain(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      table<T>().average(s, x + p * pixels, (planes - p) * pixels, y + p * outputs, factors);
    }
  });
}

// (g, gx, factors ×3, planes, shape…)
template <class T>
void avg_pool_backward_of(const Value* v) {
  const T* const g = v[0].as<T>();
  T* const gx = v[1].as<T>();
  const T* const factors[3] = {v[2].as<T>(), v[3].as<T>(), v[4].as<T>()};
  const int64_t planes = v[5].integer;
  const PoolShape s = shape_of(v + 6);
  const int64_t pixels = count(s.size), outputs = count(s.out);
  parallel_for(0, planes, row_grain(pixels), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) table<T>().average_backward(s, g + p * outputs, gx + p * pixels, factors);
  });
}

// (x, y, planes, pixels, factor)
template <class T>
void global_average_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const int64_t pixels = v[3].integer;
  const T factor = static_cast<T>(v[4].number);
  parallel_for(0, v[2].integer, row_grain(pixels), [&](int64_t begin, int64_t end) {
    table<T>().average_whole(x + begin * pixels, y + begin, end - begin, pixels, factor);
  });
}

#define BOTH(name, of) \
  void name(const Value* v) { v[0].is_double() ? of<double>(v) : of<float>(v); }
BOTH(max_pool, max_pool_of)
BOTH(max_pool_backward, max_pool_backward_of)
BOTH(avg_pool, avg_pool_of)
BOTH(avg_pool_backward, avg_pool_backward_of)
BOTH(global_average, global_average_of)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("max_pool", max_pool, 22),
                         PYFRAME_METHOD("max_pool_backward", max_pool_backward, 22),
                         PYFRAME_METHOD("avg_pool", avg_pool, 24),
                         PYFRAME_METHOD("avg_pool_backward", avg_pool_backward, 24),
                         PYFRAME_METHOD("global_average", global_average, 5),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_pool(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
