// The Python functions of the pointwise vector machine.
#pragma once

#include <pybind11/pybind11.h>

namespace pyframe {

void bind_pointwise(pybind11::module_& module);

}  // namespace pyframe
