// Python functions of layer, RMS and group norm. Sums over blocks whose length depends on the shape alone are added up
// in order, so that results do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "bindings.h"
#include "fastcall.h"
#include "norm.h"
#include "scratch.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
void rows_forward(const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, int64_t rows, int64_t n, double eps) {
  const bool past_cache = exceeds_cache<T>(rows * n);
  parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
    norms<T>().layer(x + begin * n, w, b, y + begin * n, mean ? mean + begin : nullptr, rstd + begin, end - begin, n,
                     eps, past_cache);
  });
}

// The gradients of a matrix [rows, groups, n] whose n elements of a group have common statistics and weights w
// [groups, n] (or null); Σ g · z and Σ g over the rows go to gw and gb, [groups, n].
template <class T>
void rows_backward(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, T* gw, T* gb, int64_t rows,
                   int64_t groups, int64_t n, int64_t least_rows) {
  const int64_t width = groups * n;
  const int64_t blocks = std::max<int64_t>(1, std::min<int64_t>({16 / groups, rows / least_rows, rows * width / kGrain}));
  const bool past_cache = exceeds_cache<T>(rows * width);
  Scratch<double> sums(blocks * 2 * width);
  parallel_for(0, blocks * groups, kGrain / std::max<int64_t>(rows / blocks * n, 1) + 1, [&](int64_t first, int64_t last) {
    Scratch<T> scratch(2 * n + 64);
    for (int64_t task = first; task < last; ++task) {
      const int64_t block = task / groups, q = task % groups;
      const int64_t r = block * rows / blocks, count = (block + 1) * rows / blocks - r, at = r * width + q * n;
      double* const total = &sums[block * 2 * width + q * n];
      std::fill_n(total, n, 0.0);
      std::fill_n(total + width, n, 0.0);
      norms<T>().layer_backward(g + at, x + at, mean ? mean + r * groups + q : nullptr, rstd + r * groups + q,
                                w ? w + q * n : nullptr, gx + at, total, total + width, scratch.data(), count, n, width,
                                groups, past_cache);
    }
  });
  double* const all = sums.data();
  for (int64_t block = 1; block < blocks; ++block) norms<double>().add_to_double(all + block * 2 * width, all, 2 * width);
  for (int64_t j = 0; j < width; ++j) gw[j] = static_cast<T>(all[j]);
  for (int64_t j = 0; gb && j < width; ++j) gb[j] = static_cast<T>(all[width + j]);
}

// (x, w, b, y, mean, rstd, rows, n, eps)
template <class T>
void layer_norm_of(const Value* v) {
  rows_forward(v[0].as<T>(), v[1].as<T>(), v[2].as<T>(), v[3].as<T>(), v[4].as<T>(), v[5].as<T>(), v[6].integer,
               v[7].integer, v[8].number);
}

// (g, x, mean, rstd, w, gx, gw, gb, rows, n)
template <class T>
void layer_norm_backward_of(const Value* v) {
  rows_backward(v[0].as<T>(), v[1].as<T>(), v[2].as<T>(), v[3].as<T>(), v[4].as<T>(), v[5].as<T>(), v[6].as<T>(),
                v[7].as<T>(), v[8].integer, 1, v[9].integer, 32);
}

// (x, w, y, rstd, rows, n, eps)
template <class T>
void rms_norm_of(const Value* v) {
  rows_forward<T>(v[0].as<T>(), v[1].as<T>(), nullptr, v[2].as<T>(), nullptr, v[3].as<T>(), v[4].integer, v[5].integer,
                  v[6].number);
}

// (g, x, rstd, w, gx, gw, rows, n)
template <class T>
void rms_norm_backward_of(const Value* v) {
  rows_backward<T>(v[0].as<T>(), v[1].as<T>(), nullptr, v[2].as<T>(), v[3].as<T>(), v[4].as<T>(), v[5].as<T>(), nullptr,
                   v[6].integer, 1, v[7].integer, 32);
}

// ---- group norm

// Channels with few positions are rows with a weight for every element; the loop over single channels would be short.
bool as_rows(int64_t batch, int64_t positions) { return positions == 1 || (positions <= 32 && batch >= 4); }

// values[c] once for each position of the channel; a null pointer stays.
template <class T>
const T* repeated(const T* values, int64_t channels, int64_t positions, T* to) {
  if (!values || positions == 1) return values;
  for (int64_t c = 0; c < channels; ++c) std::fill_n(to + c * positions, positions, values[c]);
  return to;
}

