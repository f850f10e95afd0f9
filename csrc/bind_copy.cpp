// Python functions that copy and convert arrays of any layout.
#include <exception>
#include <new>

#include "bindings.h"
#include "copy.h"
#include "fastcall.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NO_IMPORT_ARRAY  // only accessors of arrays are used
#include <numpy/ndarrayobject.h>

namespace pyframe {
namespace {

// copy_strided(out, in, bytes of an item): two arrays of one shape and item size; `in` may be broadcast.
PyObject* strided(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "copy_strided: expected two arrays and the size of an item");
    return nullptr;
  }
  const std::int64_t item = PyLong_AsLongLong(args[2]);
  if (item == -1 && PyErr_Occurred()) return nullptr;
  PyArrayObject* const out = reinterpret_cast<PyArrayObject*>(args[0]);
  PyArrayObject* const in = reinterpret_cast<PyArrayObject*>(args[1]);
  const int dims = PyArray_NDIM(out);
  bool fits = PyArray_NDIM(in) == dims;
  std::int64_t shape[kMostCopyDims], out_strides[kMostCopyDims], in_strides[kMostCopyDims];
  for (int d = 0; fits && d < dims; ++d) {
    shape[d] = PyArray_DIM(out, d);
    out_strides[d] = PyArray_STRIDE(out, d);
    in_strides[d] = PyArray_STRIDE(in, d);
    fits = PyArray_DIM(in, d) == shape[d];
  }
  if (!fits) {
    PyErr_SetString(PyExc_ValueError, "copy_strided: the arrays differ in shape");
    return nullptr;
  }
  char* const to = static_cast<char*>(PyArray_DATA(out));
  const char* const from = static_cast<const char*>(PyArray_DATA(in));
  Py_BEGIN_ALLOW_THREADS
  copy_strided(to, from, dims, shape, out_strides, in_strides, item);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

// (out, to, in, from, count): the types as numbers of `Storage`
void converted(const Value* v) {
  convert(v[0].as<char>(), static_cast<Storage>(v[1].integer), v[2].as<char>(), static_cast<Storage>(v[3].integer),
          v[4].integer);
}

// (out, in, planes, rows, columns, bytes of an item, diagonal, lower)
void triangle(const Value* v) {
  copy_triangle(v[0].as<char>(), v[1].as<char>(), v[2].integer, v[3].integer, v[4].integer, v[5].integer, v[6].integer,
                v[7].integer != 0);
}

// (out, in, bytes): adjacent bytes, written past the caches by the calling thread
void past_cache(const Value* v) {
  copy_kernels().rows(v[0].as<char>(), v[1].as<char>(), 1, v[2].integer, v[2].integer, v[2].integer, true);
}

// (out, count, turn, start, step, end) of float32, float64 or int64
void ramped(const Value* v) {
  const std::int64_t count = v[1].integer;
  if (v[0].dtype == NPY_FLOAT) ramp(v[0].as<float>(), count, v[2].integer, v[3].number, v[4].number, v[5].number);
  else if (v[0].is_double()) ramp(v[0].as<double>(), count, v[2].integer, v[3].number, v[4].number, v[5].number);
  else ramp(v[0].as<std::int64_t>(), count, v[3].integer, v[4].integer);
}

PyMethodDef methods[] = {
    {"copy_strided", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(strided)), METH_FASTCALL,
     "copy_strided(out, in, item): copy between arrays of one shape and item size, whatever their strides."},
    PYFRAME_METHOD("copy_past_cache", past_cache, 3),
    PYFRAME_METHOD("convert", converted, 5),
    PYFRAME_METHOD("copy_triangle", triangle, 8),
    PYFRAME_METHOD("ramp", ramped, 6),
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_copy(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
