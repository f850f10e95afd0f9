// Python functions over lists of arrays: optimizer steps and gradient norms, one call for all parameters.
#include <Python.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "bindings.h"
#include "optim.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int kStates = 3, kNumbers = 8;

// Elements that are updated together: their numbers stay in the first cache level while one pass reads and writes them.
constexpr int64_t kChunk = 8192;

struct Run {
  char *p = nullptr, *g = nullptr;
  char* states[kStates] = {};
  int64_t count = 0;
  bool is_double = false;
  const double* numbers = nullptr;
};

bool import_numpy() {
  static const bool imported = PyArray_ImportNumPyAPI() >= 0;
  return imported;
}

// Item i of a list of arrays as an array; nullptr with an exception set if it is none.
PyArrayObject* item(PyObject* list, Py_ssize_t i) {
  if (!PyList_Check(list) || i >= PyList_GET_SIZE(list) || !PyArray_Check(PyList_GET_ITEM(list, i))) {
    PyErr_SetString(PyExc_TypeError, "expected lists of arrays of one length");
    return nullptr;
  }
  return reinterpret_cast<PyArrayObject*>(PyList_GET_ITEM(list, i));
}

// Cuts an array's elements into runs of kChunk.
void cut(const Run& whole, int64_t size, std::vector<Run>& runs) {
  const int64_t width = whole.is_double ? 8 : 4;
  for (int64_t at = 0; at < size; at += kChunk) {
    Run run = whole;
    run.p += at * width;
    if (run.g) run.g += at * width;
    for (char*& state : run.states) {
      if (state) state += at * width;
    }
    run.count = std::min(kChunk, size - at);
    runs.push_back(run);
  }
}

template <class T>
void step_run(OptimStep<T> step, const Run& run, int flags) {
  T* states[kStates];
  for (int s = 0; s < kStates; ++s) states[s] = reinterpret_cast<T*>(run.states[s]);
  step(reinterpret_cast<T*>(run.p), reinterpret_cast<const T*>(run.g), states, run.count, run.numbers, flags);
}

// optimizer_step(kind, flags, params, grads, state lists or None ×3, list of tuples of numbers)
PyObject* optimizer_step(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 8 || !import_numpy()) return PyErr_Format(PyExc_TypeError, "optimizer_step: expected 8 arguments");
  const long kind = PyLong_AsLong(args[0]), flags = PyLong_AsLong(args[1]);
  if (PyErr_Occurred()) return nullptr;
  if (!PyList_Check(args[2]) || !PyList_Check(args[7]) || PyList_GET_SIZE(args[7]) < PyList_GET_SIZE(args[2])) {
    return PyErr_Format(PyExc_TypeError, "optimizer_step: expected lists");
  }
  const Py_ssize_t params = PyList_GET_SIZE(args[2]);
  try {
    std::vector<double> numbers(static_cast<std::size_t>(params) * kNumbers);
    std::vector<Run> runs;
    for (Py_ssize_t i = 0; i < params; ++i) {
      PyArrayObject *const p = item(args[2], i), *const g = p ? item(args[3], i) : nullptr;
      if (!g) return nullptr;
      Run whole;
      whole.p = static_cast<char*>(PyArray_DATA(p));
      whole.g = static_cast<char*>(PyArray_DATA(g));
      whole.is_double = PyArray_TYPE(p) == NPY_DOUBLE;
      for (int s = 0; s < kStates; ++s) {
        if (args[4 + s] == Py_None) continue;
        PyArrayObject* const state = item(args[4 + s], i);
        if (!state) return nullptr;
        whole.states[s] = static_cast<char*>(PyArray_DATA(state));
      }
      PyObject* const tuple = PyList_GET_ITEM(args[7], i);
      const Py_ssize_t length = PyTuple_Check(tuple) ? std::min<Py_ssize_t>(PyTuple_GET_SIZE(tuple), kNumbers) : 0;
      for (Py_ssize_t k = 0; k < length; ++k) numbers[i * kNumbers + k] = PyFloat_AsDouble(PyTuple_GET_ITEM(tuple, k));
      if (PyErr_Occurred()) return nullptr;
      whole.numbers = &numbers[i * kNumbers];
      cut(whole, PyArray_SIZE(p), runs);
    }
    const OptimTable& table = optim_kernels();
    const OptimStep<float> narrow = kind == 0 ? table.f32.sgd : kind == 1 ? table.f32.adam : table.f32.rmsprop;
    const OptimStep<double> wide = kind == 0 ? table.f64.sgd : kind == 1 ? table.f64.adam : table.f64.rmsprop;
    Py_BEGIN_ALLOW_THREADS
    parallel_for(0, static_cast<int64_t>(runs.size()), 2, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        if (runs[r].is_double) step_run<double>(wide, runs[r], static_cast<int>(flags));
        else step_run<float>(narrow, runs[r], static_cast<int>(flags));
      }
    });
    Py_END_ALLOW_THREADS
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  Py_RETURN_NONE;
}

bool list_runs(PyObject* list, std::vector<Run>& runs) {
  if (!import_numpy() || !PyList_Check(list)) {
    PyErr_SetString(PyExc_TypeError, "expected a list of arrays");
    return false;
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    PyArrayObject* const array = item(list, i);
    if (!array) return false;
    Run whole;
    whole.p = static_cast<char*>(PyArray_DATA(array));
    whole.is_double = PyArray_TYPE(array) == NPY_DOUBLE;
    cut(whole, PyArray_SIZE(array), runs);
  }
  return true;
}

// square_sum(arrays) -> float: Σ x² over all, in blocks added up in order.
PyObject* square_sum(PyObject*, PyObject* list) {
  double total = 0;
  try {
    std::vector<Run> runs;
    if (!list_runs(list, runs)) return nullptr;
    std::vector<double> sums(runs.size());
    const OptimTable& table = optim_kernels();
    Py_BEGIN_ALLOW_THREADS
    parallel_for(0, static_cast<int64_t>(runs.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs[r];
        sums[r] = run.is_double ? table.f64.square_sum(reinterpret_cast<double*>(run.p), run.count)
                                : table.f32.square_sum(reinterpret_cast<float*>(run.p), run.count);
      }
    });
    Py_END_ALLOW_THREADS
    for (double s : sums) total += s;
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  return PyFloat_FromDouble(total);
}

// scale_all(arrays, factor): multiplies every array in place.
PyObject* scale_all(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "scale_all: expected (arrays, factor)");
  const double factor = PyFloat_AsDouble(args[1]);
  if (PyErr_Occurred()) return nullptr;
  try {
    std::vector<Run> runs;
    if (!list_runs(args[0], runs)) return nullptr;
    const OptimTable& table = optim_kernels();
    Py_BEGIN_ALLOW_THREADS
    parallel_for(0, static_cast<int64_t>(runs.size()), 4, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const Run& run = runs[r];
        if (run.is_double) table.f64.scale(reinterpret_cast<double*>(run.p), run.count, factor);
        else table.f32.scale(reinterpret_cast<float*>(run.p), run.count, static_cast<float>(factor));
      }
    });
    Py_END_ALLOW_THREADS
  } catch (const std::bad_alloc&) {
    return PyErr_NoMemory();
  }
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"optimizer_step", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(optimizer_step)), METH_FASTCALL,
     nullptr},
    {"square_sum", square_sum, METH_O, nullptr},
    {"scale_all", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(scale_all)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_optim(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
