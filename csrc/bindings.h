// What adds the functions of each family of kernels to the Python module; false with a Python exception set on failure.
#pragma once

#include <Python.h>

namespace pyframe {

bool bind_depthwise(PyObject* module);
bool bind_conv(PyObject* module);
bool bind_copy(PyObject* module);
bool bind_attention(PyObject* module);
bool bind_gather(PyObject* module);
bool bind_gemm(PyObject* module);
bool bind_gemm_testing(PyObject* module);
bool bind_launch(PyObject* module);
bool bind_batch_norm(PyObject* module);
bool bind_cross_entropy(PyObject* module);
bool bind_losses(PyObject* module);
bool bind_norm(PyObject* module);
bool bind_optim(PyObject* module);
bool bind_pointwise(PyObject* module);
bool bind_pool(PyObject* module);
bool bind_random(PyObject* module);
bool bind_recurrent(PyObject* module);
bool bind_reduce(PyObject* module);
bool bind_resample(PyObject* module);
bool bind_softmax(PyObject* module);
bool bind_sort(PyObject* module);

}  // namespace pyframe
