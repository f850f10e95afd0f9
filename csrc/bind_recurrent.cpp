// Python functions of the recurrent layers; the wrappers in pyframe/ops pass packed arrays of one dtype.
#include "bindings.h"
#include "fastcall.h"
#include "recurrent.h"

namespace pyframe {
namespace {

// (cell, reverse, steps, batch, width, hidden, ...)
RecurrentShape shape_of(const Value* v) {
  return {static_cast<RecurrentCell>(v[0].integer), v[1].integer != 0, v[2].integer, v[3].integer, v[4].integer,
          v[5].integer};
}

// (shape..., x, h0, c0, w_ih, w_hh, b_ih, b_hh, y, h, c, gates, saved)
template <class T>
void forward_of(const Value* v) {
  recurrent_forward(RecurrentForward<T>{
      shape_of(v), v[6].as<T>(), v[7].as<T>(), v[8].as<T>(), v[9].as<T>(), v[10].as<T>(), v[11].as<T>(),
      v[12].as<T>(), v[13].as<T>(), v[14].as<T>(), v[15].as<T>(), v[16].as<T>(), v[17].as<T>()});
}

// (shape..., g_y, g_h, g_c, x, h0, c0, w_ih, w_hh, y, gates, saved, gx, gh0, gc0, gw_ih, gw_hh, gb_ih, gb_hh)
template <class T>
void backward_of(const Value* v) {
  recurrent_backward(RecurrentBackward<T>{
      shape_of(v), v[6].as<T>(), v[7].as<T>(), v[8].as<T>(), v[9].as<T>(), v[10].as<T>(), v[11].as<T>(),
      v[12].as<T>(), v[13].as<T>(), v[14].as<T>(), v[15].as<T>(), v[16].as<T>(), v[17].as<T>(), v[18].as<T>(),
      v[19].as<T>(), v[20].as<T>(), v[21].as<T>(), v[22].as<T>(), v[23].as<T>()});
}

void forward(const Value* v) { v[6].is_double() ? forward_of<double>(v) : forward_of<float>(v); }
void backward(const Value* v) { v[6].is_double() ? backward_of<double>(v) : backward_of<float>(v); }

PyMethodDef methods[] = {PYFRAME_METHOD("recurrent", forward, 18), PYFRAME_METHOD("recurrent_backward", backward, 24),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_recurrent(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
