// Python functions of batch norm on arrays [N, C, S]. With few positions S, or one, they are matrices of C·S columns;
// else every channel is a list of N runs. Sums are taken in blocks that depend on the shape alone.
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

// Channels of up to this many elements cost more for their ends than for their middle.
constexpr int64_t kShort = 32;

// Channels of one sample that are looked at together: their memory should be one page or more.
int64_t channels_together(int64_t s) { return std::max<int64_t>(1, 1024 / s); }

bool as_columns(int64_t batch, int64_t positions) { return positions == 1 || (positions <= kShort && batch >= 4); }

// Columns that are looked at together: a row of them fills half of the first cache level with two arrays of results.
constexpr int64_t kStrip = 1024;

// Calls body(row, rows, column, columns) for all blocks of kNormStep rows and kStrip columns of a matrix.
template <class Body>
void over_blocks(int64_t rows, int64_t columns, Body body) {
  const int64_t strips = (columns + kStrip - 1) / kStrip, blocks = (rows + kNormStep - 1) / kNormStep;
  const int64_t size = std::min(rows, kNormStep) * std::min(columns, kStrip);
  parallel_for(0, strips * blocks, kGrain / std::max<int64_t>(size, 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t r = task / strips * kNormStep, j = task % strips * kStrip;
      body(r, std::min(kNormStep, rows - r), j, std::min(kStrip, columns - j));
    }
  });
}

// Σ over the s elements of each channel.
double channel_sum(const double* x, int64_t s) {
  double a = 0, b = 0;  // two chains: an addition takes four cycles
  int64_t i = 0;
  for (; i + 2 <= s; i += 2) {
    a += x[i];
    b += x[i + 1];
  }
  return i < s ? a + b + x[i] : a + b;
}

// values[c] for each of a channel's s columns.
template <class T>
const T* repeated(const T* values, int64_t channels, int64_t s, T* to) {
  if (s == 1) return values;
  for (int64_t c = 0; c < channels; ++c) std::fill_n(to + c * s, s, values[c]);
  return to;
}

// y = (x - mean) · a + b by channels; `past_cache` as in the kernels.
template <class T>
void apply(const T* x, T* y, const T* mean, const T* a, const T* b, int64_t batch, int64_t channels, int64_t s) {
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = norms<T>();
  if (as_columns(batch, s)) {
    const int64_t n = channels * s;
    Scratch<T> room(3 * n);
    const T* const ms = repeated(mean, channels, s, room.data());
    const T* const as = repeated(a, channels, s, room.data() + n);
    const T* const bs = repeated(b, channels, s, room.data() + 2 * n);
    parallel_for(0, batch, row_grain(n), [&](int64_t begin, int64_t end) {
      k.columns_scale(x + begin * n, y + begin * n, end - begin, n, ms, as, bs, past_cache);
    });
    return;
  }
  const int64_t width = channels_together(s), parts = (channels + width - 1) / width;
  parallel_for(0, batch * parts, row_grain(width * s), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t c = i % parts * width, at = (i / parts * channels + c) * s;
      k.scale(x + at, y + at, std::min(width, channels - c), s, mean + c, a + c, b + c, past_cache);
    }
  });
}

// Mean and Σ (x - mean)² of every channel, [2, channels], where channels are columns.
template <class T>
void moments(const T* x, int64_t batch, int64_t channels, int64_t s, double* out) {
  const int64_t n = channels * s, blocks = (batch + kNormStep - 1) / kNormStep;
  Scratch<T> parts(2 * blocks * n);
  T *const means = parts.data(), *const spreads = means + blocks * n;
  const NormKernels<T>& k = norms<T>();
  over_blocks(batch, n, [&](int64_t r, int64_t rows, int64_t j, int64_t columns) {
    const int64_t at = r / kNormStep * n + j;
    k.column_stats(x + r * n + j, rows, columns, n, means + at, spreads + at);
  });
  Scratch<double> joined(2 * n);
  double *const mean = joined.data(), *const spread = mean + n;
  k.join_moments(means, spreads, blocks, batch, n, n, mean, spread);
  for (int64_t c = 0; c < channels; ++c) {
    if (s == 1) {
      out[c] = mean[c];
      out[channels + c] = spread[c];
      continue;
    }
    double* const m = mean + c * s;
    const double center = channel_sum(m, s) / static_cast<double>(s);
    for (int64_t i = 0; i < s; ++i) m[i] = (m[i] - center) * (m[i] - center);
    out[c] = center;
    out[channels + c] = channel_sum(spread + c * s, s) + channel_sum(m, s) * static_cast<double>(batch);
  }
}

