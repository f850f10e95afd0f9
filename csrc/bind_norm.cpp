// Python functions of the normalisations. Arrays are [N, C, S] or rows of n; sums over blocks whose length depends on
// the shape alone are added up in order, so that results do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bindings.h"
#include "fastcall.h"
#include "norm.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

template <class T>
const NormKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return norm_kernels().f32;
  else return norm_kernels().f64;
}

// ---- layer norm

// (x, w, b, y, mean, rstd, rows, n, eps)
template <class T>
void layer_norm_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const w = v[1].as<T>(), *const b = v[2].as<T>();
  T *const y = v[3].as<T>(), *const mean = v[4].as<T>(), *const rstd = v[5].as<T>();
  const int64_t rows = v[6].integer, n = v[7].integer;
  const double eps = v[8].number;
  const bool past_cache = exceeds_cache<T>(rows * n);
  parallel_for(0, rows, row_grain(n), [&](int64_t begin, int64_t end) {
    table<T>().layer(x + begin * n, w, b, y + begin * n, mean + begin, rstd + begin, end - begin, n, eps, past_cache);
  });
}

// (g, x, mean, rstd, w, gx, gw, gb, rows, n)
template <class T>
void layer_norm_backward_of(const Value* v) {
  const T *const g = v[0].as<T>(), *const x = v[1].as<T>(), *const mean = v[2].as<T>(), *const rstd = v[3].as<T>(),
          *const w = v[4].as<T>();
  T *const gx = v[5].as<T>(), *const gw = v[6].as<T>(), *const gb = v[7].as<T>();
  const int64_t rows = v[8].integer, n = v[9].integer;
  const bool past_cache = exceeds_cache<T>(rows * n);
  // Each block sums its rows in T, 64 at a time, and these sums in double.
  constexpr int64_t kStep = 64;
  const int64_t blocks = std::max<int64_t>(1, std::min<int64_t>({32, rows / 8, rows * n / kGrain}));
  std::vector<double> sums(static_cast<std::size_t>(blocks) * 2 * n, 0.0);
  parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
    std::vector<T> part(2 * n);
    for (int64_t block = first; block < last; ++block) {
      double* const total = sums.data() + block * 2 * n;
      const int64_t end = (block + 1) * rows / blocks;
      for (int64_t r = block * rows / blocks; r < end; r += kStep) {
        std::fill(part.begin(), part.end(), T{0});
        table<T>().layer_backward(g + r * n, x + r * n, mean + r, rstd + r, w, gx + r * n, part.data(), part.data() + n,
                                  std::min(kStep, end - r), n, past_cache);
        for (int64_t j = 0; j < 2 * n; ++j) total[j] += static_cast<double>(part[j]);
      }
    }
  });
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      double w_sum = 0, b_sum = 0;
      for (int64_t block = 0; block < blocks; ++block) {
        w_sum += sums[block * 2 * n + j];
        b_sum += sums[block * 2 * n + n + j];
      }
      gw[j] = static_cast<T>(w_sum);
      gb[j] = static_cast<T>(b_sum);
    }
  });
}

// ---- group norm

// (x, w, b, y, mean, rstd, batch, channels, positions, groups, eps)
template <class T>
void group_norm_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const w = v[1].as<T>(), *const b = v[2].as<T>();
  T *const y = v[3].as<T>(), *const mean = v[4].as<T>(), *const rstd = v[5].as<T>();
  const int64_t batch = v[6].integer, channels = v[7].integer, s = v[8].integer, groups = v[9].integer;
  const double eps = v[10].number;
  const int64_t each = channels / groups, n = each * s;
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = table<T>();
  parallel_for(0, batch * groups, row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* const from = x + row * n;
      T* const to = y + row * n;
      const T m = static_cast<T>(k.sum(from, n) / static_cast<double>(n));
      const T r = static_cast<T>(1 / std::sqrt(k.spread(from, n, m) / static_cast<double>(n) + eps));
      mean[row] = m;
      rstd[row] = r;
      for (int64_t i = 0; i < each; ++i) {
        const int64_t c = row % groups * each + i;
        k.scale_shift(from + i * s, to + i * s, s, m, w ? r * w[c] : r, b ? b[c] : T{0}, past_cache);
      }
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
  const int64_t each = channels / groups, n = each * s;
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = table<T>();
  std::vector<double> sums(2 * batch * channels);  // Σ g and Σ g · (x - mean) of every channel of every sample
  parallel_for(0, batch * groups, row_grain(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      double sum = 0, dot = 0;
      for (int64_t i = 0; i < each; ++i) {
        const int64_t c = row % groups * each + i, at = row * n + i * s;
        double* const out = &sums[2 * (row * each + i)];
        k.dots(g + at, x + at, s, mean[row], out);
        sum += out[0] * (w ? static_cast<double>(w[c]) : 1.0);
        dot += out[1] * (w ? static_cast<double>(w[c]) : 1.0);
      }
      const double r = rstd[row], count = static_cast<double>(n);
      for (int64_t i = 0; i < each; ++i) {
        const int64_t c = row % groups * each + i, at = row * n + i * s;
        k.segment_grad(g + at, x + at, gx + at, s, mean[row], w ? rstd[row] * w[c] : rstd[row],
                       static_cast<T>(r * r * r * dot / count), static_cast<T>(r * sum / count), past_cache);
      }
    }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double w_sum = 0, b_sum = 0;
    for (int64_t i = 0; i < batch; ++i) {
      const int64_t at = i * channels + c;
      w_sum += sums[2 * at + 1] * static_cast<double>(rstd[i * groups + c / each]);
      b_sum += sums[2 * at];
    }
    gw[c] = static_cast<T>(w_sum);
    gb[c] = static_cast<T>(b_sum);
  }
}

