// What the products of convolutions use of gemm() and matmul does not: packing by a callback, segments, every epilogue.
#include "bindings.h"
#include "fastcall.h"
#include "gemm.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
struct Lines {
  const T* data;
  int64_t line_stride, depth_stride;
};

// A packing callback that does what is documented, element by element.
template <class T>
void pack_lines(const void* context, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width, T* packed) {
  const Lines<T>& from = *static_cast<const Lines<T>*>(context);
  for (int64_t first = 0; first < lines; first += width, packed += depth * width) {
    for (int64_t kk = 0; kk < depth; ++kk) {
      for (int64_t l = 0; l < width; ++l) {
        const bool inside = first + l < lines;
        packed[kk * width + l] =
            inside ? from.data[(line + first + l) * from.line_stride + (k + kk) * from.depth_stride] : T{0};
      }
    }
  }
}

template <class T>
void negate(const void*, T* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = -values[i];
}

// (left[m, k], right[k, n], c, m, n, k, row_stride, segment, segment_stride, row_bias, column_bias, residual, alpha,
// beta, relu, callbacks for packing, negating map)
template <class T>
void probe_of(const Value* v) {
  Gemm<T> p;
  p.m = v[3].integer, p.n = v[4].integer, p.k = v[5].integer;
  const Lines<T> left{v[0].as<T>(), p.k, 1}, right{v[1].as<T>(), 1, p.n};
  if (v[15].integer) {
    p.left.pack = &pack_lines<T>, p.left.context = &left;
    p.right.pack = &pack_lines<T>, p.right.context = &right;
  } else {
    p.left.data = left.data, p.left.line_stride = p.k, p.left.depth_stride = 1;
    p.right.data = right.data, p.right.line_stride = 1, p.right.depth_stride = p.n;
  }
  p.c = v[2].as<T>(), p.row_stride = v[6].integer;
  p.segment = v[7].integer, p.segment_stride = v[8].integer;
  p.row_bias = v[9].as<T>(), p.column_bias = v[10].as<T>(), p.residual = v[11].as<T>();
  p.alpha = static_cast<T>(v[12].number), p.beta = static_cast<T>(v[13].number);
  if (v[14].integer) p.activation = Activation::relu;
  if (v[16].integer) p.map = &negate<T>;
  gemm(p);
}

void probe(const Value* v) { v[0].is_double() ? probe_of<double>(v) : probe_of<float>(v); }

PyMethodDef methods[] = {PYFRAME_METHOD("gemm_probe", probe, 17), {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_gemm_testing(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
