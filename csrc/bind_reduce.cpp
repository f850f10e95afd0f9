// Python functions of reductions. An array is seen as [outer, n, inner] and folded along n; where that leaves too few
// results to share among threads, n is cut into blocks whose number depends on the shape alone, so that results do not
// depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
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
  if (a != a || b != b) return a != a ? a : b;
  return fold == Fold::max ? std::max(a, b) : std::min(a, b);
}

// Blocks that n is cut into when there are `results` results.
int64_t blocks_of(int64_t results, int64_t n, int64_t inner) {
  if (results * inner >= 64 * kGrain / 16 || results >= 256) return 1;
  return std::max<int64_t>(1, std::min<int64_t>(64, n * inner / kGrain));
}

// out[outer, inner] = factor · fold of x[outer, n, inner] along n.
template <class T>
void fold_into(const T* x, T* out, int64_t outer, int64_t n, int64_t inner, Fold fold, const T* mean, double factor) {
  const ReduceKernels<T>& k = table<T>();
  const auto center = [=](int64_t o) { return mean ? mean[o] : T{0}; };
  if (inner == 1) {
    const int64_t blocks = blocks_of(outer, n, 1);
    if (blocks == 1) {
      parallel_for(0, outer, row_grain(n), [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o) {
          out[o] = static_cast<T>(k.row(x + o * n, n, fold, center(o)) * factor);
        }
      });
      return;
    }
    std::vector<double> parts(outer * blocks);
    parallel_for(0, outer * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t o = i / blocks, b = i % blocks, first = b * n / blocks, last = (b + 1) * n / blocks;
        parts[i] = k.row(x + o * n + first, last - first, fold, center(o));
      }
    });
    for (int64_t o = 0; o < outer; ++o) {
      double total = parts[o * blocks];
      for (int64_t b = 1; b < blocks; ++b) total = combine(fold, total, parts[o * blocks + b]);
      out[o] = static_cast<T>(total * factor);
    }
    return;
  }
  const int64_t blocks = blocks_of(outer, n, inner), results = outer * inner;
  std::vector<T> room(blocks > 1 ? blocks * results : 0);
  T* const parts = blocks > 1 ? room.data() : out;
  // Strips of columns, so that few outer slices can still be shared.
  const int64_t width = std::min<int64_t>(inner, 1024), strips = (inner + width - 1) / width;
  const int64_t grain = std::max<int64_t>(1, kGrain * blocks / (n * width));
  parallel_for(0, outer * blocks * strips, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t s = i % strips, b = i / strips % blocks, o = i / strips / blocks;
      const int64_t first = b * n / blocks, last = (b + 1) * n / blocks;
      k.columns(x + (o * n + first) * inner, last - first, inner, s * width, std::min(inner, (s + 1) * width), fold,
                mean ? mean + o * inner : nullptr, parts + (o * blocks + b) * inner);
    }
  });
  if (blocks == 1 && factor == 1) return;
  parallel_for(0, results, row_grain(blocks), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* const from = parts + i / inner * blocks * inner + i % inner;
      double total = static_cast<double>(from[0]);
      for (int64_t b = 1; b < blocks; ++b) total = combine(fold, total, static_cast<double>(from[b * inner]));
      out[i] = static_cast<T>(total * factor);
    }
  });
}

// (x, out, outer, n, inner, fold, factor)
template <class T>
void reduce_of(const Value* v) {
  fold_into<T>(v[0].as<T>(), v[1].as<T>(), v[2].integer, v[3].integer, v[4].integer, static_cast<Fold>(v[5].integer),
               nullptr, v[6].number);
}

// (x, out, outer, n, inner, freedom, root): Σ (x - mean)² / freedom, or its root
template <class T>
void variance_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const out = v[1].as<T>();
  const int64_t outer = v[2].integer, n = v[3].integer, inner = v[4].integer;
  std::vector<T> mean(outer * inner);
  fold_into<T>(x, mean.data(), outer, n, inner, Fold::sum, nullptr, 1.0 / static_cast<double>(n));
  fold_into<T>(x, out, outer, n, inner, Fold::square_spread, mean.data(), 1.0 / v[5].number);
  if (v[6].integer) {
    for (int64_t i = 0; i < outer * inner; ++i) out[i] = std::sqrt(out[i]);
  }
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

// (x, y, outer, n, inner, reverse)
template <class T>
void cumsum_of(const Value* v) {
  const T* const x = v[0].as<T>();
  T* const y = v[1].as<T>();
  const int64_t outer = v[2].integer, n = v[3].integer, inner = v[4].integer;
  const bool reverse = v[5].integer != 0;
  const int64_t width = std::min<int64_t>(inner, 256), strips = (inner + width - 1) / width;
  parallel_for(0, outer * strips, row_grain(n * width), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t o = i / strips, s = i % strips;
      table<T>().cumsum(x + o * n * inner, y + o * n * inner, n, inner, s * width, std::min(inner, (s + 1) * width),
                        reverse);
    }
  });
}

#define BOTH(name, of) \
  void name(const Value* v) { v[0].is_double() ? of<double>(v) : of<float>(v); }
BOTH(reduce, reduce_of)
BOTH(variance, variance_of)
BOTH(arg_extreme, arg_of)
BOTH(cumsum, cumsum_of)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("reduce", reduce, 7), PYFRAME_METHOD("variance", variance, 7),
                         PYFRAME_METHOD("arg_extreme", arg_extreme, 5), PYFRAME_METHOD("cumsum", cumsum, 6),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_reduce(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
