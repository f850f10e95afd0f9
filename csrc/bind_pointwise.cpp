// Python functions of the pointwise vector machine.
#include <Python.h>

#include <cstring>
#include <memory>
#include <string>

#include "bindings.h"
#include "pointwise.h"

// Only the accessors of array objects are used, which need no table of functions.
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NO_IMPORT_ARRAY
#include <numpy/ndarrayobject.h>

namespace pyframe {
namespace {

constexpr const char* kCapsule = "pyframe.pointwise_program";

PyObject* fail(const char* text) {
  PyErr_SetString(PyExc_ValueError, text);
  return nullptr;
}

void delete_program(PyObject* capsule) { delete static_cast<Program*>(PyCapsule_GetPointer(capsule, kCapsule)); }

// pointwise_program(code): decodes a C-contiguous one-dimensional int64 array.
PyObject* make_program(PyObject*, PyObject* object) {
  PyArrayObject* const array = reinterpret_cast<PyArrayObject*>(object);
  try {
    auto program = std::make_unique<Program>(
        decode_program(static_cast<const std::int64_t*>(PyArray_DATA(array)), PyArray_DIM(array, 0)));
    PyObject* const capsule = PyCapsule_New(program.get(), kCapsule, delete_program);
    if (capsule) program.release();
    return capsule;
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}

// pointwise_ops(): {name: (number, [whether it is defined per value type])}.
PyObject* op_numbers(PyObject*, PyObject*) {
  PyObject* const numbers = PyDict_New();
  for (int k = 0; numbers && k < kPointwiseOps; ++k) {
    PyObject* const types = PyList_New(kValueTypes);
    for (int t = 0; types && t < kValueTypes; ++t) {
      PyList_SET_ITEM(types, t, PyBool_FromLong(pointwise_kernels().ops[k][t] != nullptr));
    }
    PyObject* const entry = types ? Py_BuildValue("iN", k, types) : nullptr;
    const bool added = entry && PyDict_SetItemString(numbers, pointwise_op_name(k), entry) == 0;
    Py_XDECREF(entry);
    if (!added) {
      Py_DECREF(numbers);
      return nullptr;
    }
  }
  return numbers;
}

// Describes an array in the outputs' shape, broadcast from the right; false if it does not fit.
bool read_operand(PyObject* object, const Call& call, Operand& operand) {
  PyArrayObject* const array = reinterpret_cast<PyArrayObject*>(object);
  const int dims = PyArray_NDIM(array), missing = call.dims - dims;
  if (missing < 0) return false;
  operand.data = static_cast<char*>(PyArray_DATA(array));
  operand.aligned = (PyArray_FLAGS(array) & NPY_ARRAY_ALIGNED) != 0;
  for (int d = 0; d < missing; ++d) operand.strides[d] = 0;
  for (int d = 0; d < dims; ++d) {
    const std::int64_t size = PyArray_DIM(array, d);
    const bool spread = size == 1;
    if (!spread && size != call.shape[missing + d]) return false;
    operand.strides[missing + d] = spread ? 0 : PyArray_STRIDE(array, d);
  }
  return true;
}

bool read_scalar(PyObject* object, ValueType type, std::int64_t& bits) {
  if (type == ValueType::f64) {
    const double number = PyFloat_AsDouble(object);
    if (number == -1.0 && PyErr_Occurred()) return false;
    std::memcpy(&bits, &number, sizeof number);
    return true;
  }
  if (type == ValueType::b8) {
    const int truth = PyObject_IsTrue(object);
    bits = truth > 0;
    return truth >= 0;
  }
  const unsigned long long number = PyLong_AsUnsignedLongLongMask(object);  // wraps around
  if (number == static_cast<unsigned long long>(-1) && PyErr_Occurred()) return false;
  bits = static_cast<std::int64_t>(number);
  return true;
}

// run_pointwise(program, in_place, *outputs, *inputs, *scalars). Callers have checked kinds and dtypes.
PyObject* run(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count < 3) return fail("run_pointwise: too few arguments");
  const auto* program = static_cast<const Program*>(PyCapsule_GetPointer(args[0], kCapsule));
  if (!program) return nullptr;
  const Py_ssize_t outputs = static_cast<Py_ssize_t>(program->outputs.size());
  const Py_ssize_t arrays = outputs + static_cast<Py_ssize_t>(program->inputs.size());
  const Py_ssize_t scalars = static_cast<Py_ssize_t>(program->scalars.size());
  if (count != 2 + arrays + scalars) return fail("run_pointwise: wrong number of arguments");
  Call call;
  call.in_place = args[1] == Py_True;
  PyArrayObject* const first = reinterpret_cast<PyArrayObject*>(args[2]);
  call.dims = PyArray_NDIM(first);
  if (call.dims > kMostDims) return fail("run_pointwise: too many dimensions");
  bool empty = false;
  for (int d = 0; d < call.dims; ++d) {
    call.shape[d] = PyArray_DIM(first, d);
    empty |= call.shape[d] == 0;
  }
  if (empty) Py_RETURN_NONE;
  for (Py_ssize_t k = 0; k < arrays; ++k) {
    if (!read_operand(args[2 + k], call, call.operands[k])) return fail("run_pointwise: a shape does not broadcast");
  }
  for (Py_ssize_t k = 0; k < scalars; ++k) {
    if (!read_scalar(args[2 + arrays + k], program->scalars[static_cast<std::size_t>(k)], call.scalars[k])) {
      return nullptr;
    }
  }
  PyThreadState* const state = PyEval_SaveThread();
  bool no_memory = false;
  std::string error;
  try {
    run_program(*program, call);
  } catch (const std::bad_alloc&) {
    no_memory = true;
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  PyEval_RestoreThread(state);
  if (no_memory) return PyErr_NoMemory();
  if (!error.empty()) {
    PyErr_SetString(PyExc_RuntimeError, error.c_str());
    return nullptr;
  }
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"pointwise_program", make_program, METH_O, "Decode a program of the pointwise vector machine."},
    {"pointwise_ops", op_numbers, METH_NOARGS, "Return {name: (number, [whether it is defined per value type])}."},
    {"run_pointwise", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run)), METH_FASTCALL,
     "run_pointwise(program, in_place, *outputs, *inputs, *scalars): run a compiled expression."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_pointwise(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
