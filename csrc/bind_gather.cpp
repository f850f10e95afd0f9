// Python functions of embeddings: copying rows by index, and the sum of rows for each index.
#include <cstdint>
#include <cstring>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
#include "gather.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// (table, index, out, count, bytes of a row): out[i] = table[index[i]]
void take_rows(const Value* v) {
  const char* const table = v[0].as<char>();
  const int64_t* const index = v[1].as<int64_t>();
  char* const out = v[2].as<char>();
  const int64_t count = v[3].integer, bytes = v[4].integer;
  parallel_for(0, count, row_grain(bytes / 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(out + i * bytes, table + index[i] * bytes, static_cast<std::size_t>(bytes));
    }
  });
}

template <class T>
void sum_of(const T* x, const int64_t* order, int64_t count, int64_t width, T factor, T* out) {
  if constexpr (sizeof(T) == 4) gather_kernels().sum_rows_f32(x, order, count, width, factor, out);
  else gather_kernels().sum_rows_f64(x, order, count, width, factor, out);
}

// (g, index, out, count, width, rows, skipped, by_frequency): out[k] = Σ g[i] over index[i] = k, in the order of i.
// Positions are sorted by index (counting, stable), so every row of `out` is one thread's.
template <class T>
void sum_rows_of(const Value* v) {
  const T* const g = v[0].as<T>();
  const int64_t* const index = v[1].as<int64_t>();
  T* const out = v[2].as<T>();
  const int64_t count = v[3].integer, width = v[4].integer, rows = v[5].integer, skipped = v[6].integer;
  const bool by_frequency = v[7].integer != 0;
  std::vector<int64_t> starts(rows + 1, 0), order(count);
  for (int64_t i = 0; i < count; ++i) ++starts[index[i] + 1];
  for (int64_t k = 0; k < rows; ++k) starts[k + 1] += starts[k];
  std::vector<int64_t> next(starts.begin(), starts.end() - 1);
  for (int64_t i = 0; i < count; ++i) order[next[index[i]]++] = i;
  parallel_for(0, rows, row_grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t n = k == skipped ? 0 : starts[k + 1] - starts[k];
      const T factor = by_frequency && n > 1 ? T{1} / static_cast<T>(n) : T{1};
      sum_of(g, order.data() + starts[k], n, width, factor, out + k * width);
    }
  });
}

void sum_rows(const Value* v) { v[0].is_double() ? sum_rows_of<double>(v) : sum_rows_of<float>(v); }

PyMethodDef methods[] = {PYFRAME_METHOD("take_rows", take_rows, 5), PYFRAME_METHOD("sum_rows", sum_rows, 8),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_gather(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
