// Probes of the thread pool, for the tests.
#pragma once

#include <Python.h>

namespace pyframe {

// Adds them to a module; false with a Python exception set on failure.
bool add_testing(PyObject* module);

}  // namespace pyframe
