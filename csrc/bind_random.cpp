// Python functions of random numbers: threads share whole blocks of counters, so the values do not depend on them.
#include <algorithm>
#include <cstdint>

#include "bindings.h"
#include "fastcall.h"
#include "random.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const RandomKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return random_kernels().f32;
  else return random_kernels().f64;
}

Stream stream_of(const Value& seed, const Value& offset) {
  return {static_cast<std::uint64_t>(seed.integer), static_cast<std::uint64_t>(offset.integer)};
}

// Runs body(begin, end) over n values, cut at multiples of whole blocks.
template <class Body>
void over_blocks(int64_t n, Body body) {
  constexpr int64_t kStep = 4 * kPhiloxBlock;
  parallel_for(0, (n + kStep - 1) / kStep, 8, [&](int64_t begin, int64_t end) {
    body(begin * kStep, std::min(n, end * kStep));
  });
}

// (out, seed, offset, n)
void philox_words(const Value* v) {
  const Stream stream = stream_of(v[1], v[2]);
  over_blocks(v[3].integer, [&](int64_t begin, int64_t end) {
    random_kernels().words(stream, begin, end, v[0].as<std::uint32_t>());
  });
}

// (out, seed, offset, n, threshold)
void philox_mask(const Value* v) {
  const Stream stream = stream_of(v[1], v[2]);
  over_blocks(v[3].integer, [&](int64_t begin, int64_t end) {
    random_kernels().mask(stream, begin, end, static_cast<std::uint32_t>(v[4].integer), v[0].as<std::uint8_t>());
  });
}

template <class T>
void uniform_of(const Value* v) {
  over_blocks(v[3].integer, [&](int64_t begin, int64_t end) {
    table<T>().uniform(stream_of(v[1], v[2]), begin, end, v[0].as<T>());
  });
}

template <class T>
void normal_of(const Value* v) {
  over_blocks(v[3].integer, [&](int64_t begin, int64_t end) {
    table<T>().normal(stream_of(v[1], v[2]), begin, end, v[0].as<T>());
  });
}

// (x, y, seed, offset, n, threshold, scale)
template <class T>
void dropout_of(const Value* v) {
  const bool past_cache = exceeds_cache<T>(v[4].integer);
  over_blocks(v[4].integer, [&](int64_t begin, int64_t end) {
    table<T>().dropout(stream_of(v[2], v[3]), begin, end, static_cast<std::uint32_t>(v[5].integer),
                       static_cast<T>(v[6].number), v[0].as<T>(), v[1].as<T>(), past_cache);
  });
}

#define BOTH(name, of) \
  void name(const Value* v) { v[0].is_double() ? of<double>(v) : of<float>(v); }
BOTH(philox_uniform, uniform_of)
BOTH(philox_normal, normal_of)
BOTH(dropout, dropout_of)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("philox_words", philox_words, 4),
                         PYFRAME_METHOD("philox_mask", philox_mask, 5),
                         PYFRAME_METHOD("philox_uniform", philox_uniform, 4),
                         PYFRAME_METHOD("philox_normal", philox_normal, 4),
                         PYFRAME_METHOD("dropout", dropout, 7),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_random(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