// (x, w, b, y, mean, rstd, batch, channels, positions, groups, eps)
template <class T>
void group_norm_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const w = v[1].as<T>(), *const b = v[2].as<T>();
  T *const y = v[3].as<T>(), *const mean = v[4].as<T>(), *const rstd = v[5].as<T>();
  const int64_t batch = v[6].integer, channels = v[7].integer, s = v[8].integer, groups = v[9].integer;
  const double eps = v[10].number;
  const int64_t each = channels / groups, n = each * s;
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = norms<T>();
  if (as_rows(batch, s)) {
    Scratch<T> room(2 * channels * s);
    const T* const ws = repeated(w, channels, s, room.data());
    const T* const bs = repeated(b, channels, s, room.data() + channels * s);
    parallel_for(0, batch * groups, row_grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t q = row % groups;
        k.layer(x + row * n, ws ? ws + q * n : nullptr, bs ? bs + q * n : nullptr, y + row * n, mean + row, rstd + row,
                1, n, eps, past_cache);
      }
    });
    return;
  }
  parallel_for(0, batch * groups, row_grain(n), [&](int64_t begin, int64_t end) {
    Scratch<T> factors(3 * each);
    T *const means = factors.data(), *const a = means + each, *const shift = a + each;
    for (int64_t row = begin; row < end; ++row) {
      double sum = 0, spread = 0;
      k.sums(x + row * n, 1, n, &sum);
      mean[row] = static_cast<T>(sum / static_cast<double>(n));
      k.spreads(x + row * n, 1, n, mean + row, &spread);
      rstd[row] = static_cast<T>(1 / std::sqrt(spread / static_cast<double>(n) + eps));
      for (int64_t i = 0; i < each; ++i) {
        const int64_t c = row % groups * each + i;
        means[i] = mean[row];
        a[i] = w ? rstd[row] * w[c] : rstd[row];
        shift[i] = b ? b[c] : T{0};
      }
      k.scale(x + row * n, y + row * n, each, s, means, a, shift, past_cache);
    }
  });
}

// (g, x, mean, rstd, w, gx, gw, gb, batch, channels, positions, groups)
template <class T>
void group_norm_backward_of(const Value* v) {
  const T *const g = v[0].as<T>(), *const x = v[1].as<T>(), *const mean = v[2].as<T>(), *const rstd = v[3].as<T>(),
          *const w = v[4].as<T>();
  T *const gx = v[5].as<T>(), *const gw = v[6].as<T>(), *const gb = v[7].as<T>();
  const int64_t batch = v[8].integer, channels = v[9].integer, s = v[10].integer, groups = v[11].integer;
  const int64_t each = channels / groups, n = each * s, width = channels * s;
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = norms<T>();
  if (as_rows(batch, s)) {
    Scratch<T> room(3 * width);
    T* const wide = room.data() + width;
    const T* const ws = repeated(w, channels, s, room.data());
    rows_backward(g, x, mean, rstd, ws, gx, wide, wide + width, batch, groups, n, 8);
    for (int64_t c = 0; c < channels; ++c) {
      double w_sum = 0, b_sum = 0;
      for (int64_t i = 0; i < s; ++i) {
        w_sum += wide[c * s + i];
        b_sum += wide[width + c * s + i];
      }
      gw[c] = static_cast<T>(w_sum);
      gb[c] = static_cast<T>(b_sum);
    }
    return;
  }
  Scratch<double> sums(2 * batch * channels);  // Σ g and Σ g · z of every channel of every sample
  parallel_for(0, batch * groups, row_grain(n), [&](int64_t begin, int64_t end) {
    Scratch<T> factors(4 * each);
    T *const means = factors.data(), *const a = means + each, *const slopes = a + each, *const shifts = slopes + each;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row % groups * each;
      double* const both = &sums[2 * row * each];
      std::fill_n(both, 2 * each, 0.0);
      std::fill_n(means, each, mean[row]);
      k.dots(g + row * n, x + row * n, each, s, means, both);
      double sum = 0, dot = 0;
      for (int64_t i = 0; i < each; ++i) {
        const double scale = w ? static_cast<double>(w[first + i]) : 1.0;
        sum += both[2 * i] * scale;
        dot += both[2 * i + 1] * scale;
        a[i] = w ? rstd[row] * w[first + i] : rstd[row];
      }
      const double r = rstd[row], count = static_cast<double>(n);
      for (int64_t i = 0; i < each; ++i) both[2 * i + 1] *= r;
      std::fill_n(slopes, each, static_cast<T>(r * r * r * dot / count));
      std::fill_n(shifts, each, static_cast<T>(r * sum / count));
      k.grad(g + row * n, x + row * n, gx + row * n, each, s, means, a, slopes, shifts, past_cache);
    }
  });
  double* const total = sums.data();
  for (int64_t i = 1; i < batch; ++i) norms<double>().add_to_double(total + 2 * i * channels, total, 2 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    gw[c] = static_cast<T>(total[2 * c + 1]);
    gb[c] = static_cast<T>(total[2 * c]);
  }
}

#define BOTH(name) \
  void name(const Value* v) { v[0].is_double() ? name##_of<double>(v) : name##_of<float>(v); }
BOTH(layer_norm)
BOTH(layer_norm_backward)
BOTH(rms_norm)
BOTH(rms_norm_backward)
BOTH(group_norm)
BOTH(group_norm_backward)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("layer_norm", layer_norm, 9),
                         PYFRAME_METHOD("layer_norm_backward", layer_norm_backward, 10),
                         PYFRAME_METHOD("rms_norm", rms_norm, 7),
                         PYFRAME_METHOD("rms_norm_backward", rms_norm_backward, 8),
                         PYFRAME_METHOD("group_norm", group_norm, 11),
                         PYFRAME_METHOD("group_norm_backward", group_norm_backward, 12),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_norm(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
