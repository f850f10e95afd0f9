// The Python function of the matrix product: reads shapes, strides and pointers of NumPy arrays.
#include "bindings.h"

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <utility>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#define NPY_TARGET_VERSION NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>

#include "gemm.h"
#include "gemm_table.h"
#include "numpy_handler.h"

namespace pyframe {
namespace {

using std::int64_t;

// Products with fewer operations keep the interpreter lock: giving it away and back takes as long.
constexpr int64_t kLockedWork = 1 << 16;

// An array as batch dimensions and a matrix; strides count elements.
struct Matrix {
  void* data;
  Element type;
  int batch_dims;
  const npy_intp* batch_shape;
  int64_t batch_strides[GemmBatch::kMaxDims];
  int64_t rows, columns, row_stride, column_stride;
};

bool element_type(PyArrayObject* array, Element* type) {
  switch (PyArray_TYPE(array)) {
    case NPY_FLOAT: *type = Element::float32; return true;
    case NPY_DOUBLE: *type = Element::float64; return true;
    case NPY_HALF: *type = Element::float16; return true;
    default:  // bfloat16 is a type of ml_dtypes, the only one with two bytes
      *type = Element::bfloat16;
      return PyArray_TYPE(array) >= NPY_USERDEF && PyArray_ITEMSIZE(array) == 2;
  }
}

bool is_half(Element type) { return type == Element::float16 || type == Element::bfloat16; }

// `vector_is_column`: what a 1-D array stands for. False where the kernels cannot read the array.
bool read_matrix(PyArrayObject* array, bool vector_is_column, Matrix* m) {
  const int ndim = PyArray_NDIM(array);
  const npy_intp *const shape = PyArray_DIMS(array), *const strides = PyArray_STRIDES(array);
  const npy_intp size = PyArray_ITEMSIZE(array);
  if (ndim < 1 || ndim > GemmBatch::kMaxDims || !element_type(array, &m->type) || !PyArray_ISBEHAVED_RO(array)) return false;
  for (int d = 0; d < ndim; ++d) {
    if (strides[d] % size) return false;
  }
  m->data = PyArray_DATA(array);
  m->batch_dims = ndim > 2 ? ndim - 2 : 0;
  m->batch_shape = shape;
  for (int d = 0; d < m->batch_dims; ++d) m->batch_strides[d] = shape[d] == 1 ? 0 : strides[d] / size;
  if (ndim == 1) {
    m->rows = vector_is_column ? shape[0] : 1;
    m->columns = vector_is_column ? 1 : shape[0];
    m->row_stride = vector_is_column ? strides[0] / size : 0;
    m->column_stride = vector_is_column ? 0 : strides[0] / size;
  } else {
    m->rows = shape[ndim - 2], m->columns = shape[ndim - 1];
    m->row_stride = strides[ndim - 2] / size, m->column_stride = strides[ndim - 1] / size;
  }
  return true;
}

struct Request {
  Matrix left, right;
  PyArrayObject* out;
  const void* bias;
  double alpha, beta;
};

// Stride of a factor along dimension d of `dims` batch dimensions.
int64_t batch_stride(const Matrix& m, int d, int dims) {
  const int own = d - (dims - m.batch_dims);
  return own < 0 ? 0 : m.batch_strides[own];
}

template <class T>
void multiply(const Request& r) {
  Gemm<T> p;
  GemmBatch batch;
  p.m = r.left.rows, p.n = r.right.columns, p.k = r.left.columns;
  p.left.data = r.left.data, p.left.type = r.left.type;
  p.left.line_stride = r.left.row_stride, p.left.depth_stride = r.left.column_stride;
  p.right.data = r.right.data, p.right.type = r.right.type;
  p.right.line_stride = r.right.column_stride, p.right.depth_stride = r.right.row_stride;
  p.row_stride = p.n;
  p.alpha = static_cast<T>(r.alpha), p.beta = static_cast<T>(r.beta);
  p.column_bias = static_cast<const T*>(r.bias);
  if (is_half(r.left.type)) {
    p.half = PyArray_DATA(r.out), p.half_type = r.left.type;
  } else {
    p.c = static_cast<T*>(PyArray_DATA(r.out));
  }
  const int dims = r.left.batch_dims > r.right.batch_dims ? r.left.batch_dims : r.right.batch_dims;
  const npy_intp* const shape = PyArray_DIMS(r.out);
  int d = dims - 1;
  // A batch of left matrices that lie below each other, times one right matrix, is one product.
  for (; d >= 0 && r.right.batch_dims == 0 && (shape[d] == 1 || batch_stride(r.left, d, dims) == p.m * r.left.row_stride);
       --d) {
    p.m *= shape[d];
  }
  batch.dims = d + 1;
  for (int64_t step = p.m * p.n; d >= 0; --d) {
    batch.shape[d] = shape[d];
    batch.left[d] = batch_stride(r.left, d, dims), batch.right[d] = batch_stride(r.right, d, dims);
    batch.c[d] = step;
    step *= shape[d];
  }
  batch.dims ? gemm(p, batch) : gemm(p);
}

// Whether the factors fit together and what is asked for can be done.
bool fits(const Request& r) {
  return r.left.type == r.right.type && r.left.columns == r.right.rows && !(is_half(r.left.type) && r.beta != 0);
}

// Runs a product, without the interpreter lock where it is worth it. False where there is no memory.
bool run(const Request& r) {
  const int64_t work = PyArray_SIZE(r.out) * r.left.columns;
  PyThreadState* const state = work > kLockedWork ? PyEval_SaveThread() : nullptr;
  bool done = true;
  try {
    r.left.type == Element::float64 ? multiply<double>(r) : multiply<float>(r);
  } catch (const std::exception&) {
    done = false;
  }
  if (state) PyEval_RestoreThread(state);
  return done;
}

// gemm(left, right, right_transposed, out, bias or None, alpha, beta) -> bool
// out = alpha * left @ right + beta * out + bias, with matmul's rules for 1-D arrays and broadcast batches. `out` is
// C-contiguous and has the right shape; right_transposed swaps the right array's last two dimensions. Returns False,
// having done nothing, where an array's memory is laid out in a way that cannot be read.
PyObject* py_gemm(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 7) return PyErr_Format(PyExc_TypeError, "gemm: expected 7 arguments but got %zd", count);
  for (int i : {0, 1, 3}) {
    if (!PyArray_Check(args[i])) return PyErr_Format(PyExc_TypeError, "gemm: argument %d is no array", i);
  }
  Request r;
  r.out = reinterpret_cast<PyArrayObject*>(args[3]);
  r.alpha = PyFloat_AsDouble(args[5]), r.beta = PyFloat_AsDouble(args[6]);
  if (PyErr_Occurred()) return nullptr;
  if (!read_matrix(reinterpret_cast<PyArrayObject*>(args[0]), false, &r.left) ||
      !read_matrix(reinterpret_cast<PyArrayObject*>(args[1]), true, &r.right)) {
    Py_RETURN_FALSE;
  }
  if (args[2] == Py_True) {
    std::swap(r.right.rows, r.right.columns);
    std::swap(r.right.row_stride, r.right.column_stride);
  }
  if (!fits(r)) Py_RETURN_FALSE;
  r.bias = args[4] == Py_None ? nullptr : PyArray_DATA(reinterpret_cast<PyArrayObject*>(args[4]));
  if (!run(r)) return PyErr_NoMemory();
  Py_RETURN_TRUE;
}

// Outputs below this take NumPy's own memory: its cache of small blocks is faster, and their pages are there.
constexpr int64_t kSmallBytes = 16 << 10;

PyArrayObject* new_output(int ndim, const npy_intp* shape, PyArrayObject* like) {
  PyArray_Descr* const dtype = PyArray_DESCR(like);
  int64_t bytes = PyArray_ITEMSIZE(like);
  for (int d = 0; d < ndim; ++d) bytes *= shape[d];
  Py_INCREF(dtype);
  PyObject* const array = bytes < kSmallBytes ? PyArray_Empty(ndim, shape, dtype, 0)
                                              : empty_array(ndim, shape, reinterpret_cast<PyObject*>(dtype));
  return reinterpret_cast<PyArrayObject*>(array);
}

PyArrayObject* plain_array(PyObject* object) {
  return PyArray_CheckExact(object) ? reinterpret_cast<PyArrayObject*>(object) : nullptr;
}

// The product as a new array; nullptr with an exception set, or Py_None where the shapes or dtypes are not for us.
PyObject* new_product(Request& r, PyArrayObject* left, PyArrayObject* right) {
  const int ndim = PyArray_NDIM(left), right_ndim = PyArray_NDIM(right);
  if (right_ndim > 2 && ndim != right_ndim) Py_RETURN_NONE;
  for (int d = 0; right_ndim > 2 && d < ndim - 2; ++d) {
    if (PyArray_DIM(left, d) != PyArray_DIM(right, d)) Py_RETURN_NONE;
  }
  npy_intp shape[GemmBatch::kMaxDims];
  int out_ndim = 0;
  for (; out_ndim < ndim - 1; ++out_ndim) shape[out_ndim] = PyArray_DIM(left, out_ndim);
  if (right_ndim > 1) shape[out_ndim++] = r.right.columns;
  if (r.left.type != r.right.type || r.left.columns != r.right.rows) Py_RETURN_NONE;
  r.out = new_output(out_ndim, shape, left);
  if (!r.out) return nullptr;
  r.alpha = 1, r.beta = 0;
  if (!run(r)) {
    Py_DECREF(r.out);
    return PyErr_NoMemory();
  }
  return reinterpret_cast<PyObject*>(r.out);
}

// matmul(left, right) -> array or None: the product of two plain arrays; None for whatever is left to others.
PyObject* py_matmul(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "matmul: expected 2 arguments but got %zd", count);
  PyArrayObject *const left = plain_array(args[0]), *const right = plain_array(args[1]);
  Request r;
  if (!left || !right || !read_matrix(left, false, &r.left) || !read_matrix(right, true, &r.right)) Py_RETURN_NONE;
  r.bias = nullptr;
  return new_product(r, left, right);
}

