#include "numpy_handler.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "allocator.h"

namespace pyframe {
namespace {

void* handler_malloc(void*, std::size_t bytes) { return allocate(bytes); }

void* handler_calloc(void*, std::size_t count, std::size_t item_bytes) {
  std::size_t bytes;
  if (__builtin_mul_overflow(count, item_bytes, &bytes)) return nullptr;
  void* const data = allocate(bytes);
  if (data) std::memset(data, 0, bytes);
  return data;
}

void* handler_realloc(void*, void* data, std::size_t bytes) { return reallocate(data, bytes); }

void handler_free(void*, void* data, std::size_t) { deallocate(data); }

PyDataMem_Handler handler = {
    "pyframe", 1, {nullptr, handler_malloc, handler_calloc, handler_realloc, handler_free}};

// The handler as NumPy wants it. Arrays keep it alive, and with it the way to free themselves.
PyObject* capsule = nullptr;

constexpr int kFastDims = 32;

// Arrays below this take NumPy's own memory: its cache of small blocks is faster, their pages are there, and setting
// the handler and putting it back costs 0.2 µs, more than everything else that an array of a few numbers needs.
constexpr npy_intp kSmallBytes = 16 << 10;

bool is_small(int ndim, const npy_intp* dims, PyArray_Descr* dtype) {
  npy_intp bytes = PyDataType_ELSIZE(dtype);
  for (int d = 0; d < ndim; ++d) {
    if (dims[d] < 0 || dims[d] > kSmallBytes) return false;
    bytes *= dims[d];  // at most 2^14 times what is less than 2^14: no overflow
    if (bytes >= kSmallBytes) return false;
  }
  return true;
}

// Reads a shape that is a plain int or a tuple of plain ints, the usual case, into `dims`. Returns the number of
// dimensions, or -1 for anything else.
int read_plain_shape(PyObject* shape, npy_intp* dims) {
  if (PyTuple_CheckExact(shape)) {
    const Py_ssize_t ndim = PyTuple_GET_SIZE(shape);
    if (ndim > kFastDims) return -1;
    for (Py_ssize_t i = 0; i < ndim; ++i) {
      PyObject* const item = PyTuple_GET_ITEM(shape, i);
      if (!PyLong_CheckExact(item)) return -1;
      dims[i] = PyLong_AsSsize_t(item);
      if (dims[i] == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return -1;
      }
    }
    return static_cast<int>(ndim);
  }
  if (PyLong_CheckExact(shape)) {
    dims[0] = PyLong_AsSsize_t(shape);
    if (dims[0] != -1 || !PyErr_Occurred()) return 1;
    PyErr_Clear();
  }
  return -1;
}

// NumPy's current handler lives in a context variable, so installing ours for good would reach only the current
// context, and arrays that are none of our business. It is set for this one call and then put back.
PyObject* new_array(int ndim, const npy_intp* dims, PyArray_Descr* dtype /* stolen */) {
  PyObject* const before = PyDataMem_SetHandler(capsule);
  if (!before) {
    Py_DECREF(dtype);
    return nullptr;
  }
  PyObject* array = PyArray_Empty(ndim, dims, dtype, 0);
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  if (!array) PyErr_Fetch(&type, &value, &traceback);
  PyObject* const ours = PyDataMem_SetHandler(before);
  Py_DECREF(before);
  Py_XDECREF(ours);
  if (!array) {
    PyErr_Restore(type, value, traceback);
  } else if (!ours) {
    Py_CLEAR(array);
  }
  return array;
}

// A plain C function instead of a pybind11 one: this runs for every output of every operation, and pybind11's dispatch
// would cost more than the work itself.
PyObject* empty(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) {
    PyErr_Format(PyExc_TypeError, "empty: expected (shape, dtype) but got %zd arguments", count);
    return nullptr;
  }
  PyArray_Descr* dtype = nullptr;
  if (PyArray_DescrCheck(args[1])) {
    dtype = reinterpret_cast<PyArray_Descr*>(Py_NewRef(args[1]));
  } else if (!PyArray_DescrConverter(args[1], &dtype)) {
    return nullptr;
  }
  npy_intp plain[kFastDims];
  const int ndim = read_plain_shape(args[0], plain);
  if (ndim >= 0 && is_small(ndim, plain, dtype)) return PyArray_Empty(ndim, plain, dtype, 0);
  if (ndim >= 0) return new_array(ndim, plain, dtype);
  PyArray_Dims shape = {nullptr, 0};
  if (!PyArray_IntpConverter(args[0], &shape)) {
    Py_DECREF(dtype);
    return nullptr;
  }
  PyObject* const array = new_array(shape.len, shape.ptr, dtype);
  PyDimMem_FREE(shape.ptr);
  return array;
}

// layout(*arrays) -> bytes: dtype, shape, strides and alignment of plain arrays (None: nothing), to look up what was
// decided for arrays of one layout. Tuples of the same cost 0.2 µs per array to make, hash and compare; this 0.03.
PyObject* layout(PyObject*, PyObject* const* args, Py_ssize_t count) {
  constexpr std::size_t kMostBytes = 1024;
  alignas(int64_t) unsigned char bytes[kMostBytes];
  std::size_t used = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    int64_t head = -1;
    if (args[i] == Py_None) {
      if (used + sizeof head > kMostBytes) return PyErr_Format(PyExc_TypeError, "layout: too many arguments");
      std::memcpy(bytes + used, &head, sizeof head);
      used += sizeof head;
      continue;
    }
    if (!PyArray_CheckExact(args[i])) return PyErr_Format(PyExc_TypeError, "layout: argument %zd is no array", i);
    auto* const array = reinterpret_cast<PyArrayObject*>(args[i]);
    const int ndim = PyArray_NDIM(array);
    const std::size_t block = sizeof(npy_intp) * static_cast<std::size_t>(ndim);
    if (used + sizeof head + 2 * block > kMostBytes) {
      return PyErr_Format(PyExc_TypeError, "layout: too many arguments");
    }
    // Type numbers are below 2^32 and dimensions at most 64.
    head = static_cast<int64_t>(PyArray_TYPE(array)) << 24 | ndim << 16 |
           static_cast<unsigned char>(PyArray_DESCR(array)->byteorder) << 8 | PyArray_ISALIGNED(array);
    std::memcpy(bytes + used, &head, sizeof head);
    used += sizeof head;
    if (!block) continue;
    std::memcpy(bytes + used, PyArray_DIMS(array), block);
    std::memcpy(bytes + used + block, PyArray_STRIDES(array), block);
    used += 2 * block;
  }
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes), static_cast<Py_ssize_t>(used));
}

