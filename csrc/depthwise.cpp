// Plans of direct convolutions, and their threads.
#include "depthwise.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "allocator.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t kWidest = 16;           // lanes of the widest vector: row lengths hold for every level
constexpr int64_t kWindowBytes = 20 << 10;  // leaves room in a first-level cache of 32 KB for what is written
constexpr int64_t kFlatMost = 256;       // elements of an image: a mask per tap and vector is kept
constexpr int64_t kSumsBytes = 16 << 10;  // sums of a block of channels in the weight's gradient

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t rounded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

DepthwiseAxis forward_axis(const DepthwiseShape& s, int i) {
  DepthwiseAxis a{};
  a.from = s.size[i];
  a.to = s.out[i];
  a.stride = s.stride[i];
  a.spread = s.dilation[i];
  a.low = -s.before[i];
  a.reach = (s.kernel[i] - 1) * s.dilation[i];
  a.phases = 1;
  a.phase[0] = {s.kernel[i], 0, 1, a.low};
  return a;
}

// Input element h = i * stride + p was read by tap t for output (h + before - t * dilation) / stride, where that is whole.
DepthwiseAxis gradient_axis(const DepthwiseShape& s, int i) {
  const int64_t stride = s.stride[i], step = s.dilation[i], common = std::gcd(stride, step);
  DepthwiseAxis a{};
  a.from = s.out[i];
  a.to = s.size[i];
  a.stride = 1;
  a.spread = step / common;
  a.phases = stride;
  bool any = false;
  int64_t high = 0;
  for (int64_t p = 0; p < stride; ++p) {
    DepthwisePhase& phase = a.phase[p];
    phase = {0, 0, -stride / common, 0};
    for (int64_t t = 0; t < s.kernel[i]; ++t) {
      const int64_t place = p + s.before[i] - t * step;
      if (place % stride) continue;
      ++phase.taps;
      phase.first_tap = t;  // the last one is for the lowest source
      phase.first = place / stride;
    }
    if (!phase.taps) continue;
    const int64_t last = phase.first + (phase.taps - 1) * a.spread;
    a.low = any ? std::min(a.low, phase.first) : phase.first;
    high = any ? std::max(high, last) : last;
    any = true;
  }
  for (int64_t p = 0; p < stride; ++p) {
    if (!a.phase[p].taps) a.phase[p].first = a.low;
  }
  a.reach = high - a.low;
  return a;
}

// Tiles whose window fits the budget; a tile has at least one row and some vectors.
void cut(DepthwisePlan& p, int64_t element_bytes) {
  const int64_t budget = kWindowBytes / element_bytes;
  const DepthwiseAxis &h = p.axis[1], &w = p.axis[2];
  const int64_t height = ceil_div(h.to, h.phases), width = ceil_div(w.to, w.phases);
  const auto lane = [&](int64_t columns) { return rounded(columns, kWidest) + w.reach / w.stride; };
  int64_t columns = width;
  if ((h.reach + 1) * lane(width) * w.stride > budget) {
    const int64_t room = budget / ((h.reach + 1) * w.stride) - w.reach / w.stride;
    columns = std::min(width, std::max(room / kWidest * kWidest, 4 * kWidest));
  }
  const int64_t pitch = lane(columns) * w.stride;
  const int64_t fitting = std::max<int64_t>((budget / pitch - h.reach - 1) / h.stride + 1, 1);
  // Kernels work on four rows at a time.
  const int64_t rows = fitting >= height ? height : std::max<int64_t>(fitting / 4 * 4, std::min<int64_t>(fitting, 4));
  p.tile[0] = rows;
  p.tile[1] = columns;
  p.tiles[0] = ceil_div(height, rows);
  p.tiles[1] = ceil_div(width, columns);
  p.lane = lane(columns);
  p.pitch = pitch;
  p.rows = (rows - 1) * h.stride + h.reach + 1;
  p.window = p.rows * p.pitch;
  p.spare = w.phases > 1 ? h.phases * w.phases * rows * rounded(columns, kWidest) : 0;
  const DepthwiseAxis& d = p.axis[0];
  p.flat = d.from * d.to * p.kernel[0] == 1 && d.low == 0 && h.from == h.to && w.from == w.to &&
           h.stride * h.phases * w.stride * w.phases == 1 && h.to * w.to <= kFlatMost;
}

