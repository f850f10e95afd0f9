// The Python function of resampling: threads share blocks of output rows.
#include <cstddef>
#include <cstdint>
#include <new>

#include "allocator.h"
#include "bindings.h"
#include "fastcall.h"
#include "resample.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const ResampleKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return resample_kernels().f32;
  else return resample_kernels().f64;
}

// (from, to, taps, index or None, weight or None)
template <class T>
ResampleAxis<T> axis_of(const Value* v) {
  return {v[0].integer, v[1].integer, v[2].integer, v[3].as<int64_t>(), v[4].as<T>()};
}

// (x, y, planes, height…, width…)
template <class T>
void resample_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const ResampleShape<T> s{axis_of<T>(v + 3), axis_of<T>(v + 8)};
  const int64_t blocks = (s.height.to + kResampleRows - 1) / kResampleRows;
  const int64_t work = (s.width.from + s.width.to) * (s.height.to < kResampleRows ? s.height.to : kResampleRows);
  parallel_for(0, v[2].integer * blocks, row_grain(work), [&](int64_t begin, int64_t end) {
    void* const scratch = allocate(static_cast<std::size_t>(resample_scratch(s)));
    if (!scratch) throw std::bad_alloc();
    table<T>().run(s, x, y, begin, end, scratch);
    deallocate(scratch);
  });
}

void resample(const Value* v) { v[0].is_double() ? resample_of<double>(v) : resample_of<float>(v); }

PyMethodDef methods[] = {PYFRAME_METHOD("resample", resample, 13), {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_resample(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
