// Python functions of launching GPU kernels. A launch with six arguments takes 0.3 µs here, 2 µs with Python's struct.
#include <new>

#include "bindings.h"
#include "launch.h"

namespace pyframe {
namespace {

constexpr char kPlan[] = "pyframe.launch_plan";

void drop(PyObject* capsule) { delete static_cast<LaunchPlan*>(PyCapsule_GetPointer(capsule, kPlan)); }

// (function's handle, address of cuLaunchKernel, signature); None for a signature with other codes.
PyObject* launch_plan(PyObject*, PyObject* args) {
  unsigned long long function = 0, call = 0;
  const char* codes = nullptr;
  if (!PyArg_ParseTuple(args, "KKs", &function, &call, &codes)) return nullptr;
  const std::string text = codes;
  for (const char code : text) {
    if (!is_argument(code)) Py_RETURN_NONE;
  }
  if (text.size() > kMostArguments) Py_RETURN_NONE;
  auto* const plan = new (std::nothrow)
      LaunchPlan{reinterpret_cast<void*>(function), reinterpret_cast<LaunchKernel>(call), text};
  return plan ? PyCapsule_New(plan, kPlan, drop) : PyErr_NoMemory();
}

// Up to three lengths of a grid or block.
bool read_lengths(PyObject* tuple, unsigned (&lengths)[3]) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) > 3) {
    PyErr_SetString(PyExc_TypeError, "a grid and a block are tuples of up to three lengths");
    return false;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
    const unsigned long value = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(tuple, i));
    if (value == static_cast<unsigned long>(-1) && PyErr_Occurred()) return false;
    if (value > 0xffffffffu) {
      PyErr_SetString(PyExc_OverflowError, "a length of a grid or block is above 2^32");
      return false;
    }
    lengths[i] = static_cast<unsigned>(value);
  }
  return true;
}

// The address of an array: array.data.ptr
bool read_address(PyObject* array, void* target) {
  static PyObject* const data = PyUnicode_InternFromString("data");
  static PyObject* const ptr = PyUnicode_InternFromString("ptr");
  PyObject* const memory = PyObject_GetAttr(array, data);
  if (!memory) return false;
  PyObject* const address = PyObject_GetAttr(memory, ptr);
  Py_DECREF(memory);
  if (!address) return false;
  const unsigned long long value = PyLong_AsUnsignedLongLong(address);
  Py_DECREF(address);
  if (value == static_cast<unsigned long long>(-1) && PyErr_Occurred()) return false;
  return store_integer('Q', static_cast<std::int64_t>(value), true, target);
}

bool read_argument(char code, PyObject* value, void* target) {
  if (is_number(code)) {
    const double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) return false;
    store_number(code, number, target);
    return true;
  }
  if (code == '?') {
    const int truth = PyObject_IsTrue(value);
    return truth >= 0 && store_integer(code, truth, false, target);
  }
  PyObject* const whole = PyNumber_Index(value);
  if (!whole) return false;
  int overflow = 0;
  long long integer = PyLong_AsLongLongAndOverflow(whole, &overflow);
  if (overflow > 0) {
    integer = static_cast<long long>(PyLong_AsUnsignedLongLong(whole));
    if (PyErr_Occurred()) overflow = -1;
  }
  Py_DECREF(whole);
  if (overflow < 0 || !store_integer(code, integer, overflow > 0, target)) {
    if (!PyErr_Occurred()) PyErr_Format(PyExc_OverflowError, "%R is out of range for the code %c", value, code);
    return false;
  }
  return true;
}

// (plan, grid, block, arguments, bytes of shared memory, stream): the shapes of the arrays, or the driver's status.
PyObject* launch(PyObject*, PyObject* const* args, Py_ssize_t count) {
  static PyObject* const shape = PyUnicode_InternFromString("shape");
  if (count != 6 || !PyTuple_Check(args[3])) {
    PyErr_SetString(PyExc_TypeError, "launch(plan, grid, block, arguments, shared, stream)");
    return nullptr;
  }
  const auto* const plan = static_cast<const LaunchPlan*>(PyCapsule_GetPointer(args[0], kPlan));
  if (!plan) return nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  if (!read_lengths(args[1], grid) || !read_lengths(args[2], block)) return nullptr;
  PyObject* const given = args[3];
  const auto expected = static_cast<Py_ssize_t>(plan->codes.size());
  if (PyTuple_GET_SIZE(given) != expected) {
    PyErr_Format(PyExc_TypeError, "expected %zd arguments but got %zd", expected, PyTuple_GET_SIZE(given));
    return nullptr;
  }
  const unsigned long shared = PyLong_AsUnsignedLong(args[4]);
  void* const stream = PyLong_AsVoidPtr(args[5]);
  if (PyErr_Occurred()) return nullptr;

  alignas(8) std::uint64_t room[kMostArguments];
  void* addresses[kMostArguments];
  PyObject* arrays[kMostArguments];
  Py_ssize_t several = 0;
  for (Py_ssize_t i = 0; i < expected; ++i) {
    PyObject* const value = PyTuple_GET_ITEM(given, i);
    const char code = plan->codes[static_cast<std::size_t>(i)];
    room[i] = 0;
    addresses[i] = room + i;
    if (code != 'P') {
      if (!read_argument(code, value, room + i)) return nullptr;
    } else if (value != Py_None) {
      if (!read_address(value, room + i)) return nullptr;
      arrays[several++] = value;
    }
  }
  int status = 0;
  // The driver waits where its queue is full.
  Py_BEGIN_ALLOW_THREADS
  status = plan->call(plan->function, grid[0], grid[1], grid[2], block[0], block[1], block[2],
                      static_cast<unsigned>(shared), stream, addresses, nullptr);
  Py_END_ALLOW_THREADS
  if (status) return PyLong_FromLong(status);
  PyObject* const shapes = PyTuple_New(several);
  for (Py_ssize_t i = 0; shapes && i < several; ++i) {
    PyObject* const found = PyObject_GetAttr(arrays[i], shape);
    if (!found) {
      Py_DECREF(shapes);
      return nullptr;
    }
    PyTuple_SET_ITEM(shapes, i, found);
  }
  return shapes;
}

PyMethodDef methods[] = {
    {"launch_plan", launch_plan, METH_VARARGS, nullptr},
    {"launch", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(launch)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_launch(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
