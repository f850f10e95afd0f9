// Python functions of attention: read shapes, strides and pointers of NumPy arrays. The wrappers promise one dtype,
// whole numbers of elements as strides, and columns that lie one after the other.
#include "bindings.h"

#include <cstdint>
#include <exception>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "attention.h"

namespace pyframe {
namespace {

using std::int64_t;

// Calls with fewer multiplications keep the interpreter lock: giving it away and back takes as long.
constexpr int64_t kLockedWork = 1 << 15;

PyArrayObject* array_of(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

// The strides of an array [..., rows, columns] in the dimensions of the call, aligned at the end.
void read_operand(PyObject* object, const AttentionCall& call, AttentionOperand* operand) {
  PyArrayObject* const array = array_of(object);
  const int own = PyArray_NDIM(array) - 2;
  const int64_t size = PyArray_ITEMSIZE(array);
  operand->data = PyArray_DATA(array);
  for (int d = 0; d < call.dims; ++d) {
    const int at = d - (call.dims - own);
    operand->strides[d] = at < 0 || PyArray_DIM(array, at) == 1 ? 0 : PyArray_STRIDE(array, at) / size;
  }
  operand->row = PyArray_DIM(array, own) == 1 ? 0 : PyArray_STRIDE(array, own) / size;
}

// Arguments from `at` on: scale, is_causal, threshold (-1: no dropout), kept_scale, seed, offset.
bool read_options(PyObject* const* args, AttentionShape* s) {
  s->scale = PyFloat_AsDouble(args[0]);
  s->causal = args[1] == Py_True;
  const long long threshold = PyLong_AsLongLong(args[2]);
  s->dropout = threshold >= 0;
  s->threshold = static_cast<std::uint32_t>(threshold);
  s->kept_scale = PyFloat_AsDouble(args[3]);
  s->stream.seed = PyLong_AsUnsignedLongLongMask(args[4]);
  s->stream.offset = PyLong_AsUnsignedLongLongMask(args[5]);
  return !PyErr_Occurred();
}

// q, k, v, mask or None; y has all leading dimensions.
void read_common(PyObject* const* args, PyObject* y, AttentionCall* call) {
  PyArrayObject *const q = array_of(args[0]), *const k = array_of(args[1]), *const v = array_of(args[2]);
  call->dims = PyArray_NDIM(array_of(y)) - 2;
  for (int d = 0; d < call->dims; ++d) call->lengths[d] = PyArray_DIM(array_of(y), d);
  AttentionShape& s = call->shape;
  s.queries = PyArray_DIM(q, PyArray_NDIM(q) - 2), s.width = PyArray_DIM(q, PyArray_NDIM(q) - 1);
  s.keys = PyArray_DIM(k, PyArray_NDIM(k) - 2), s.value_width = PyArray_DIM(v, PyArray_NDIM(v) - 1);
  read_operand(args[0], *call, &call->q);
  read_operand(args[1], *call, &call->k);
  read_operand(args[2], *call, &call->v);
  read_operand(y, *call, &call->y);
  s.mask = AttentionMask::none;
  if (args[3] != Py_None) {
    PyArrayObject* const mask = array_of(args[3]);
    const int ndim = PyArray_NDIM(mask);
    s.mask = PyArray_TYPE(mask) == NPY_BOOL ? AttentionMask::bytes : AttentionMask::numbers;
    read_operand(args[3], *call, &call->mask);
    s.mask_row = call->mask.row;
    s.mask_column = PyArray_DIM(mask, ndim - 1) == 1 ? 0 : PyArray_STRIDE(mask, ndim - 1) / PyArray_ITEMSIZE(mask);
  }
}

PyObject* finish(const AttentionCall& call, bool is_double, void (*single)(const AttentionCall&),
                 void (*twice)(const AttentionCall&)) {
  int64_t work = call.shape.queries * call.shape.keys * (call.shape.width + call.shape.value_width);
  for (int d = 0; d < call.dims; ++d) work *= call.lengths[d];
  PyThreadState* const state = work > kLockedWork ? PyEval_SaveThread() : nullptr;
  bool failed = false;
  try {
    is_double ? twice(call) : single(call);
  } catch (const std::exception&) {
    failed = true;
  }
  if (state) PyEval_RestoreThread(state);
  if (failed) return PyErr_NoMemory();
  Py_RETURN_NONE;
}

bool check_arrays(const char* name, PyObject* const* args, Py_ssize_t given, Py_ssize_t expected, int arrays) {
  if (given != expected) {
    PyErr_Format(PyExc_TypeError, "%s: expected %zd arguments but got %zd", name, expected, given);
    return false;
  }
  for (int i = 0; i < arrays; ++i) {
    if (!PyArray_Check(args[i]) && !(i == 3 && args[i] == Py_None)) {
      PyErr_Format(PyExc_TypeError, "%s: argument %d is no array", name, i);
      return false;
    }
  }
  return true;
}

// attention(q, k, v, mask or None, y, log_mass, scale, is_causal, threshold, kept_scale, seed, offset)
PyObject* py_attention(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!check_arrays("attention", args, count, 12, 6)) return nullptr;
  AttentionCall call;
  if (!read_options(args + 6, &call.shape)) return nullptr;
  read_common(args, args[4], &call);
  call.log_mass = PyArray_DATA(array_of(args[5]));
  return finish(call, PyArray_TYPE(array_of(args[0])) == NPY_DOUBLE, attention_forward<float>,
                attention_forward<double>);
}

// attention_backward(q, k, v, mask or None, y, log_mass, g, gq, gk, gv, scale, is_causal, threshold, kept_scale, seed,
// offset)
PyObject* py_attention_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (!check_arrays("attention_backward", args, count, 16, 10)) return nullptr;
  AttentionCall call;
  if (!read_options(args + 10, &call.shape)) return nullptr;
  read_common(args, args[4], &call);
  call.log_mass = PyArray_DATA(array_of(args[5]));
  read_operand(args[6], call, &call.g);
  read_operand(args[7], call, &call.gq);
  read_operand(args[8], call, &call.gk);
  read_operand(args[9], call, &call.gv);
  return finish(call, PyArray_TYPE(array_of(args[0])) == NPY_DOUBLE, attention_backward<float>,
                attention_backward<double>);
}

PyCFunction as_method(PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef methods[] = {{"attention", as_method(py_attention), METH_FASTCALL, nullptr},
                         {"attention_backward", as_method(py_attention_backward), METH_FASTCALL, nullptr},
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_attention(PyObject* module) {
  return PyArray_ImportNumPyAPI() >= 0 && PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace pyframe
