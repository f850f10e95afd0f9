// Python functions that copy and convert arrays of any layout.
#include <exception>
#include <new>

#include "bindings.h"
#include "copy.h"
#include "fastcall.h"
#include "pad.h"
#include "sizes.h"
#include "thread_pool.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NO_IMPORT_ARRAY  // only accessors of arrays are used
#include <numpy/ndarrayobject.h>

namespace pyframe {
namespace {

// copy_strided(out, in, bytes of an item): two arrays of one item size, of which `in` broadcasts to the shape of `out`.
PyObject* strided(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) {
    PyErr_SetString(PyExc_TypeError, "copy_strided: expected two arrays and the size of an item");
    return nullptr;
  }
  const std::int64_t item = PyLong_AsLongLong(args[2]);
  if (item == -1 && PyErr_Occurred()) return nullptr;
  PyArrayObject* const out = reinterpret_cast<PyArrayObject*>(args[0]);
  PyArrayObject* const in = reinterpret_cast<PyArrayObject*>(args[1]);
  const int dims = PyArray_NDIM(out), missing = dims - PyArray_NDIM(in);
  bool fits = missing >= 0;
  std::int64_t shape[kMostCopyDims], out_strides[kMostCopyDims], in_strides[kMostCopyDims];
  for (int d = 0; fits && d < dims; ++d) {
    shape[d] = PyArray_DIM(out, d);
    out_strides[d] = PyArray_STRIDE(out, d);
    const bool repeated = d < missing || PyArray_DIM(in, d - missing) == 1;
    in_strides[d] = repeated ? 0 : PyArray_STRIDE(in, d - missing);
    fits = repeated || PyArray_DIM(in, d - missing) == shape[d];
  }
  if (!fits) {
    PyErr_SetString(PyExc_ValueError, "copy_strided: the array does not broadcast");
    return nullptr;
  }
  char* const to = static_cast<char*>(PyArray_DATA(out));
  const char* const from = static_cast<const char*>(PyArray_DATA(in));
  Py_BEGIN_ALLOW_THREADS
  copy_strided(to, from, dims, shape, out_strides, in_strides, item);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

// pad(out, in, widths, border, value, bytes of an item): contiguous arrays, a tuple (before, after of the last dimension,
// before, ...) of plain ints, a number of `Border`, and an array of one element.
PyObject* padded(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 6 || !PyTuple_Check(args[2])) {
    PyErr_SetString(PyExc_TypeError, "pad: expected two arrays, a tuple, a number, an array and a number");
    return nullptr;
  }
  PyArrayObject* const out = reinterpret_cast<PyArrayObject*>(args[0]);
  PyArrayObject* const in = reinterpret_cast<PyArrayObject*>(args[1]);
  const int dims = PyArray_NDIM(in);
  const Py_ssize_t widths = PyTuple_GET_SIZE(args[2]);
  std::int64_t shape[kMostCopyDims], sides[2][kMostCopyDims];
  for (int d = 0; d < dims; ++d) {
    shape[d] = PyArray_DIM(in, d);
    for (int side = 0; side < 2; ++side) {
      const Py_ssize_t k = 2 * (dims - 1 - d) + side;
      sides[side][d] = k < widths ? PyLong_AsLongLong(PyTuple_GET_ITEM(args[2], k)) : 0;
    }
  }
  const auto border = static_cast<Border>(PyLong_AsLong(args[3]));
  const std::int64_t item = PyLong_AsLongLong(args[5]);
  if (PyErr_Occurred()) return nullptr;
  char* const to = static_cast<char*>(PyArray_DATA(out));
  const char* const from = static_cast<const char*>(PyArray_DATA(in));
  const char* const value = static_cast<const char*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(args[4])));
  Py_BEGIN_ALLOW_THREADS
  pad(to, from, dims, shape, sides[0], sides[1], item, border, value);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

// join(out, parts, dim, bytes of an item): a list of arrays one after another along `dim` of `out`, which has that
// dimension more if they are stacked.
PyObject* joined(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 4 || !PyList_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "join: expected an array, a list of arrays and two numbers");
    return nullptr;
  }
  PyArrayObject* const out = reinterpret_cast<PyArrayObject*>(args[0]);
  const int dim = static_cast<int>(PyLong_AsLong(args[2]));
  const std::int64_t item = PyLong_AsLongLong(args[3]), parts = PyList_GET_SIZE(args[1]);
  if (PyErr_Occurred()) return nullptr;
  const auto part = [&](std::int64_t k) { return reinterpret_cast<PyArrayObject*>(PyList_GET_ITEM(args[1], k)); };
  const int dims = PyArray_NDIM(part(0)), gap = PyArray_NDIM(out) - dims;
  const auto step = [&](std::int64_t k) {
    return PyArray_STRIDE(out, dim) * (gap ? 1 : PyArray_DIM(part(k), dim));
  };
  const auto copy = [&](std::int64_t begin, std::int64_t end) {
    char* to = static_cast<char*>(PyArray_DATA(out));
    for (std::int64_t k = 0; k < begin; ++k) to += step(k);
    for (std::int64_t k = begin; k < end; ++k, to += step(k - 1)) {
      std::int64_t shape[kMostCopyDims], out_strides[kMostCopyDims], in_strides[kMostCopyDims];
      for (int d = 0; d < dims; ++d) {
        shape[d] = PyArray_DIM(part(k), d);
        out_strides[d] = PyArray_STRIDE(out, d < dim ? d : d + gap);
        in_strides[d] = PyArray_STRIDE(part(k), d);
      }
      copy_strided(to, static_cast<const char*>(PyArray_DATA(part(k))), dims, shape, out_strides, in_strides, item);
    }
  };
  const std::int64_t bytes = PyArray_STRIDE(out, 0) * PyArray_DIM(out, 0);
  constexpr std::int64_t kMany = 8;  // few may be of unequal size: all threads work on each of them
  Py_BEGIN_ALLOW_THREADS
  if (parts < kMany) copy(0, parts);
  else parallel_for(0, parts, kGrain * item * parts / (bytes + 1) + 1, copy);
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
     "copy_strided(out, in, item): copy between arrays of one item size, whatever their strides."},
    {"join", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(joined)), METH_FASTCALL, nullptr},
    {"pad", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(padded)), METH_FASTCALL, nullptr},
    PYFRAME_METHOD("copy_past_cache", past_cache, 3),
    PYFRAME_METHOD("convert", converted, 5),
    PYFRAME_METHOD("copy_triangle", triangle, 8),
    PYFRAME_METHOD("ramp", ramped, 6),
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_copy(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
