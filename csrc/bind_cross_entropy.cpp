// Python functions of logsumexp, cross entropy and the negative log-likelihood, on arrays [N, C, S]. Losses are summed
// in blocks whose length depends on the shape alone, added up in order.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "bindings.h"
#include "cross_entropy.h"
#include "fastcall.h"
#include "scratch.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const CrossKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return cross_kernels().f32;
  else return cross_kernels().f64;
}

// Calls body(first, count, sample) for blocks of positions within one sample [n, inner], or of rows where inner is 1;
// the blocks are numbered by `block`.
struct Blocks {
  int64_t outer, n, inner, length, each;

  Blocks(int64_t outer_, int64_t n_, int64_t inner_) : outer(outer_), n(n_), inner(inner_) {
    length = inner == 1 ? row_grain(n) : std::min<int64_t>(inner, std::max<int64_t>(64, row_grain(n)));
    each = inner == 1 ? (outer + length - 1) / length : (inner + length - 1) / length;
  }
  int64_t count() const { return inner == 1 ? each : outer * each; }
  int64_t grain() const { return kGrain / std::max<int64_t>(length * n, 1) + 1; }

  template <class Body>
  void run(Body body) const {
    parallel_for(0, count(), grain(), [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t sample = inner == 1 ? 0 : b / each, first = (inner == 1 ? b : b % each) * length;
        body(b, sample, first, std::min(length, (inner == 1 ? outer : inner) - first));
      }
    });
  }
};

// (x, y, outer, n, inner): y = log Σ exp(x) along the middle dimension.
template <class T>
void logsumexp_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const Blocks blocks(v[2].integer, v[3].integer, v[4].integer);
  const int64_t n = blocks.n, inner = blocks.inner;
  Scratch<T> mass(blocks.outer * inner);
  blocks.run([&](int64_t, int64_t sample, int64_t first, int64_t count) {
    const int64_t at = sample * inner;
    if (inner == 1) table<T>().rows_mass(x + first * n, y + first, &mass[first], count, n, true);
    else table<T>().columns_mass(x + at * n, y + at, &mass[at], n, inner, first, first + count, true);
    for (int64_t i = at + first; i < at + first + count; ++i) y[i] = std::log(mass[i]) + y[i];
  });
}

// The target's part of the arguments: (classes or None, probabilities or None, weight or None, ignored, smoothing).
template <class T>
CrossTarget<T> target_of(const Value* v, int64_t n) {
  CrossTarget<T> t{};
  t.classes = v[0].as<int64_t>();
  t.probabilities = v[1].as<T>();
  t.weight = v[2].as<T>();
  t.ignored = v[3].integer;
  t.keep = static_cast<T>(1 - v[4].number);
  t.share = n ? static_cast<T>(v[4].number / static_cast<double>(n)) : T{0};
  double sum = static_cast<double>(n);
  if (t.weight) {
    sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(t.weight[i]);
  }
  t.weight_sum = static_cast<T>(sum);
  return t;
}

// The target of one sample, or of the rows from `first` on.
template <class T>
CrossTarget<T> moved(CrossTarget<T> t, int64_t positions, int64_t n) {
  if (t.classes) t.classes += positions;
  if (t.probabilities) t.probabilities += positions * n;
  return t;
}

// (x, target ×5, loss, top, mass, total, y or None, outer, n, inner, mean). `total` gets the sum of the weights, `y` the
// sum or the mean of the losses.
template <class T>
void cross_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T *const loss = v[6].as<T>(), *const top = v[7].as<T>(), *const mass = v[8].as<T>();
  const Blocks blocks(v[11].integer, v[12].integer, v[13].integer);
  const int64_t n = blocks.n, inner = blocks.inner;
  const CrossTarget<T> target = target_of<T>(v + 1, n);
  Scratch<double> sums(2 * blocks.count());
  std::fill_n(sums.data(), 2 * blocks.count(), 0.0);
  blocks.run([&](int64_t b, int64_t sample, int64_t first, int64_t count) {
    const int64_t at = inner == 1 ? first : sample * inner;
    const CrossTarget<T> own = moved(target, at, n);
    if (inner == 1) {
      table<T>().rows(own, x + at * n, loss + at, top + at, mass + at, count, n, &sums[2 * b]);
    } else {
      table<T>().columns(own, x + at * n, loss + at, top + at, mass + at, n, inner, first, first + count, &sums[2 * b]);
    }
  });
  double losses = 0, weights = 0;
  for (int64_t b = 0; b < blocks.count(); ++b) {
    losses += sums[2 * b];
    weights += sums[2 * b + 1];
  }
  *v[9].as<T>() = static_cast<T>(weights);
  if (v[10].data) *v[10].as<T>() = static_cast<T>(v[14].integer ? losses / weights : losses);
}

