#include "conv_winograd.h"

#include <algorithm>

#include "conv_table.h"
#include "conv_tiles.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using namespace winograd_detail;

constexpr int64_t kTiles = 48;      // of outputs in a strip
constexpr int64_t kDepth = 128;     // summed in registers: source channels times their taps along the depth
constexpr int64_t kSums = 16 * 256;  // output channels of a block times planes
constexpr int64_t kThreadWork = 1 << 18;

template <class T>
class Winograd {
 public:
  Winograd(const Correlation<T>& problem, const WinogradForm<T>& form)
      : p_(problem), form_(form) {
    planes_ = form.planes();
    deep_ = static_cast<int64_t>(p_.place[0].size());
    rows_ = use_.rows;
    width_ = use_.vectors * use_.lanes * std::max<int64_t>(1, kTiles / (use_.vectors * use_.lanes));
    panels_ = ceil_div(p_.outs, rows_);
    channels_ = even_part(p_.ins, std::max<int64_t>(1, kDepth / deep_));
    tiles_[0] = p_.out.size[0];
    tiles_[1] = ceil_div(p_.out.size[1], form.outs[0]);
    tiles_[2] = ceil_div(p_.out.size[2], form.outs[1] * form.gap) * form.gap;
    all_tiles_ = p_.batch * tiles_[0] * tiles_[1] * tiles_[2];
  }

  void run() {
    ConvScratch weights(p_.groups * planes_ * plane() * sizeof(T));
    T* const packed = weights.template as<T>();
    const int64_t work = p_.groups * p_.outs * p_.ins * deep_ * all_tiles_ * planes_;
    const int64_t threads = in_parallel() || work < 2 * kThreadWork ? 1 : num_threads();
    transform_weights(packed, threads > 1);
    const int64_t strips = ceil_div(all_tiles_, width_);
    const int64_t shares = std::min(panels_, ceil_div(2 * threads, strips * p_.groups));
    const int64_t most = std::max<int64_t>(1, kSums / planes_ / rows_);
    const int64_t share = even_part(panels_, threads == 1 ? most : std::min(most, ceil_div(panels_, shares)));
    const int64_t blocks = ceil_div(panels_, share), tasks = strips * p_.groups * blocks;
    parallel_for(0, tasks, threads == 1 ? tasks : 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, share, packed);
      for (int64_t i = begin; i < end; ++i) {
        worker.run(i / (p_.groups * blocks) * width_, i / blocks % p_.groups, i % blocks * share);
      }
    });
  }

 private:
  // Of the transformed weights.
  int64_t plane() const { return apart<T>(panels_ * p_.ins * deep_ * rows_); }

  // To [group][plane][part of the channels][panel][channel][tap of the depth][rows], the order in which they are read.
  void transform_weights(T* packed, bool threaded) const {
    const std::vector<int64_t> tap = taps_in_order(p_, form_.gap);
    const int64_t taps = static_cast<int64_t>(tap.size()), depth = p_.ins * deep_;
    bool natural = p_.weight_in == deep_ * taps;
    for (int64_t i = 0; i < taps; ++i) natural = natural && tap[static_cast<std::size_t>(i)] == i;
    for (int64_t i = 0; i < deep_; ++i) natural = natural && p_.tap[0][static_cast<std::size_t>(i)] == i * taps;
    constexpr int64_t kSome = 32;  // channels and taps of the depth at a time
    const int64_t tasks = p_.groups * panels_;
    parallel_for(0, tasks, threaded ? 1 : tasks, [&](int64_t begin, int64_t end) {
      ConvScratch memory(kSome * taps * rows_ * sizeof(T));
      T* const lined = memory.as<T>();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / panels_, panel = i % panels_;
        const int64_t line = panel * rows_, lines = std::min(rows_, p_.outs - line);
        const T* const from = p_.weight + group * p_.weight_group + line * p_.weight_out;
        T* const to = packed + group * planes_ * plane();
        for (int64_t k = 0, count; k < depth; k += count) {
          const int64_t part = channels_ * deep_, begin = k / part * part, end = std::min(depth, begin + part);
          count = std::min(kSome, end - k);
          if (natural) {
            use_.pack_lines(from + taps * k, p_.weight_out, lines, taps * count, rows_, lined);
          } else {
            T* at = lined;
            for (int64_t j = k; j < k + count; ++j) {
              const int64_t channel = j / deep_ * p_.weight_in + p_.tap[0][static_cast<std::size_t>(j % deep_)];
              for (int64_t t = 0; t < taps; ++t, at += rows_) {
                const T* const source = from + channel + tap[static_cast<std::size_t>(t)];
                for (int64_t l = 0; l < lines; ++l) at[l] = source[l * p_.weight_out];
                for (int64_t l = lines; l < rows_; ++l) at[l] = 0;
              }
            }
          }
          form_.weight(lined, count, to + (begin * panels_ + panel * (end - begin) + k - begin) * rows_, plane());
        }
      }
    });
  }

  class Worker {
   public:
    Worker(const Winograd& all, int64_t share, const T* weights)
        : s_(all), p_(all.p_), share_(share), weights_(weights), reader_(all.p_, all.form_, all.tiles_, patch_width()),
          patch_(s_.planes_ * patch_width() * sizeof(T)), source_(s_.planes_ * source_plane() * sizeof(T)),
          sums_(s_.planes_ * sums_plane() * sizeof(T)), rows_(s_.form_.outs[0] * line() * sizeof(T)) {
      for (int64_t k = 0; k < s_.channels_ * s_.deep_; ++k) {
        offsets_.push_back(static_cast<std::int32_t>(k * s_.width_));
      }
      right_.resize(static_cast<std::size_t>(s_.width_ / s_.use_.lanes));
    }

    // Tiles from `tile` on, for panels of a group's output channels.
    void run(int64_t tile, int64_t group, int64_t first) {
      const int64_t count = std::min(s_.width_, s_.all_tiles_ - tile);
      reader_.move_to(tile, count);
      const int64_t last = std::min(s_.panels_, first + share_);
      T* const sums = sums_.template as<T>();
      T* const source = source_.template as<T>();
      T* const patch = patch_.template as<T>();
      ConvBlock<T> block{};
      block.height = s_.rows_;
      block.sums_stride = s_.width_;
      block.vectors = ceil_div(count, s_.use_.lanes);
      block.right = right_.data(), block.offsets = offsets_.data();
      block.rows = std::min(p_.outs, last * s_.rows_) - first * s_.rows_;
      for (int64_t channel = 0; channel < p_.ins; channel += s_.channels_) {
        const int64_t channels = std::min(s_.channels_, p_.ins - channel);
        block.depth = channels * s_.deep_;
        block.left_panel = block.depth * s_.rows_;
        reader_.read(group, channel, channels);
        for (int64_t k = 0; k < block.depth; ++k) {
          reader_.tiles(k / s_.deep_, k % s_.deep_, patch);
          s_.form_.source(patch, patch_width(), count, source + k * s_.width_, source_plane());
        }
        block.add = channel > 0;
        for (int64_t plane = 0; plane < s_.planes_; ++plane) {
          for (std::size_t v = 0; v < right_.size(); ++v) {
            right_[v] = source + plane * source_plane() + static_cast<int64_t>(v) * s_.use_.lanes;
          }
          block.left = weights_ + (group * s_.planes_ + plane) * s_.plane() + channel * s_.deep_ * s_.panels_ * s_.rows_ +
                       first * block.left_panel;
          block.sums = sums + plane * sums_plane();
          s_.use_.multiply(block);
        }
      }
      finish(tile, count, group * p_.outs + first * s_.rows_, block.rows, sums);
    }

   private:
    int64_t patch_width() const { return s_.width_ + s_.use_.lanes; }
    int64_t source_plane() const { return apart<T>(s_.channels_ * s_.deep_ * s_.width_); }
    int64_t sums_plane() const { return apart<T>(share_ * s_.rows_ * s_.width_); }
    int64_t line() const { return s_.form_.outs[1] * s_.width_; }  // of outputs

    void finish(int64_t tile, int64_t tiles, int64_t channel, int64_t channels, const T* sums) {
      const Images<T>& out = p_.out;
      const int64_t *const size = out.size, *const grid = s_.tiles_, *const outs = s_.form_.outs;
      T* const rows = rows_.template as<T>();
      for (int64_t c = 0; c < channels; ++c) {
        s_.form_.result(sums + c * s_.width_, sums_plane(), tiles, rows, line());
        const T bias = p_.bias ? p_.bias[channel + c] : T{0};
        const T* from = rows;
        for (int64_t at = tile, end = tile + tiles, count; at < end; at += count) {
          const int64_t x = at % grid[2], row = at / grid[2], y = row % grid[1], z = row / grid[1] % grid[0];
          count = std::min(grid[2] - x, end - at);
          T* const to = out.data + row / grid[1] / grid[0] * out.image + (channel + c) * out.channel + z * out.stride[0] +
                        outs[0] * y * out.stride[1] + outs[1] * x * out.stride[2];
          const int64_t pixels = std::min(outs[1] * count, size[2] - outs[1] * x);
          for (int64_t r = 0; r < std::min(outs[0], size[1] - outs[0] * y); ++r) {
            s_.use_.finish(from + r * line(), pixels, bias, p_.relu, to + r * out.stride[1], out.stride[2]);
          }
          from += outs[1] * count;
        }
      }
    }

    const Winograd& s_;
    const Correlation<T>& p_;
    const int64_t share_;
    const T* const weights_;
    TileReader<T> reader_;
    ConvScratch patch_, source_, sums_, rows_;
    std::vector<std::int32_t> offsets_;
    std::vector<const T*> right_;
  };

  const Correlation<T>& p_;
  const WinogradForm<T>& form_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  int64_t planes_, deep_, rows_, width_, panels_, channels_, tiles_[3], all_tiles_;
};

}  // namespace

