// Pointwise kernels of functions of float32 that have a version of their own.
#include "isa/pointwise_loops.h"
#include "isa/vec_special.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {
struct Exp { template <class V> static PYFRAME_INLINE V run(V x) { return vexp(x); } };
struct Expm1 { template <class V> static PYFRAME_INLINE V run(V x) { return vexpm1(x); } };
struct Log { template <class V> static PYFRAME_INLINE V run(V x) { return vlog(x); } };
struct Log1p { template <class V> static PYFRAME_INLINE V run(V x) { return vlog1p(x); } };
struct Erf { template <class V> static PYFRAME_INLINE V run(V x) { return verf(x); } };
struct ErfInSum { template <class V> static PYFRAME_INLINE V run(V x) { return verf_in_sum(x); } };
struct Tanh { static PYFRAME_INLINE Vec<float> run(Vec<float> x) { return vtanh<float>(x); } };
struct Sigmoid { static PYFRAME_INLINE Vec<float> run(Vec<float> x) { return vsigmoid<float>(x); } };
struct Softplus { static PYFRAME_INLINE Vec<float> run(Vec<float> x) { return vsoftplus<float>(x); } };
struct LogAddExp {
  static PYFRAME_INLINE Vec<float> run(Vec<float> a, Vec<float> b) { return vlogaddexp<float>(a, b); }
};
}  // namespace

void add_single(PointwiseKernels& k) {
  using Op = PointwiseOp;
  const ValueType t = ValueType::f32;
  define(k, Op::exp, t, unary<float, Exp>);
  define(k, Op::expm1, t, unary<float, Expm1>);
  define(k, Op::log, t, unary<float, Log>);
  define(k, Op::log1p, t, unary<float, Log1p>);
  define(k, Op::erf, t, unary<float, Erf>);
  define(k, Op::tanh, t, unary<float, Tanh>);
  define(k, Op::sigmoid, t, unary<float, Sigmoid>);
  define(k, Op::softplus, t, unary<float, Softplus>);
  define(k, Op::exp_affine, t, affine<float, Exp>);
  define(k, Op::erf_affine, t, affine<float, ErfInSum>);
  define(k, Op::tanh_affine, t, affine<float, Tanh>);
  define(k, Op::sigmoid_affine, t, affine<float, Sigmoid>);
  define(k, Op::logaddexp, t, binary<float, LogAddExp>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
