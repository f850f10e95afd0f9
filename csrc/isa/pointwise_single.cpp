// Pointwise kernels of functions of float32 that have a version of their own.
#include "isa/pointwise_links.h"
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
  define_unary<float, Exp>(k, Op::exp);
  define_unary<float, Expm1>(k, Op::expm1);
  define_unary<float, Log>(k, Op::log);
  define_unary<float, Log1p>(k, Op::log1p);
  define_unary<float, Erf>(k, Op::erf);
  define_unary<float, Tanh>(k, Op::tanh);
  define_unary<float, Sigmoid>(k, Op::sigmoid);
  define_function<float, Softplus>(k, Op::softplus);
  define_affine<float, Exp>(k, Op::exp_affine);
  define_affine<float, ErfInSum>(k, Op::erf_affine);
  define_affine<float, Tanh>(k, Op::tanh_affine);
  define_affine<float, Sigmoid>(k, Op::sigmoid_affine);
  define(k, Op::logaddexp, t, binary<float, LogAddExp>);
  set_link(k, Op::logaddexp, t, 0, long_pair_link<LogAddExp>);
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
