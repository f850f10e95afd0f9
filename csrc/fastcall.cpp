#include "fastcall.h"

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

namespace pyframe {

bool read_values(PyObject* const* args, Py_ssize_t count, Value* values) {
  static const bool imported = PyArray_ImportNumPyAPI() >= 0;
  if (!imported) return false;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const arg = args[i];
    Value& value = values[i];
    if (PyArray_Check(arg)) {
      PyArrayObject* const array = reinterpret_cast<PyArrayObject*>(arg);
      value.data = PyArray_DATA(array);
      value.dtype = PyArray_TYPE(array);
    } else if (PyLong_Check(arg)) {
      value.integer = static_cast<std::int64_t>(PyLong_AsUnsignedLongLongMask(arg));  // seeds use all 64 bits
      value.number = static_cast<double>(value.integer);
    } else if (PyFloat_Check(arg)) {
      value.number = PyFloat_AS_DOUBLE(arg);
    } else if (arg != Py_None) {
      PyErr_Format(PyExc_TypeError, "argument %zd is neither an array nor a number", i);
      return false;
    }
  }
  return true;
}

PyObject* call_flat(FlatFunction function, int expected, PyObject* const* args, Py_ssize_t count) {
  if (count != expected || count > kMostValues) {
    PyErr_Format(PyExc_TypeError, "expected %d arguments but got %zd", expected, count);
    return nullptr;
  }
  Value values[kMostValues];
  if (!read_values(args, count, values)) return nullptr;
  const char* message = nullptr;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    function(values);
  } catch (const std::bad_alloc&) {
    message = "out of memory in a kernel";
  } catch (const std::exception&) {
    message = "a kernel failed";
  }
  PyEval_RestoreThread(state);
  if (message) {
    PyErr_SetString(PyExc_MemoryError, message);
    return nullptr;
  }
  Py_RETURN_NONE;
}

}  // namespace pyframe
