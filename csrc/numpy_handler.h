// NumPy arrays whose data comes from the caching allocator.
#pragma once

#include <Python.h>

namespace pyframe {

// Adds `empty(shape, dtype)` to a module. Returns false with a Python exception set on failure.
bool add_empty(PyObject* module);

}  // namespace pyframe
