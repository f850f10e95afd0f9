// NumPy arrays whose data comes from the caching allocator.
#pragma once

#include <Python.h>

namespace pyframe {

// Adds `empty(shape, dtype)` to a module. Returns false with a Python exception set on failure.
bool add_empty(PyObject* module);

// An uninitialised C-ordered array on cached memory; `dtype` (a NumPy descriptor) loses a reference.
PyObject* empty_array(int ndim, const Py_ssize_t* shape, PyObject* dtype);

}  // namespace pyframe