// (x, target ×5, g, g_step, total or None, top, mass, gx, outer, n, inner)
template <class T>
void cross_backward_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const g = v[6].as<T>(), *const top = v[9].as<T>(), *const mass = v[10].as<T>();
  const int64_t step = v[7].integer;
  const T scale = v[8].data ? T{1} / *v[8].as<T>() : T{1};
  T* const gx = v[11].as<T>();
  const Blocks blocks(v[12].integer, v[13].integer, v[14].integer);
  const int64_t n = blocks.n, inner = blocks.inner;
  const CrossTarget<T> target = target_of<T>(v + 1, n);
  const bool past_cache = exceeds_cache<T>(blocks.outer * n * inner);
  blocks.run([&](int64_t, int64_t sample, int64_t first, int64_t count) {
    const int64_t at = inner == 1 ? first : sample * inner;
    const CrossTarget<T> own = moved(target, at, n);
    if (inner == 1) {
      table<T>().rows_backward(own, x + at * n, g + at * step, step, scale, top + at, mass + at, gx + at * n, count, n,
                               past_cache);
    } else {
      table<T>().columns_backward(own, x + at * n, g + at * step, step, scale, top + at, mass + at, gx + at * n, n,
                                  inner, first, first + count);
    }
  });
}

// (x, classes, weight or None, ignored, loss or None, total, y or None, outer, n, inner, mean)
template <class T>
void nll_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const weight = v[2].as<T>();
  const int64_t* const classes = v[1].as<int64_t>();
  const int64_t ignored = v[3].integer, n = v[8].integer, inner = v[9].integer, count = v[7].integer * inner;
  T* const loss = v[4].as<T>();
  const int64_t length = 4096, blocks = (count + length - 1) / length;
  Scratch<double> sums(2 * blocks);
  parallel_for(0, blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      double losses = 0, weights = 0;
      // Dividing every position by `inner` would take longer than all the rest.
      const T* sample = x + b * length / inner * n * inner;
      int64_t position = b * length % inner;
      for (int64_t i = b * length; i < std::min(count, (b + 1) * length); ++i) {
        const int64_t k = classes[i];
        T value = 0;
        if (k != ignored) {
          const T w = weight ? weight[k] : T{1};
          value = sample[k * inner + position] * -w;
          losses += static_cast<double>(value);
          weights += static_cast<double>(w);
        }
        if (loss) loss[i] = value;
        if (++position == inner) position = 0, sample += n * inner;
      }
      sums[2 * b] = losses;
      sums[2 * b + 1] = weights;
    }
  });
  double losses = 0, weights = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    losses += sums[2 * b];
    weights += sums[2 * b + 1];
  }
  *v[5].as<T>() = static_cast<T>(weights);
  if (v[6].data) *v[6].as<T>() = static_cast<T>(v[10].integer ? losses / weights : losses);
}

// (g, g_step, classes, weight or None, ignored, total or None, gx, outer, n, inner)
template <class T>
void nll_backward_of(const Value* v) {
  const T *const g = v[0].as<T>(), *const weight = v[3].as<T>();
  const int64_t step = v[1].integer, ignored = v[4].integer, n = v[8].integer, inner = v[9].integer;
  const int64_t* const classes = v[2].as<int64_t>();
  const T* const total = v[5].as<T>();
  T* const gx = v[6].as<T>();
  // A sample's zeros are written right before its few other numbers, which then meet a warm cache.
  parallel_for(0, v[7].integer, row_grain(n * inner), [&](int64_t begin, int64_t end) {
    for (int64_t sample = begin; sample < end; ++sample) {
      T* const to = gx + sample * n * inner;
      std::memset(to, 0, static_cast<std::size_t>(n * inner) * sizeof(T));
      for (int64_t j = 0; j < inner; ++j) {
        const int64_t i = sample * inner + j, k = classes[i];
        if (k == ignored) continue;
        const T each = total ? g[i * step] / *total : g[i * step];
        to[k * inner + j] = -(weight ? weight[k] : T{1}) * each;
      }
    }
  });
}

#define BOTH(name, first) \
  void name(const Value* v) { v[first].is_double() ? name##_of<double>(v) : name##_of<float>(v); }
BOTH(logsumexp, 0)
BOTH(cross, 0)
BOTH(cross_backward, 0)
BOTH(nll, 0)
BOTH(nll_backward, 0)
#undef BOTH

// all_below(classes, count, limit) -> bool: whether 0 <= k < limit for every k of an int64 array in C order.
PyObject* all_below(PyObject*, PyObject* const* args, Py_ssize_t count) {
  Value v[3];
  if (count != 3 || !read_values(args, 3, v)) return count == 3 ? nullptr : PyErr_Format(PyExc_TypeError, "3 arguments");
  const int64_t* const classes = v[0].as<int64_t>();
  const std::uint64_t limit = static_cast<std::uint64_t>(v[2].integer);
  bool below = true;
  for (int64_t i = 0; i < v[1].integer; ++i) below &= static_cast<std::uint64_t>(classes[i]) < limit;
  return PyBool_FromLong(below);
}

PyMethodDef methods[] = {
    PYFRAME_METHOD("logsumexp", logsumexp, 5),
    PYFRAME_METHOD("class_loss", cross, 15),
    PYFRAME_METHOD("class_loss_backward", cross_backward, 15),
    PYFRAME_METHOD("nll_loss", nll, 11),
    PYFRAME_METHOD("nll_loss_backward", nll_backward, 10),
    {"all_below", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(all_below)), METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_cross_entropy(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