template <class T>
const WinogradForm<T>* winograd_form(const Correlation<T>& p) {
  const WinogradKernels<T>& use = winograd_kernels_of<T>();
  const int64_t depth = static_cast<int64_t>(p.place[0].size()) * p.ins;
  for (int64_t i = 0; i < use.count; ++i) {
    const WinogradForm<T>& form = use.forms[i];
    bool fits = depth >= form.channels && p.outs >= form.channels;
    for (int d = 1; d < 3; ++d) {
      const int64_t taps = form.taps[d - 1];
      fits = fits && consecutive(p.place[d], taps, d == 2 ? form.gap : 1) && (taps == 1 || p.out.size[d] > 1) &&
             p.step[d] == form.step[d - 1];
    }
    if (fits) return &form;
  }
  return nullptr;
}

template <class T>
void winograd(const Correlation<T>& problem, const WinogradForm<T>& form) {
  if constexpr (sizeof(T) == sizeof(float)) {  // rare in float64
    if (fits_deep_winograd(problem, form)) return deep_winograd(problem);
  }
  Winograd<T>(problem, form).run();
}

template const WinogradForm<float>* winograd_form(const Correlation<float>&);
template const WinogradForm<double>* winograd_form(const Correlation<double>&);
template void winograd(const Correlation<float>&, const WinogradForm<float>&);
template void winograd(const Correlation<double>&, const WinogradForm<double>&);

}  // namespace pyframe
