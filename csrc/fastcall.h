// Python functions without a dispatcher: positional arguments are read into plain values, the interpreter lock is
// released, and a flat C++ function runs on them.
//
// Kernels are called for every operation of a training step; reading ten arguments here costs about 60 ns.
#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <new>

namespace pyframe {

// One argument: an array's memory (nullptr for None), an integer or a number. Whoever calls promises the right kinds;
// the Python wrappers of the op records do, and nobody else calls these functions.
struct Value {
  void* data = nullptr;
  std::int64_t integer = 0;
  double number = 0;
  int dtype = -1;  // NumPy's type number of an array

  template <class T>
  T* as() const { return static_cast<T*>(data); }
  bool is_double() const { return dtype == 12; }
};

constexpr int kMostValues = 32;

// Reads arguments; returns false with a Python exception set.
bool read_values(PyObject* const* args, Py_ssize_t count, Value* values);

using FlatFunction = void (*)(const Value*);

// Runs `function` without the interpreter lock; translates C++ exceptions.
PyObject* call_flat(FlatFunction function, int expected, PyObject* const* args, Py_ssize_t count);

template <FlatFunction function, int count>
PyObject* fastcall(PyObject*, PyObject* const* args, Py_ssize_t given) {
  return call_flat(function, count, args, given);
}

}  // namespace pyframe

// An entry of a PyMethodDef table.
#define PYFRAME_METHOD(name, function, count)                                                               \
  { name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(pyframe::fastcall<function, count>)), \
    METH_FASTCALL, nullptr }
