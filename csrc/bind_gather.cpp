// Python functions of reading and writing by index.
#include <cstdint>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
#include "gather.h"
#include "scatter.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// (x, index, out, outer, n, count, bytes of a row)
void take_rows_of(const Value* v) {
  take_rows(v[0].as<char>(), v[1].as<int64_t>(), v[2].as<char>(), v[3].integer, v[4].integer, v[5].integer,
            v[6].integer);
}

// (x, index, out, outer, n, count, inner, bytes of an item)
void take_elements_of(const Value* v) {
  take_elements(v[0].as<char>(), v[1].as<int64_t>(), v[2].as<char>(), v[3].integer, v[4].integer, v[5].integer,
                v[6].integer, v[7].integer);
}

Sum sum_of(const Value& array, bool accumulate) {
  if (!accumulate) return Sum::none;
  switch (array.dtype) {  // NumPy's numbers
    case 11: return Sum::f32;
    case 12: return Sum::f64;
    case 5: return Sum::i32;
    default: return Sum::i64;
  }
}

// (out, index, src, outer, n, count, width, bytes of an item, accumulate)
void put_rows_of(const Value* v) {
  put_rows(v[0].as<char>(), v[1].as<int64_t>(), v[2].as<char>(), v[3].integer, v[4].integer, v[5].integer,
           v[6].integer, v[7].integer, sum_of(v[0], v[8].integer != 0));
}

// (out, index, src, single, outer, n, count, inner, bytes of an item, accumulate)
void put_elements_of(const Value* v) {
  put_elements(v[0].as<char>(), v[1].as<int64_t>(), v[2].as<char>(), v[3].integer != 0, v[4].integer, v[5].integer,
               v[6].integer, v[7].integer, v[8].integer, sum_of(v[0], v[9].integer != 0));
}

// (index, count, [least, greatest])
void index_range_of(const Value* v) { index_range(v[0].as<int64_t>(), v[1].integer, v[2].as<int64_t>()); }

// (index, lengths, dims, count, places)
void flat_places_of(const Value* v) {
  flat_places(v[0].as<int64_t>(), v[1].as<int64_t>(), v[2].integer, v[3].integer, v[4].as<int64_t>());
}

// (mask, count, ends), (mask, count, ends, places)
void count_true_of(const Value* v) { count_true(v[0].as<std::uint8_t>(), v[1].integer, v[2].as<int64_t>()); }
void true_places_of(const Value* v) {
  true_places(v[0].as<std::uint8_t>(), v[1].integer, v[2].as<int64_t>(), v[3].as<int64_t>());
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

// (places, count, lengths, dims, out, step, dim_step)
void coordinates_of(const Value* v) {
  coordinates(v[0].as<int64_t>(), v[1].integer, v[2].as<int64_t>(), v[3].integer, v[4].as<int64_t>(), v[5].integer,
              v[6].integer);
}

PyMethodDef methods[] = {PYFRAME_METHOD("gather_rows", take_rows_of, 7),
                         PYFRAME_METHOD("take_elements", take_elements_of, 8),
                         PYFRAME_METHOD("put_rows", put_rows_of, 9),
                         PYFRAME_METHOD("put_elements", put_elements_of, 10),
                         PYFRAME_METHOD("index_range", index_range_of, 3),
                         PYFRAME_METHOD("flat_places", flat_places_of, 5),
                         PYFRAME_METHOD("count_true", count_true_of, 3),
                         PYFRAME_METHOD("coordinates", coordinates_of, 7),
                         PYFRAME_METHOD("true_places", true_places_of, 4),
                         PYFRAME_METHOD("sum_rows", sum_rows, 8),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_gather(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