// The same as `empty` for the length of a block of our own code: everything that NumPy allocates in it, temporaries too.
PyObject* enter_cache(PyObject*, PyObject*) { return PyDataMem_SetHandler(capsule); }

PyObject* leave_cache(PyObject*, PyObject* before) {
  PyObject* const ours = PyDataMem_SetHandler(before);
  if (!ours) return nullptr;
  Py_DECREF(ours);
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"enter_cache", enter_cache, METH_NOARGS,
     "enter_cache()\n--\n\nMake NumPy allocate from the caching allocator in this context; return what to give to "
     "leave_cache."},
    {"leave_cache", leave_cache, METH_O,
     "leave_cache(before, /)\n--\n\nPut back the memory handler that was current before enter_cache."},
    {"empty", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(empty)), METH_FASTCALL,
     "empty(shape, dtype, /)\n--\n\nReturn an uninitialised C-ordered array whose memory comes from the caching "
     "allocator."},
    {"layout", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(layout)), METH_FASTCALL,
     "layout(*arrays)\n--\n\nReturn dtypes, shapes, strides and alignment of arrays (or None) as bytes, a key."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

PyObject* empty_array(int ndim, const Py_ssize_t* shape, PyObject* dtype) {
  return new_array(ndim, shape, reinterpret_cast<PyArray_Descr*>(dtype));
}

bool add_empty(PyObject* module) {
  if (PyArray_ImportNumPyAPI() < 0) return false;
  capsule = PyCapsule_New(&handler, "mem_handler", nullptr);  // the name that NumPy requires
  return capsule && PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace pyframe