// ---- batch norm

// Blocks of rows of a matrix with c columns that stay in the second cache level.
int64_t rows_per_block(int64_t c) { return std::max<int64_t>(8, 32768 / std::max<int64_t>(c, 1)); }

// Mean and Σ (x - mean)² of every column of [rows, c], by merging those of blocks (Chan, Golub, LeVeque 1983).
template <class T>
void column_moments(const T* x, int64_t rows, int64_t c, double* mean, double* spread) {
  const int64_t length = rows_per_block(c), blocks = (rows + length - 1) / length;
  const int64_t groups = std::min<int64_t>(blocks, 16);
  std::vector<double> all(static_cast<std::size_t>(groups) * 2 * c, 0.0);
  std::vector<double> counts(groups, 0.0);
  const auto merge = [c](double* into, double& n, auto* means, auto* spreads, double m) {
    const double share = m / (n + m), weight = n * share;
    for (int64_t j = 0; j < c; ++j) {
      const double delta = static_cast<double>(means[j]) - into[j];
      into[j] += delta * share;
      into[c + j] += static_cast<double>(spreads[j]) + delta * delta * weight;
    }
    n += m;
  };
  parallel_for(0, groups, 1, [&](int64_t first, int64_t last) {
    std::vector<T> part(2 * c);
    for (int64_t q = first; q < last; ++q) {
      for (int64_t b = q * blocks / groups; b < (q + 1) * blocks / groups; ++b) {
        const int64_t r = b * length, m = std::min(length, rows - r);
        table<T>().column_stats(x + r * c, m, c, part.data(), part.data() + c);
        merge(&all[q * 2 * c], counts[q], part.data(), part.data() + c, static_cast<double>(m));
      }
    }
  });
  for (int64_t q = 1; q < groups; ++q) merge(all.data(), counts[0], &all[q * 2 * c], &all[q * 2 * c + c], counts[q]);
  std::copy_n(all.data(), c, mean);
  std::copy_n(all.data() + c, c, spread);
}

// (x, w, b, y, mean, var, rstd, batch, channels, positions, eps)
template <class T>
void batch_norm_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const w = v[1].as<T>(), *const b = v[2].as<T>();
  T *const y = v[3].as<T>(), *const mean = v[4].as<T>(), *const var = v[5].as<T>(), *const rstd = v[6].as<T>();
  const int64_t batch = v[7].integer, channels = v[8].integer, s = v[9].integer;
  const double eps = v[10].number, count = static_cast<double>(batch * s);
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = table<T>();
  const auto finish = [&](int64_t c, double center, double spread) {
    mean[c] = static_cast<T>(center);
    var[c] = static_cast<T>(spread / count);
    rstd[c] = static_cast<T>(1 / std::sqrt(spread / count + eps));
  };
  if (s == 1) {
    std::vector<double> moments(2 * channels);
    column_moments(x, batch, channels, moments.data(), moments.data() + channels);
    std::vector<T> factors(2 * channels);
    for (int64_t c = 0; c < channels; ++c) {
      finish(c, moments[c], moments[channels + c]);
      factors[c] = w ? rstd[c] * w[c] : rstd[c];
      factors[channels + c] = b ? b[c] : T{0};
    }
    parallel_for(0, batch, row_grain(channels), [&](int64_t begin, int64_t end) {
      k.columns_scale(x + begin * channels, y + begin * channels, end - begin, channels, mean, factors.data(),
                      factors.data() + channels, past_cache);
    });
    return;
  }
  parallel_for(0, channels, row_grain(batch * s), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = 0, spread = 0;
      for (int64_t i = 0; i < batch; ++i) sum += k.sum(x + (i * channels + c) * s, s);
      const T m = static_cast<T>(sum / count);
      for (int64_t i = 0; i < batch; ++i) spread += k.spread(x + (i * channels + c) * s, s, m);
      finish(c, sum / count, spread);
      const T a = w ? rstd[c] * w[c] : rstd[c], shift = b ? b[c] : T{0};
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.scale_shift(x + at, y + at, s, m, a, shift, past_cache);
      }
    }
  });
}

