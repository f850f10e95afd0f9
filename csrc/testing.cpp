#include "testing.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "thread_pool.h"

namespace pyframe {
namespace {

using Chunks = std::vector<std::pair<std::int64_t, std::int64_t>>;

// Runs `work` without the interpreter lock and translates its exceptions; false with a Python exception set.
template <class Work>
bool unlocked(const Work& work) {
  PyThreadState* const state = PyEval_SaveThread();
  PyObject* kind = nullptr;
  std::string text;
  try {
    work();
  } catch (const std::out_of_range& error) {
    kind = PyExc_IndexError, text = error.what();
  } catch (const std::exception& error) {
    kind = PyExc_RuntimeError, text = error.what();
  }
  PyEval_RestoreThread(state);
  if (kind) PyErr_SetString(kind, text.c_str());
  return kind == nullptr;
}

// chunks(begin, end, grain): those that a loop is cut into, in order.
PyObject* chunks(PyObject*, PyObject* args) {
  long long begin, end, grain;
  if (!PyArg_ParseTuple(args, "LLL", &begin, &end, &grain)) return nullptr;
  Chunks seen;
  const bool done = unlocked([&] {
    std::mutex mutex;
    parallel_for(begin, end, grain, [&](std::int64_t b, std::int64_t e) {
      std::lock_guard<std::mutex> lock(mutex);
      seen.emplace_back(b, e);
    });
  });
  PyObject* const list = done ? PyList_New(0) : nullptr;
  if (!list) return nullptr;
  std::sort(seen.begin(), seen.end());
  for (const auto& [b, e] : seen) {
    PyObject* const pair = Py_BuildValue("LL", static_cast<long long>(b), static_cast<long long>(e));
    const bool added = pair && PyList_Append(list, pair) == 0;
    Py_XDECREF(pair);
    if (!added) {
      Py_DECREF(list);
      return nullptr;
    }
  }
  return list;
}

// visits(n, grain, repeats): runs the loop over [0, n) and returns the smallest and the largest number of visits.
PyObject* visits(PyObject*, PyObject* args) {
  long long n, grain;
  int repeats;
  if (!PyArg_ParseTuple(args, "LLi", &n, &grain, &repeats)) return nullptr;
  int least = repeats, most = repeats;
  const bool done = unlocked([&] {
    std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
    for (int i = 0; i < repeats; ++i) {
      parallel_for(0, n, grain, [&](std::int64_t b, std::int64_t e) {
        for (std::int64_t j = b; j < e; ++j) count[static_cast<std::size_t>(j)].fetch_add(1, std::memory_order_relaxed);
      });
    }
    for (const auto& c : count) least = std::min(least, c.load()), most = std::max(most, c.load());
  });
  return done ? Py_BuildValue("ii", least, most) : nullptr;
}

// fail(n, grain, at): a loop whose chunk containing `at` throws.
PyObject* fail(PyObject*, PyObject* args) {
  long long n, grain, at;
  if (!PyArg_ParseTuple(args, "LLL", &n, &grain, &at)) return nullptr;
  const bool done = unlocked([&] {
    parallel_for(0, n, grain, [=](std::int64_t b, std::int64_t e) {
      if (b <= at && at < e) throw std::out_of_range("planted failure at " + std::to_string(at));
    });
  });
  if (!done) return nullptr;
  Py_RETURN_NONE;
}

// nested(outer, inner): a loop of loops; returns how often the inner bodies ran over an index, and whether each inner
// loop stayed on the thread that started it.
PyObject* nested(PyObject*, PyObject* args) {
  long long outer, inner;
  if (!PyArg_ParseTuple(args, "LL", &outer, &inner)) return nullptr;
  std::atomic<std::int64_t> total{0};
  std::atomic<bool> stayed{true};
  const bool done = unlocked([&] {
    parallel_for(0, outer, 1, [&](std::int64_t b, std::int64_t e) {
      for (std::int64_t i = b; i < e; ++i) {
        const int here = thread_index();
        parallel_for(0, inner, 1, [&](std::int64_t ib, std::int64_t ie) {
          if (thread_index() != here || !in_parallel()) stayed = false;
          total += ie - ib;
        });
      }
    });
  });
  if (!done) return nullptr;
  return Py_BuildValue("LO", static_cast<long long>(total.load()), stayed.load() ? Py_True : Py_False);
}

// resize_inside(): tries to change the number of threads inside a loop, which must throw.
PyObject* resize_inside(PyObject*, PyObject*) {
  const bool done =
      unlocked([] { parallel_for(0, 1000, 1, [](std::int64_t, std::int64_t) { set_num_threads(1); }); });
  if (!done) return nullptr;
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {{"chunks", chunks, METH_VARARGS, nullptr},
                         {"visits", visits, METH_VARARGS, nullptr},
                         {"fail", fail, METH_VARARGS, nullptr},
                         {"nested", nested, METH_VARARGS, nullptr},
                         {"resize_inside", resize_inside, METH_NOARGS, nullptr},
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool add_testing(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
