// The Python module `pyframe._native`: checks arguments, releases the interpreter lock and calls the flat functions.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "allocator.h"
#include "bindings.h"
#include "cpu_features.h"
#include "fork.h"
#include "memory.h"
#include "numpy_handler.h"
#include "testing.h"
#include "thread_pool.h"

namespace py = pybind11;

namespace pyframe {
namespace {

void check_contiguous(const char* function, const char* name, const py::array& array) {
  if (!(array.flags() & py::array::c_style)) {
    throw std::invalid_argument(std::string(function) + ": " + name + " must be C-contiguous");
  }
}

void copy(py::array destination, const py::array& source) {
  check_contiguous("copy", "destination", destination);
  check_contiguous("copy", "source", source);
  if (destination.nbytes() != source.nbytes()) {
    throw std::invalid_argument("copy: destination has " + std::to_string(destination.nbytes()) +
                                " bytes but source has " + std::to_string(source.nbytes()));
  }
  void* const out = destination.mutable_data();
  const void* const in = source.data();
  const std::size_t bytes = static_cast<std::size_t>(source.nbytes());
  py::gil_scoped_release release;
  copy_bytes(out, in, bytes);
}

void fill(py::array destination, const py::array& item) {
  check_contiguous("fill", "destination", destination);
  if (item.size() != 1 || item.itemsize() != destination.itemsize()) {
    throw std::invalid_argument("fill: item must be one element of the destination's dtype");
  }
  void* const out = destination.mutable_data();
  const void* const in = item.data();
  const std::size_t item_bytes = static_cast<std::size_t>(item.itemsize());
  const std::size_t count = static_cast<std::size_t>(destination.size());
  py::gil_scoped_release release;
  fill_items(out, in, item_bytes, count);
}

py::tuple stats() {
  const AllocatorStats s = allocator_stats();
  return py::make_tuple(s.in_use, s.cached, s.peak, s.hits, s.misses, s.limit);
}

py::list isa_names() {
  py::list names;
  for (Isa isa : supported_isas()) names.append(isa_name(isa));
  return names;
}

}  // namespace
}  // namespace pyframe

PYBIND11_MODULE(_native, m) {
  using namespace pyframe;
  using unlocked = py::call_guard<py::gil_scoped_release>;
  m.doc() = "pyframe's native CPU extension: flat functions on raw buffers.";

  active_isa();  // an impossible PYFRAME_ISA must fail here, where the loader can report it
  register_fork_handlers();
  if (!add_empty(m.ptr())) throw py::error_already_set();
  for (bool (*bind)(PyObject*) :
       {bind_attention, bind_batch_norm, bind_conv, bind_copy, bind_cross_entropy, bind_depthwise, bind_gather, bind_gemm,
        bind_gemm_testing, bind_launch, bind_losses, bind_norm, bind_optim, bind_pointwise, bind_pool, bind_random,
        bind_recurrent, bind_reduce, bind_resample, bind_softmax, bind_sort}) {
    if (!bind(m.ptr())) throw py::error_already_set();
  }

  m.def("num_threads", &num_threads, "Return how many threads a parallel loop may use.");
  m.def("set_num_threads", &set_num_threads, py::arg("count"), unlocked(),
        "Set how many threads a parallel loop may use.");
  m.def("isa", [] { return isa_name(active_isa()); }, "Return the instruction set level in use.");
  m.def("supported_isas", &isa_names, "Return the levels this machine has, the lowest first.");

  m.def("allocator_stats", &stats, "Return (in_use, cached, peak, hits, misses, limit).");
  m.def("reset_allocator_stats", &reset_allocator_stats, "Set the peak to what is in use, hits and misses to zero.");
  m.def("release_cache", &release_cache, unlocked(), "Give cached memory back to the system; return how many bytes.");
  m.def("set_cache_limit", &set_cache_limit, py::arg("bytes"), unlocked(), "Set the most bytes the cache keeps.");

  m.def("copy", &copy, py::arg("destination"), py::arg("source"), "Copy the bytes of one array into another.");
  m.def("fill", &fill, py::arg("destination"), py::arg("item"), "Fill an array with an array of one item.");

  if (!add_testing(m.def_submodule("testing", "Probes of the thread pool, for the tests.").ptr())) {
    throw py::error_already_set();
  }
}
