// Python functions of the convolution: read shapes, strides and pointers of NumPy arrays.
#include "bindings.h"

#include <cstdint>
#include <exception>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "conv.h"

namespace pyframe {
namespace {

using std::int64_t;

PyArrayObject* array_of(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

// (batch, channels, *sizes) or without the batch, with up to three sizes, which become the last ones of three.
template <class T>
Images<T> read_images(PyArrayObject* array, int dims, int64_t* batch) {
  const npy_intp *const shape = PyArray_DIMS(array), *const strides = PyArray_STRIDES(array);
  const int64_t item = sizeof(T);
  const int first = PyArray_NDIM(array) - dims;  // 2, or 1 without the batch
  Images<T> images;
  images.data = static_cast<T*>(PyArray_DATA(array));
  *batch = first == 2 ? shape[0] : 1;
  images.image = first == 2 ? strides[0] / item : 0;
  images.channel = strides[first - 1] / item;
  for (int d = 0; d < dims; ++d) {
    images.size[3 - dims + d] = shape[first + d];
    images.stride[3 - dims + d] = strides[first + d] / item;
  }
  return images;
}

// Geometry as the op records give it: tuples of integers; padding may hold pairs, of which the first matters, as the
// lengths of the arrays say the rest.
bool read_numbers(PyObject* tuple, int dims, int64_t* numbers) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != dims) {
    PyErr_SetString(PyExc_TypeError, "conv: expected a tuple with one entry per dimension");
    return false;
  }
  for (int d = 0; d < dims; ++d) {
    PyObject* entry = PyTuple_GET_ITEM(tuple, d);
    if (PyTuple_Check(entry) && PyTuple_GET_SIZE(entry) == 2) entry = PyTuple_GET_ITEM(entry, 0);
    numbers[3 - dims + d] = PyLong_AsLongLong(entry);
  }
  return !PyErr_Occurred();
}

enum class What { output, input, weight };

template <class T>
bool run(What what, PyObject* const* args) {
  PyArrayObject* const weight = array_of(args[1]);
  const int dims = PyArray_NDIM(weight) - 2;
  Convolution<T> layer;
  layer.input = read_images<T>(array_of(args[0]), dims, &layer.batch);
  layer.output = read_images<T>(array_of(args[3]), dims, &layer.batch);
  const npy_intp *const shape = PyArray_DIMS(weight), *const strides = PyArray_STRIDES(weight);
  const int64_t item = sizeof(T);
  layer.weight = static_cast<T*>(PyArray_DATA(weight));
  layer.weight_out = strides[0] / item, layer.weight_in = strides[1] / item;
  for (int d = 0; d < dims; ++d) {
    layer.kernel[3 - dims + d] = shape[2 + d];
    layer.weight_stride[3 - dims + d] = strides[2 + d] / item;
  }
  if (args[2] != Py_None) layer.bias = static_cast<const T*>(PyArray_DATA(array_of(args[2])));
  if (!read_numbers(args[4], dims, layer.stride) || !read_numbers(args[5], dims, layer.before) ||
      !read_numbers(args[6], dims, layer.dilation)) {
    return false;
  }
  layer.groups = PyLong_AsLongLong(args[7]);
  if (PyErr_Occurred()) return false;
  layer.ins = shape[1], layer.outs = shape[0] / layer.groups;
  layer.relu = args[8] == Py_True;
  bool failed = false;
  Py_BEGIN_ALLOW_THREADS
  try {
    what == What::output ? convolve(layer) : what == What::input ? convolve_transposed(layer) : convolve_weight(layer);
  } catch (const std::exception&) {
    failed = true;
  }
  Py_END_ALLOW_THREADS
  if (failed) PyErr_NoMemory();
  return !failed;
}

// (input, weight, bias or None, output, stride, padding, dilation, groups, relu): computes the array it is named for
// from the others. Arrays are aligned, with strides that are whole elements; a computed weight and the bias are
// contiguous. The bias and relu belong to what is computed, one element per channel of it; a weight has none.
template <What what>
PyObject* py_conv(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 9) return PyErr_Format(PyExc_TypeError, "conv: expected 9 arguments but got %zd", count);
  for (int i : {0, 1, 3}) {
    if (!PyArray_Check(args[i])) return PyErr_Format(PyExc_TypeError, "conv: argument %d is no array", i);
  }
  const bool done = PyArray_TYPE(array_of(args[0])) == NPY_DOUBLE ? run<double>(what, args) : run<float>(what, args);
  if (!done) return nullptr;
  Py_RETURN_NONE;
}

template <What what>
PyCFunction entry() {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_conv<what>));
}

PyMethodDef methods[] = {
    {"conv_output", entry<What::output>(), METH_FASTCALL,
     "conv_output(input, weight, bias, output, stride, padding, dilation, groups, relu, /)\n--\n\n"
     "Write the output of a convolution."},
    {"conv_input", entry<What::input>(), METH_FASTCALL,
     "conv_input(input, weight, bias, output, stride, padding, dilation, groups, relu, /)\n--\n\n"
     "Write the gradient of the input, or a transposed convolution's result, from `output`."},
    {"conv_weight", entry<What::weight>(), METH_FASTCALL,
     "conv_weight(input, weight, None, output, stride, padding, dilation, groups, False, /)\n--\n\n"
     "Write the gradient of the weight from `input` and the gradient `output`."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_conv(PyObject* module) { return PyArray_ImportNumPyAPI() >= 0 && PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
