// Python functions of reductions. An array is seen as [outer, n, inner] and folded along n; where that leaves too few
// results to share among threads, n is cut into blocks whose number depends on the shape alone, so that results do not
// depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
#include "pointwise.h"
#include "reduce.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const ReduceKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return reduce_kernels().f32;
  else return reduce_kernels().f64;
}

double combine(Fold fold, double a, double b) {
  if (fold == Fold::sum || fold == Fold::square_spread) return a + b;
  if (fold == Fold::prod) return a * b;
  if (a != a || b != b) return a != a ? a : b;
  return fold == Fold::max ? std::max(a, b) : std::min(a, b);
}

template <class T>
void combine_rows(Fold fold, T* total, const T* part, int64_t count) {
  if (fold == Fold::max || fold == Fold::min) {
    const T sign = fold == Fold::max ? T(1) : T(-1);
    for (int64_t i = 0; i < count; ++i) {
      const T a = total[i], b = part[i];
      total[i] = (a == a) & ((b != b) | (sign * b > sign * a)) ? b : a;
    }
  } else if (fold == Fold::prod) {
    for (int64_t i = 0; i < count; ++i) total[i] *= part[i];
  } else {
    for (int64_t i = 0; i < count; ++i) total[i] += part[i];
  }
}

// Columns of a strip, and the number of strips and blocks of rows that keep a machine's threads busy.
constexpr int64_t kStrip = 1024, kTasks = 16;

// Blocks that n is cut into when there are `results` results.
int64_t blocks_of(int64_t results, int64_t n, int64_t inner) {
  if (results * inner >= 64 * kGrain / 16 || results >= 256) return 1;
  return std::max<int64_t>(1, std::min<int64_t>(64, n * inner / kGrain));
}

// What is folded: the elements, their size, and the kernels for them.
template <class T>
struct Source {
  const char* x;
  int64_t bytes;
  const FoldKernels<T>& kernels;

  double row(int64_t start, int64_t n, Fold fold, T mean) const { return kernels.row(x + start * bytes, n, fold, mean); }
  void columns(int64_t start, int64_t rows, int64_t inner, int64_t begin, int64_t end, Fold fold, const T* mean,
               T* out) const {
    kernels.columns(x + start * bytes, rows, inner, begin, end, fold, mean, out);
  }
};

template <class T>
Source<T> source_of(const Value& x) {
  return {x.as<char>(), static_cast<int64_t>(sizeof(T)), table<T>().fold};
}
Source<float> half_source(const Value& x, Storage storage) {
  return {x.as<char>(), 2, storage == Storage::f16 ? reduce_kernels().f16 : reduce_kernels().bf16};
}

// out[outer, inner] = factor · fold of [outer, n, inner] along n; `mean` is per result, for square_spread.
template <class T>
void fold_into(const Source<T>& source, T* out, int64_t outer, int64_t n, int64_t inner, Fold fold, double factor,
               const T* mean = nullptr) {
  const auto mean_of = [=](int64_t result) { return mean ? mean[result] : T{0}; };
  if (inner == 1) {
    const int64_t blocks = blocks_of(outer, n, 1);
    if (blocks == 1) {
      parallel_for(0, outer, row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) out[o] = static_cast<T>(source.row(o * n, n, fold, mean_of(o)) * factor);
      });
      return;
    }
    std::vector<double> parts(outer * blocks);
    parallel_for(0, outer * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t o = i / blocks, b = i % blocks, first = b * n / blocks, last = (b + 1) * n / blocks;
        parts[i] = source.row(o * n + first, last - first, fold, mean_of(o));
      }
    });
    for (int64_t o = 0; o < outer; ++o) {
      double total = parts[o * blocks];
      for (int64_t b = 1; b < blocks; ++b) total = combine(fold, total, parts[o * blocks + b]);
      out[o] = static_cast<T>(total * factor);
    }
    return;
  }
  // Strips of columns, and blocks of rows where these are too few for the threads of a large machine.
  const int64_t width = std::min<int64_t>(inner, kStrip), strips = (inner + width - 1) / width, results = outer * inner;
  const int64_t most = std::max<int64_t>(1, kTasks / (outer * strips));
  const int64_t blocks = std::max<int64_t>(1, std::min({most, n * width / kGrain, n / 64}));
  std::vector<T> room(blocks > 1 ? blocks * results : 0);
  T* const parts = blocks > 1 ? room.data() : out;
  const int64_t grain = std::max<int64_t>(1, kGrain * blocks / (n * width));
  parallel_for(0, outer * blocks * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i % strips, b = i / strips % blocks, o = i / strips / blocks;
      const int64_t first = b * n / blocks, last = (b + 1) * n / blocks;
      source.columns((o * n + first) * inner, last - first, inner, s * width, std::min(inner, (s + 1) * width), fold,
                     mean ? mean + o * inner : nullptr, parts + (o * blocks + b) * inner);
    }
  });
  if (blocks == 1 && factor == 1) return;
  for (int64_t o = 0; o < outer; ++o) {
    T* const to = out + o * inner;
    const T* const from = parts + o * blocks * inner;
    if (to != from) std::copy(from, from + inner, to);
    for (int64_t b = 1; b < blocks; ++b) combine_rows(fold, to, from + b * inner, inner);
    if (factor == 1) continue;
    for (int64_t i = 0; i < inner; ++i) to[i] = static_cast<T>(static_cast<double>(to[i]) * factor);
  }
}

