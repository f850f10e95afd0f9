// Probes of the internals, for the tests.
#pragma once

#include <pybind11/pybind11.h>

namespace pyframe {

void add_testing(pybind11::module_ module);

}  // namespace pyframe
