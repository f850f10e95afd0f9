// Python functions of direct convolutions with few channels per group.
#include <cstdint>

#include "bindings.h"
#include "depthwise.h"
#include "fastcall.h"

namespace pyframe {
namespace {

// 22 integers: batch, groups, channels per group of input and output; then along three dimensions the input's and the
// output's size, kernel, stride, padding before and dilation.
DepthwiseShape shape_of(const Value* v) {
  DepthwiseShape s;
  s.batch = v[0].integer;
  s.groups = v[1].integer;
  s.ins = v[2].integer;
  s.outs = v[3].integer;
  std::int64_t* const parts[6] = {s.size, s.out, s.kernel, s.stride, s.before, s.dilation};
  for (int i = 0; i < 18; ++i) parts[i / 3][i % 3] = v[4 + i].integer;
  return s;
}

// (x, weight, bias or None, y, shape…)
void forward(const Value* v) {
  depthwise_forward(shape_of(v + 4), v[0].as<float>(), v[1].as<float>(), v[2].as<float>(), v[3].as<float>());
}

// (g, weight, gx, shape…)
void grad_input(const Value* v) {
  depthwise_grad_input(shape_of(v + 3), v[0].as<float>(), v[1].as<float>(), v[2].as<float>());
}

// (g, x, gw, shape…)
void grad_weight(const Value* v) {
  depthwise_grad_weight(shape_of(v + 3), v[0].as<float>(), v[1].as<float>(), v[2].as<float>());
}

PyMethodDef methods[] = {PYFRAME_METHOD("depthwise", forward, 26),
                         PYFRAME_METHOD("depthwise_grad_input", grad_input, 25),
                         PYFRAME_METHOD("depthwise_grad_weight", grad_weight, 25),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_depthwise(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