DepthwisePlan plan_of(const DepthwiseShape& s, bool gradient, int64_t element_bytes) {
  DepthwisePlan p{};
  const int64_t taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
  p.batch = s.batch;
  p.groups = s.groups;
  p.ins = gradient ? s.outs : s.ins;
  p.outs = gradient ? s.ins : s.outs;
  p.in_weights = gradient ? s.ins * taps : taps;
  p.out_weights = gradient ? taps : s.ins * taps;
  for (int i = 0; i < 3; ++i) {
    p.kernel[i] = s.kernel[i];
    p.axis[i] = gradient ? gradient_axis(s, i) : forward_axis(s, i);
  }
  cut(p, element_bytes);
  return p;
}

template <class T>
const DepthwiseKernels<T>& table() {
  if constexpr (sizeof(T) == 4) return depthwise_kernels().f32;
  else return depthwise_kernels().f64;
}

template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t elements) : data_(static_cast<T*>(allocate(static_cast<std::size_t>(elements) * sizeof(T)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { deallocate(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* data() { return data_; }

 private:
  T* data_;
};

int64_t windows(const DepthwisePlan& p) { return (p.window <= kSmallWindow ? 2 : 1) * rounded(p.window, kWidest); }

// Masks of the flat form: up to 64 bytes per tap and vector.
int64_t mask_elements(const DepthwisePlan& p) {
  if (!p.flat) return 0;
  return (p.axis[1].to * p.axis[2].to + kWidest) * p.kernel[1] * p.kernel[2] + kWidest;
}

template <class T>
void correlate(const DepthwisePlan& p, const T* from, const T* weight, const T* bias, T* to) {
  const int64_t items = p.batch * p.groups * p.axis[0].to * p.tiles[0] * p.tiles[1];
  const int64_t work = p.tile[0] * p.tile[1] * p.axis[1].phases * p.axis[2].phases * p.ins * p.outs;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  parallel_for(0, items, row_grain(work), [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(windows(p) + p.spare + taps + mask_elements(p) + 4 * kWidest);
    table<T>().correlate(p, from, weight, bias, to, begin, end, scratch.data());
  });
}

}  // namespace

template <class T>
void depthwise_forward(const DepthwiseShape& shape, const T* x, const T* weight, const T* bias, T* y) {
  correlate(plan_of(shape, false, sizeof(T)), x, weight, bias, y);
}

template <class T>
void depthwise_grad_input(const DepthwiseShape& shape, const T* g, const T* weight, T* gx) {
  correlate<T>(plan_of(shape, true, sizeof(T)), g, weight, nullptr, gx);
}

template <class T>
void depthwise_grad_weight(const DepthwiseShape& shape, const T* g, const T* x, T* gw) {
  const DepthwisePlan p = plan_of(shape, false, sizeof(T));
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2], per_group = p.ins * p.outs * taps;
  // Blocks of groups, so that images are read in long stretches; where those are few, also blocks of images. Both
  // depend on the shape alone, and so does the order of the sums.
  const int64_t sums = per_group * kWidest;
  const int64_t block = std::clamp<int64_t>(kSumsBytes / (sums * static_cast<int64_t>(sizeof(T))), 1, 16);
  const int64_t blocks = ceil_div(p.groups, block);
  const int64_t images = ceil_div(p.batch, std::min(p.batch, ceil_div(16, blocks)));
  const int64_t parts = ceil_div(p.batch, images);
  const int64_t weights = p.groups * per_group;
  const int64_t work = images * block * p.ins * p.outs * shape.out[0] * shape.out[1] * shape.out[2];
  Scratch<T> partial(parts > 1 ? parts * weights : 1);
  T* const into = parts > 1 ? partial.data() : gw;
  parallel_for(0, blocks * parts, row_grain(work), [&](int64_t begin, int64_t end) {
    Scratch<T> scratch(windows(p) + mask_elements(p) + block * sums + 4 * kWidest);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i / blocks, first = i % blocks * block;
      table<T>().weight(p, x, g, into + part * weights, first, std::min(first + block, p.groups), part * images,
                        std::min((part + 1) * images, p.batch), scratch.data());
    }
  });
  if (parts == 1) return;
  for (int64_t i = 0; i < weights; ++i) {
    T total = into[i];
    for (int64_t part = 1; part < parts; ++part) total += into[part * weights + i];
    gw[i] = total;
  }
}

template void depthwise_forward(const DepthwiseShape&, const float*, const float*, const float*, float*);
template void depthwise_forward(const DepthwiseShape&, const double*, const double*, const double*, double*);
template void depthwise_grad_input(const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_grad_input(const DepthwiseShape&, const double*, const double*, double*);
template void depthwise_grad_weight(const DepthwiseShape&, const float*, const float*, float*);
template void depthwise_grad_weight(const DepthwiseShape&, const double*, const double*, double*);

}  // namespace pyframe