// (x, w, b, y, mean, var, rstd, batch, channels, positions, eps)
template <class T>
void batch_norm_of(const Value* v) {
  const T *const x = v[0].as<T>(), *const w = v[1].as<T>(), *const b = v[2].as<T>();
  T *const y = v[3].as<T>(), *const mean = v[4].as<T>(), *const var = v[5].as<T>(), *const rstd = v[6].as<T>();
  const int64_t batch = v[7].integer, channels = v[8].integer, s = v[9].integer;
  const double eps = v[10].number, count = static_cast<double>(batch * s);
  const bool past_cache = exceeds_cache<T>(batch * channels * s);
  const NormKernels<T>& k = norms<T>();
  const auto finish = [&](int64_t c, double center, double spread) {
    mean[c] = static_cast<T>(center);
    var[c] = static_cast<T>(spread / count);
    rstd[c] = static_cast<T>(1 / std::sqrt(spread / count + eps));
  };
  if (as_columns(batch, s)) {
    Scratch<double> both(2 * channels);
    moments(x, batch, channels, s, both.data());
    Scratch<T> factors(2 * channels);
    for (int64_t c = 0; c < channels; ++c) {
      finish(c, both[c], both[channels + c]);
      factors[c] = w ? rstd[c] * w[c] : rstd[c];
      factors[channels + c] = b ? b[c] : T{0};
    }
    return apply<T>(x, y, mean, factors.data(), factors.data() + channels, batch, channels, s);
  }
  Scratch<T> factors(2 * channels);
  Scratch<double> both(2 * channels);
  const int64_t width = channels_together(s), parts = (channels + width - 1) / width;
  parallel_for(0, parts, row_grain(batch * width * s), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t c = part * width, count_c = std::min(width, channels - c);
      double *const sum = &both[2 * c], *const spread = sum + count_c;
      std::fill_n(sum, 2 * count_c, 0.0);
      for (int64_t i = 0; i < batch; ++i) k.sums(x + (i * channels + c) * s, count_c, s, sum);
      for (int64_t j = 0; j < count_c; ++j) mean[c + j] = static_cast<T>(sum[j] / count);
      for (int64_t i = 0; i < batch; ++i) k.spreads(x + (i * channels + c) * s, count_c, s, mean + c, spread);
      for (int64_t j = 0; j < count_c; ++j) {
        finish(c + j, sum[j] / count, spread[j]);
        factors[c + j] = w ? rstd[c + j] * w[c + j] : rstd[c + j];
        factors[channels + c + j] = b ? b[c + j] : T{0};
      }
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.scale(x + at, y + at, count_c, s, mean + c, &factors[c], &factors[channels + c], past_cache);
      }
    }
  });
}

