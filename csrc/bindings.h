// What adds the functions of each family of kernels to the Python module; false with a Python exception set on failure.
#pragma once

#include <Python.h>

namespace pyframe {

bool bind_norm(PyObject* module);
bool bind_softmax(PyObject* module);

}  // namespace pyframe