// linear(input, weight, bias or None) -> array or None: input · weightᵀ + bias, as matmul.
PyObject* py_linear(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 3) return PyErr_Format(PyExc_TypeError, "linear: expected 3 arguments but got %zd", count);
  PyArrayObject *const input = plain_array(args[0]), *const weight = plain_array(args[1]);
  Request r;
  if (!input || !weight || PyArray_NDIM(weight) != 2 || !read_matrix(input, false, &r.left) ||
      !read_matrix(weight, true, &r.right)) {
    Py_RETURN_NONE;
  }
  std::swap(r.right.rows, r.right.columns);
  std::swap(r.right.row_stride, r.right.column_stride);
  r.bias = nullptr;
  if (args[2] != Py_None) {
    PyArrayObject* const bias = plain_array(args[2]);
    if (!bias || PyArray_NDIM(bias) != 1 || PyArray_DIM(bias, 0) != r.right.columns || !PyArray_IS_C_CONTIGUOUS(bias) ||
        !PyArray_ISBEHAVED_RO(bias) || PyArray_TYPE(bias) != PyArray_TYPE(input) || is_half(r.left.type)) {
      Py_RETURN_NONE;
    }
    r.bias = PyArray_DATA(bias);
  }
  return new_product(r, input, weight);
}

template <class T>
void column_sums(PyArrayObject* array, int64_t rows, int64_t columns, void* out) {
  static const T one = 1;
  Gemm<T> p;
  p.m = 1, p.n = columns, p.k = rows;
  p.left.data = &one;  // a row of ones
  p.right.data = PyArray_DATA(array), p.right.line_stride = 1, p.right.depth_stride = columns;
  p.c = static_cast<T*>(out), p.row_stride = columns;
  gemm(p);
}