// (g, x, mean, rstd, w, gx, gw, gb, batch, channels, positions)
template <class T>
void batch_norm_backward_of(const Value* v) {
  const T *const g = v[0].as<T>(), *const x = v[1].as<T>(), *const mean = v[2].as<T>(), *const rstd = v[3].as<T>(),
          *const w = v[4].as<T>();
  T *const gx = v[5].as<T>(), *const gw = v[6].as<T>(), *const gb = v[7].as<T>();
  const int64_t batch = v[8].integer, channels = v[9].integer, s = v[10].integer;
  const double count = static_cast<double>(batch * s);
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = table<T>();
  // gx = a · (g - Σ g / count - (x - mean) · rstd² · Σ g (x - mean) / count) with a = rstd · weight
  const auto finish = [&](int64_t c, double sum, double dot, T& a, T& slope, T& shift) {
    const double r = rstd[c], scale = w ? r * static_cast<double>(w[c]) : r;
    gw[c] = static_cast<T>(dot * r);
    gb[c] = static_cast<T>(sum);
    a = static_cast<T>(scale);
    slope = static_cast<T>(scale * r * r * dot / count);
    shift = static_cast<T>(scale * sum / count);
  };
  if (s == 1) {
    const int64_t length = rows_per_block(channels), blocks = (batch + length - 1) / length;
    const int64_t groups = std::min<int64_t>(blocks, 16);
    std::vector<double> sums(static_cast<std::size_t>(groups) * 2 * channels, 0.0);
    parallel_for(0, groups, 1, [&](int64_t first, int64_t last) {
      std::vector<T> part(2 * channels);
      for (int64_t q = first; q < last; ++q) {
        for (int64_t b = q * blocks / groups; b < (q + 1) * blocks / groups; ++b) {
          const int64_t r = b * length, at = r * channels;
          k.column_dots(g + at, x + at, std::min(length, batch - r), channels, mean, part.data(),
                        part.data() + channels);
          for (int64_t j = 0; j < 2 * channels; ++j) sums[q * 2 * channels + j] += static_cast<double>(part[j]);
        }
      }
    });
    std::vector<T> factors(3 * channels);
    for (int64_t c = 0; c < channels; ++c) {
      double sum = 0, dot = 0;
      for (int64_t q = 0; q < groups; ++q) {
        sum += sums[q * 2 * channels + c];
        dot += sums[q * 2 * channels + channels + c];
      }
      finish(c, sum, dot, factors[c], factors[channels + c], factors[2 * channels + c]);
    }
    parallel_for(0, batch, row_grain(channels), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * channels;
      k.columns_grad(g + at, x + at, gx + at, end - begin, channels, mean, factors.data(), factors.data() + channels,
                     factors.data() + 2 * channels, past_cache);
    });
    return;
  }
  parallel_for(0, channels, row_grain(batch * s), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = 0, dot = 0, pair[2];
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.dots(g + at, x + at, s, mean[c], pair);
        sum += pair[0];
        dot += pair[1];
      }
      T a, slope, shift;
      finish(c, sum, dot, a, slope, shift);
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.segment_grad(g + at, x + at, gx + at, s, mean[c], a, slope, shift, past_cache);
      }
    }
  });
}

#define BOTH(name) \
  void name(const Value* v) { v[0].is_double() ? name##_of<double>(v) : name##_of<float>(v); }
BOTH(layer_norm)
BOTH(layer_norm_backward)
BOTH(group_norm)
BOTH(group_norm_backward)
BOTH(batch_norm)
BOTH(batch_norm_backward)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("layer_norm", layer_norm, 9),
                         PYFRAME_METHOD("layer_norm_backward", layer_norm_backward, 10),
                         PYFRAME_METHOD("group_norm", group_norm, 11),
                         PYFRAME_METHOD("group_norm_backward", group_norm_backward, 12),
                         PYFRAME_METHOD("batch_norm", batch_norm, 11),
                         PYFRAME_METHOD("batch_norm_backward", batch_norm_backward, 11),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_norm(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