// (x, mean, var, w, b, y, batch, channels, positions, eps)
template <class T>
void batch_norm_inference_of(const Value* v) {
  const T *const mean = v[1].as<T>(), *const var = v[2].as<T>(), *const w = v[3].as<T>(), *const b = v[4].as<T>();
  const int64_t batch = v[6].integer, channels = v[7].integer;
  Scratch<T> factors(2 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    const T scale = 1 / std::sqrt(var[c] + static_cast<T>(v[9].number));
    factors[c] = w ? scale * w[c] : scale;
    factors[channels + c] = b ? b[c] : T{0};
  }
  apply<T>(v[0].as<T>(), v[5].as<T>(), mean, factors.data(), factors.data() + channels, batch, channels, v[8].integer);
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
  const NormKernels<T>& k = norms<T>();
  // gx = a · (g - Σ g / count - (x - mean) · rstd² · Σ g (x - mean) / count) with a = rstd · weight
  const auto finish = [&](int64_t c, double sum, double dot, T& a, T& slope, T& shift) {
    const double r = rstd[c], scale = w ? r * static_cast<double>(w[c]) : r;
    gw[c] = static_cast<T>(dot * r);
    gb[c] = static_cast<T>(sum);
    a = static_cast<T>(scale);
    slope = static_cast<T>(scale * r * r * dot / count);
    shift = static_cast<T>(scale * sum / count);
  };
  if (as_columns(batch, s)) {
    const int64_t n = channels * s, blocks = (batch + kNormStep - 1) / kNormStep;
    Scratch<T> parts(2 * blocks * n), room(4 * n), factors(3 * channels);
    const T* const ms = repeated(mean, channels, s, room.data());
    over_blocks(batch, n, [&](int64_t r, int64_t rows, int64_t j, int64_t columns) {
      const int64_t to = r / kNormStep * 2 * n + j;
      k.column_dots(g + r * n + j, x + r * n + j, rows, columns, n, ms + j, &parts[to], &parts[to + n]);
    });
    Scratch<double> sums(2 * n);
    std::fill_n(sums.data(), 2 * n, 0.0);
    for (int64_t block = 0; block < blocks; ++block) k.add_to_double(&parts[block * 2 * n], sums.data(), 2 * n);
    for (int64_t c = 0; c < channels; ++c) {
      finish(c, channel_sum(&sums[c * s], s), channel_sum(&sums[n + c * s], s), factors[c], factors[channels + c],
             factors[2 * channels + c]);
    }
    const T* const as = repeated<T>(factors.data(), channels, s, room.data() + n);
    const T* const slopes = repeated<T>(factors.data() + channels, channels, s, room.data() + 2 * n);
    const T* const shifts = repeated<T>(factors.data() + 2 * channels, channels, s, room.data() + 3 * n);
    parallel_for(0, batch, row_grain(n), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * n;
      k.columns_grad(g + at, x + at, gx + at, end - begin, n, ms, as, slopes, shifts, past_cache);
    });
    return;
  }
  Scratch<T> factors(3 * channels);
  Scratch<double> sums(2 * channels);
  const int64_t width = channels_together(s), parts = (channels + width - 1) / width;
  parallel_for(0, parts, row_grain(batch * width * s), [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t c = part * width, count_c = std::min(width, channels - c);
      double* const both = &sums[2 * c];
      std::fill_n(both, 2 * count_c, 0.0);
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.dots(g + at, x + at, count_c, s, mean + c, both);
      }
      T *const a = &factors[c], *const slope = a + channels, *const shift = slope + channels;
      for (int64_t j = 0; j < count_c; ++j) finish(c + j, both[2 * j], both[2 * j + 1], a[j], slope[j], shift[j]);
      for (int64_t i = 0; i < batch; ++i) {
        const int64_t at = (i * channels + c) * s;
        k.grad(g + at, x + at, gx + at, count_c, s, mean + c, a, slope, shift, past_cache);
      }
    }
  });
}

#define BOTH(name) \
  void name(const Value* v) { v[0].is_double() ? name##_of<double>(v) : name##_of<float>(v); }
BOTH(batch_norm)
BOTH(batch_norm_inference)
BOTH(batch_norm_backward)
#undef BOTH

PyMethodDef methods[] = {PYFRAME_METHOD("batch_norm", batch_norm, 11),
                         PYFRAME_METHOD("batch_norm_inference", batch_norm_inference, 10),
                         PYFRAME_METHOD("batch_norm_backward", batch_norm_backward, 11),
                         {nullptr, nullptr, 0, nullptr}};

}  // namespace

bool bind_batch_norm(PyObject* module) { return PyModule_AddFunctions(module, methods) == 0; }

}  // namespace pyframe
