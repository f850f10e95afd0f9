// Python functions of sorting.
#include "bindings.h"
#include "fastcall.h"
#include "sort.h"

namespace pyframe {
namespace {

Sorted type_of(const Value& array) {
  switch (array.dtype) {  // NumPy's numbers
    case 11: return Sorted::f32;
    case 12: return Sorted::f64;
    case 5: return Sorted::i32;
    default: return Sorted::i64;
  }
}

// (x, values or None, indices, rows, n, descending)
void sort(const Value* v) {
  sort_rows(type_of(v[0]), v[0].data, v[1].data, v[2].as<std::int64_t>(), v[3].integer, v[4].integer,
            v[5].integer != 0);
}

// (x, values, indices, rows, n, k, descending)
void first(const Value* v) {
  first_of_rows(type_of(v[0]), v[0].data, v[1].data, v[2].as<std::int64_t>(), v[3].integer, v[4].integer,
                v[5].integer, v[6].integer != 0);
}

// (x, values, indices, rows, n, k, nan_wins)
void rank(const Value* v) {
  rank_of_rows(type_of(v[0]), v[0].data, v[1].data, v[2].as<std::int64_t>(), v[3].integer, v[4].integer,
               v[5].integer, v[6].integer != 0);
}

PyMethodDef methods[] = {PYFRAME_METHOD("sort_rows", sort, 6), PYFRAME_METHOD("first_of_rows", first, 7),
                         PYFRAME_METHOD("rank_of_rows", rank, 7), {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_sort(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