// Σ (x - mean)² / freedom, or its root
template <class T>
void variance_into(const Source<T>& source, T* out, int64_t outer, int64_t n, int64_t inner, double freedom,
                   bool root) {
  std::vector<T> mean(outer * inner);
  fold_into<T>(source, mean.data(), outer, n, inner, Fold::sum, 1.0 / static_cast<double>(n));
  fold_into<T>(source, out, outer, n, inner, Fold::square_spread, 1.0 / freedom, mean.data());
  if (!root) return;
  for (int64_t i = 0; i < outer * inner; ++i) out[i] = std::sqrt(out[i]);
}

// (x, out, outer, n, inner, fold, factor)
template <class T>
void reduce_of(const Value* v) {
  fold_into<T>(source_of<T>(v[0]), v[1].as<T>(), v[2].integer, v[3].integer, v[4].integer,
               static_cast<Fold>(v[5].integer), v[6].number);
}

// (x, out, outer, n, inner, freedom, root)
template <class T>
void variance_of(const Value* v) {
  variance_into<T>(source_of<T>(v[0]), v[1].as<T>(), v[2].integer, v[3].integer, v[4].integer, v[5].number,
                   v[6].integer != 0);
}

// The same of a half type: float32 until the end. Both have two arguments more: the storage of x, and that of out.
template <class Run>
void through_float(const Value* v, Run run) {
  const int64_t results = v[2].integer * v[4].integer;
  std::vector<float> out(static_cast<std::size_t>(results));
  run(half_source(v[0], static_cast<Storage>(v[7].integer)), out.data());
  pointwise_kernels().store[v[8].integer](v[1].as<char>(), reinterpret_cast<const char*>(out.data()), results);
}
void reduce_half(const Value* v) {
  through_float(v, [v](const Source<float>& x, float* out) {
    fold_into<float>(x, out, v[2].integer, v[3].integer, v[4].integer, static_cast<Fold>(v[5].integer), v[6].number);
  });
}
void variance_half(const Value* v) {
  through_float(v, [v](const Source<float>& x, float* out) {
    variance_into<float>(x, out, v[2].integer, v[3].integer, v[4].integer, v[5].number, v[6].integer != 0);
  });
}

// (x, out, outer, n, inner, largest), inner > 1
template <class T>
void arg_columns_of(const Value* v) {
  const T* const x = v[0].as<T>();
  int64_t* const out = v[1].as<int64_t>();
  const int64_t outer = v[2].integer, n = v[3].integer, inner = v[4].integer;
  const bool largest = v[5].integer != 0;
  const int64_t width = std::min<int64_t>(inner, 256), strips = (inner + width - 1) / width;
  parallel_for(0, outer * strips, row_grain(n * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t o = i / strips, s = i % strips;
      table<T>().arg_columns(x + o * n * inner, n, inner, s * width, std::min(inner, (s + 1) * width), largest,
                             out + o * inner);
    }
  });
}

// (x, out, rows, n, largest)
template <class T>
void arg_of(const Value* v) {
  const T* const x = v[0].as<T>();
  int64_t* const out = v[1].as<int64_t>();
  const int64_t rows = v[2].integer, n = v[3].integer;
  const bool largest = v[4].integer != 0;
  const ReduceKernels<T>& k = table<T>();
  const int64_t blocks = blocks_of(rows, n, 1);
  if (blocks == 1) {
    parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) out[r] = k.arg(x + r * n, n, largest);
    });
    return;
  }
  std::vector<int64_t> parts(rows * blocks);
  parallel_for(0, rows * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i % blocks, first = b * n / blocks;
      parts[i] = first + k.arg(x + i / blocks * n + first, (b + 1) * n / blocks - first, largest);
    }
  });
  for (int64_t r = 0; r < rows; ++r) {
    int64_t best = parts[r * blocks];
    for (int64_t b = 1; b < blocks && x[r * n + best] == x[r * n + best]; ++b) {
      const T mine = x[r * n + parts[r * blocks + b]], most = x[r * n + best];
      if ((largest ? mine > most : mine < most) || mine != mine) best = parts[r * blocks + b];
    }
    out[r] = best;
  }
}

// (x, y, outer, n, inner, reverse, product)
template <class T>
void scan_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const int64_t outer = v[2].integer, n = v[3].integer, inner = v[4].integer;
  const bool reverse = v[5].integer != 0, product = v[6].integer != 0;
  const int64_t width = std::min<int64_t>(inner, 256), strips = (inner + width - 1) / width;
  parallel_for(0, outer * strips, row_grain(n * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t o = i / strips, s = i % strips;
      table<T>().scan(x + o * n * inner, y + o * n * inner, n, inner, s * width, std::min(inner, (s + 1) * width), reverse,
                      product);
    }
  });
}

#define BOTH(name, of) \
  void name(const Value* v) { v[0].is_double() ? of<double>(v) : of<float>(v); }
BOTH(reduce, reduce_of)
BOTH(variance, variance_of)
BOTH(arg_extreme, arg_of)
BOTH(arg_columns, arg_columns_of)
BOTH(scan, scan_of)

#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("reduce", reduce, 7),
                         PYFRAME_METHOD("reduce_half", reduce_half, 9),
                         PYFRAME_METHOD("variance", variance, 7),
                         PYFRAME_METHOD("variance_half", variance_half, 9),
                         PYFRAME_METHOD("arg_extreme", arg_extreme, 5),
                         PYFRAME_METHOD("arg_columns", arg_columns, 6),
                         PYFRAME_METHOD("scan", scan, 7),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_reduce(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