// column_sums(array) -> array or None: sums over all dimensions but the last, of float32 or float64; None as matmul.
PyObject* py_column_sums(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 1) return PyErr_Format(PyExc_TypeError, "column_sums: expected 1 argument but got %zd", count);
  PyArrayObject* const array = plain_array(args[0]);
  Element type;
  if (!array || PyArray_NDIM(array) < 1 || !PyArray_IS_C_CONTIGUOUS(array) || !PyArray_ISBEHAVED_RO(array) ||
      !element_type(array, &type) || is_half(type) || PyArray_SIZE(array) == 0) {
    Py_RETURN_NONE;
  }
  const npy_intp columns = PyArray_DIM(array, PyArray_NDIM(array) - 1), size = PyArray_SIZE(array);
  PyArrayObject* const out = new_output(1, &columns, array);
  if (!out) return nullptr;
  PyThreadState* const state = size > kLockedWork ? PyEval_SaveThread() : nullptr;
  bool failed = false;
  try {
    (type == Element::float64 ? column_sums<double> : column_sums<float>)(array, size / columns, columns, PyArray_DATA(out));
  } catch (const std::exception&) {
    failed = true;
  }
  if (state) PyEval_RestoreThread(state);
  if (failed) {
    Py_DECREF(out);
    return PyErr_NoMemory();
  }
  return reinterpret_cast<PyObject*>(out);
}

// fma_peak(double, rounds) -> float: runs fused multiply-adds only; returns how many operations, for benchmarks.
PyObject* py_fma_peak(PyObject*, PyObject* const* args, Py_ssize_t count) {
  if (count != 2) return PyErr_Format(PyExc_TypeError, "fma_peak: expected 2 arguments but got %zd", count);
  const long long rounds = PyLong_AsLongLong(args[1]);
  if (rounds == -1 && PyErr_Occurred()) return nullptr;
  double operations;
  Py_BEGIN_ALLOW_THREADS
  operations = args[0] == Py_True ? gemm_kernels().f64.peak(rounds) : gemm_kernels().f32.peak(rounds);
  Py_END_ALLOW_THREADS
  return PyFloat_FromDouble(operations);
}

PyMethodDef methods[] = {
    {"gemm", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_gemm)), METH_FASTCALL,
     "gemm(left, right, right_transposed, out, bias, alpha, beta, /)\n--\n\nout = alpha * left @ right + beta * out + "
     "bias; return whether the layouts could be read."},
    {"matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_matmul)), METH_FASTCALL,
     "matmul(left, right, /)\n--\n\nReturn the product, or None where the arrays are left to others."},
    {"linear", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_linear)), METH_FASTCALL,
     "linear(input, weight, bias, /)\n--\n\nReturn input @ weight.T + bias, or None as matmul."},
    {"column_sums", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_column_sums)), METH_FASTCALL,
     "column_sums(array, /)\n--\n\nReturn the sums over all dimensions but the last, or None as matmul."},
    {"fma_peak", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(py_fma_peak)), METH_FASTCALL,
     "fma_peak(double, rounds, /)\n--\n\nRun fused multiply-adds on one thread; return how many operations."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_gemm(PyObject* module) {
  return PyArray_ImportNumPyAPI() >= 0 && PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace pyframe
