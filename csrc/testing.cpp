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

namespace py = pybind11;

namespace pyframe {
namespace {

using Chunks = std::vector<std::pair<std::int64_t, std::int64_t>>;

py::list to_list(Chunks chunks) {
  std::sort(chunks.begin(), chunks.end());
  py::list list;
  for (const auto& [begin, end] : chunks) list.append(py::make_tuple(begin, end));
  return list;
}

// The chunks that a loop is cut into, in order.
py::list chunks(std::int64_t begin, std::int64_t end, std::int64_t grain) {
  Chunks seen;
  {
    py::gil_scoped_release release;
    std::mutex mutex;
    parallel_for(begin, end, grain, [&](std::int64_t b, std::int64_t e) {
      std::lock_guard<std::mutex> lock(mutex);
      seen.emplace_back(b, e);
    });
  }
  return to_list(seen);
}

// Runs `repeats` loops over [0, n) and returns the smallest and the largest number of visits to an index.
py::tuple visits(std::int64_t n, std::int64_t grain, int repeats) {
  py::gil_scoped_release release;
  std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
  for (int i = 0; i < repeats; ++i) {
    parallel_for(0, n, grain, [&](std::int64_t b, std::int64_t e) {
      for (std::int64_t j = b; j < e; ++j) count[static_cast<std::size_t>(j)].fetch_add(1, std::memory_order_relaxed);
    });
  }
  int least = repeats, most = repeats;
  for (const auto& c : count) least = std::min(least, c.load()), most = std::max(most, c.load());
  py::gil_scoped_acquire acquire;
  return py::make_tuple(least, most);
}

// A loop whose chunk containing `at` throws.
void fail(std::int64_t n, std::int64_t grain, std::int64_t at) {
  parallel_for(0, n, grain, [=](std::int64_t b, std::int64_t e) {
    if (b <= at && at < e) throw std::out_of_range("planted failure at " + std::to_string(at));
  });
}

// A loop of loops: returns how often the inner bodies ran over an index, and whether each inner loop stayed on the
// thread that started it.
py::tuple nested(std::int64_t outer, std::int64_t inner) {
  std::atomic<std::int64_t> total{0};
  std::atomic<bool> stayed{true};
  {
    py::gil_scoped_release release;
    parallel_for(0, outer, 1, [&](std::int64_t b, std::int64_t e) {
      for (std::int64_t i = b; i < e; ++i) {
        const int here = thread_index();
        parallel_for(0, inner, 1, [&](std::int64_t ib, std::int64_t ie) {
          if (thread_index() != here || !in_parallel()) stayed = false;
          total += ie - ib;
        });
      }
    });
  }
  return py::make_tuple(total.load(), stayed.load());
}

// Tries to change the number of threads inside a loop, which must throw.
void resize_inside() {
  parallel_for(0, 1000, 1, [](std::int64_t, std::int64_t) { set_num_threads(1); });
}

}  // namespace

void add_testing(py::module_ m) {
  m.def("chunks", &chunks);
  m.def("visits", &visits);
  m.def("fail", &fail, py::call_guard<py::gil_scoped_release>());
  m.def("nested", &nested);
  m.def("resize_inside", &resize_inside, py::call_guard<py::gil_scoped_release>());
}

}  // namespace pyframe
