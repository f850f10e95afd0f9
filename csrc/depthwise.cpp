// Plans of direct convolutions, and their threads.
#include "depthwise.h"

#include <algorithm>
#include <new>
#include <numeric>

#include "allocator.h"
#include "conv_table.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t kWidest = 16;           // lanes of the widest vector: row lengths hold for every level
constexpr int64_t kWindowBytes = 20 << 10;  // leaves room in a first-level cache of 32 KB for what is written
constexpr int64_t kNarrow = 16;          // columns of images whose channels are worked on side by side
constexpr int64_t kAcrossBytes = 24 << 10;
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
void cut(DepthwisePlan& p) {
  const int64_t budget = kWindowBytes / static_cast<int64_t>(sizeof(float));
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

DepthwisePlan plan_of(const DepthwiseShape& s, bool gradient) {
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
  cut(p);
  const DepthwiseAxis &d = p.axis[0], &h = p.axis[1], &w = p.axis[2];
  p.above = std::max<int64_t>(0, -h.low);
  p.below = std::max<int64_t>(0, (ceil_div(h.to, h.phases) - 1) * h.stride + h.low + h.reach + 1 - h.from);
  const bool plane = d.from * d.to * p.kernel[0] * p.ins * p.outs == 1 && d.low == 0 && w.to <= kNarrow;
  // For few taps rows of pixels cost less than transposing; without a stride also for many, unless half of a vector is
  // outside of the image.
  const bool sparse = h.stride * w.stride > 1 || 2 * w.to <= kNarrow;
  const bool pays = h.phases * w.phases > 1 || (sparse && p.kernel[1] * p.kernel[2] > 9);
  const int64_t bytes = (p.above + h.from + p.below) * w.from * kWidest * static_cast<int64_t>(sizeof(float));
  p.across = plane && pays && bytes <= kAcrossBytes &&
             4 * p.groups >= 3 * rounded(p.groups, kWidest);
  return p;
}

class Scratch {
 public:
  explicit Scratch(int64_t elements)
      : data_(static_cast<float*>(allocate(static_cast<std::size_t>(elements) * sizeof(float)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { deallocate(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() { return data_; }

 private:
  float* data_;
};

int64_t windows(const DepthwisePlan& p) { return (p.window <= kSmallWindow ? 2 : 1) * rounded(p.window, kWidest); }

// Masks of the flat form: up to 64 bytes per tap and vector.
int64_t mask_elements(const DepthwisePlan& p) {
  if (!p.flat) return 0;
  return (p.axis[1].to * p.axis[2].to + kWidest) * p.kernel[1] * p.kernel[2] + kWidest;
}

// Starts to bring elements to the first-level cache. Lines that are 196 bytes long, say, are no pattern that the hardware
// would see coming, neither those read nor those written.
void fetch(const float* from, int64_t count) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(float));
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 1);
}

// Blocks of as many groups as there are lanes, image by image: their pixels are transposed, and the sums back.
void correlate_across(const DepthwisePlan& p, const float* from, const float* weight, const float* bias, float* to) {
  const DepthwiseKernels<float>& use = depthwise_kernels().f32;
  const ConvKernels<float>& move = conv_kernels_of<float>();
  const int64_t lanes = use.lanes, blocks = ceil_div(p.groups, lanes), taps = p.kernel[1] * p.kernel[2];
  const int64_t width = p.axis[2].from, slice = p.axis[1].from * width, to_slice = p.axis[1].to * p.axis[2].to;
  parallel_for(0, blocks * p.batch, row_grain(to_slice * lanes), [&](int64_t begin, int64_t end) {
    const int64_t rows = p.above + p.axis[1].from + p.below;
    Scratch scratch((rows * width + to_slice + taps + 1) * lanes);
    float *const window = scratch.data(), *const sums = window + rows * width * lanes;
    float* const lined = sums + to_slice * lanes;
    float *const first = lined + taps * lanes, *const pixels = window + p.above * width * lanes;
    std::fill(window, pixels, float{0});
    std::fill(pixels + slice * lanes, sums, float{0});
    for (int64_t i = begin; i < end; ++i) {
      const int64_t group = i / p.batch * lanes, groups = std::min(lanes, p.groups - group);
      if (i == begin || i % p.batch == 0) {
        move.transpose(weight + group * taps, taps, 1, groups, taps, lined, lanes);
        std::fill(first, first + lanes, float{0});
        if (bias) std::copy(bias + group, bias + group + groups, first);
      }
      const int64_t plane = i % p.batch * p.groups + group;
      move.transpose(from + plane * slice, slice, 1, groups, slice, pixels, lanes);
      if ((i + 1) % p.batch) fetch(from + (plane + p.groups) * slice, groups * slice);
      fetch(to + plane * to_slice, groups * to_slice);
      use.across(p, window, lined, first, sums);
      move.copy_channels(sums, lanes, groups, to_slice, to + plane * to_slice, to_slice);
    }
  });
}

void correlate(const DepthwisePlan& p, const float* from, const float* weight, const float* bias, float* to) {
  if (p.across) return correlate_across(p, from, weight, bias, to);
  const int64_t items = p.batch * p.groups * p.axis[0].to * p.tiles[0] * p.tiles[1];
  const int64_t work = p.tile[0] * p.tile[1] * p.axis[1].phases * p.axis[2].phases * p.ins * p.outs;
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2];
  parallel_for(0, items, row_grain(work), [&](int64_t begin, int64_t end) {
    const int64_t room = std::max(windows(p), p.ins * rounded(p.window, kWidest));
    Scratch scratch(room + p.spare + taps + mask_elements(p) + 4 * kWidest);
    depthwise_kernels().f32.correlate(p, from, weight, bias, to, begin, end, scratch.data());
  });
}

}  // namespace

void depthwise_forward(const DepthwiseShape& shape, const float* x, const float* weight, const float* bias, float* y) {
  correlate(plan_of(shape, false), x, weight, bias, y);
}

void depthwise_grad_input(const DepthwiseShape& shape, const float* g, const float* weight, float* gx) {
  correlate(plan_of(shape, true), g, weight, nullptr, gx);
}

void depthwise_grad_weight(const DepthwiseShape& shape, const float* g, const float* x, float* gw) {
  const DepthwisePlan p = plan_of(shape, false);
  const int64_t taps = p.kernel[0] * p.kernel[1] * p.kernel[2], per_group = p.ins * p.outs * taps;
  // Blocks of groups, so that images are read in long stretches; where those are few, also blocks of images. Both
  // depend on the shape alone, and so does the order of the sums.
  const int64_t sums = per_group * kWidest;
  const int64_t block = std::clamp<int64_t>(kSumsBytes / (sums * static_cast<int64_t>(sizeof(float))), 1, 16);
  const int64_t blocks = ceil_div(p.groups, block);
  const int64_t images = ceil_div(p.batch, std::min(p.batch, ceil_div(16, blocks)));
  const int64_t parts = ceil_div(p.batch, images);
  const int64_t weights = p.groups * per_group;
  const int64_t work = images * block * p.ins * p.outs * shape.out[0] * shape.out[1] * shape.out[2];
  Scratch partial(parts > 1 ? parts * weights : 1);
  float* const into = parts > 1 ? partial.data() : gw;
  parallel_for(0, blocks * parts, row_grain(work), [&](int64_t begin, int64_t end) {
    Scratch scratch(windows(p) + mask_elements(p) + block * sums + 4 * kWidest);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i / blocks, first = i % blocks * block;
      depthwise_kernels().f32.weight(p, x, g, into + part * weights, first, std::min(first + block, p.groups),
                                     part * images, std::min((part + 1) * images, p.batch), scratch.data());
    }
  });
  if (parts == 1) return;
  for (int64_t i = 0; i < weights; ++i) {
    float total = into[i];
    for (int64_t part = 1; part < parts; ++part) total += into[part * weights + i];
    gw[i] = total;
  }
}

}  // namespace pyframe
