// Winograd's sums for few tiles and many channels, as in the last layers of a network: the weights are the larger factor.
// All tiles are transformed first; then each slice of output channels transforms its weights, part by part, and uses
// them on all tiles while they are in the second-level cache. Channels lie in the lanes, as rows of pixels are short.
#include <algorithm>
#include <cstring>

#include "conv_tiles.h"
#include "conv_winograd.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using namespace winograd_detail;

constexpr int64_t kPlanes = 16;              // numbers of a transformed tile
constexpr int64_t kStrip = 128;              // tiles
constexpr int64_t kFewTiles = 256;           // of all images
constexpr int64_t kManyWeights = 1 << 14;    // pairs of channels: transformed, they take 1 MB
constexpr int64_t kDepth = 128;              // source channels summed in registers
constexpr int64_t kLined = 16;               // channels whose weights are lined up at a time

template <class T>
class DeepWinograd {
 public:
  explicit DeepWinograd(const Correlation<T>& problem)
      : p_(problem), grid_(tile_grid(problem, *transforms_.forms)),
        strips_(p_.batch, grid_.size[0] * grid_.size[1] * grid_.size[2], kStrip, std::min(grid_.size[2], kStrip)) {
    columns_ = strips_.longest();
    vectors_ = ceil_div(p_.ins, lanes_);
    width_ = std::min(ceil_div(p_.outs, lanes_), use_.grad_vectors) * lanes_;
    slices_ = ceil_div(p_.outs, width_);
    source_plane_ = apart<T>(vectors_ * lanes_ * columns_);
    weight_plane_ = apart<T>(kDepth * width_);
    sums_plane_ = apart<T>(columns_ * width_);
    for (int64_t i = 0; i < columns_; ++i) tiles_at_.push_back(static_cast<std::int32_t>(i * lanes_));
    for (int64_t k = 0; k < kDepth; ++k) {
      channels_at_.push_back(static_cast<std::int32_t>(k / lanes_ * columns_ * lanes_ + k % lanes_));
    }
    tap_ = taps_in_order(p_, 1);
    for (int64_t& tap : tap_) tap += p_.tap[0][0];
    bool seen[9] = {};
    for (int64_t tap : tap_) {
      if (tap >= 0 && tap < 9) seen[tap] = true;
    }
    together_ = std::all_of(seen, seen + 9, [](bool s) { return s; });
    for (int i = 0; i < 9; ++i) order_[i] = static_cast<std::int32_t>(together_ ? tap_[static_cast<std::size_t>(i)] : i);
  }

  void run() {
    const int64_t blocks = strips_.count() * p_.groups, size = kPlanes * source_plane_;
    ConvScratch memory(blocks * size * sizeof(T));
    T* const source = memory.template as<T>();
    parallel_for(0, blocks * vectors_, 1, [&](int64_t begin, int64_t end) {
      TilePixels<T> pixels(p_.source, grid_, strips_);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / vectors_, channel = i % vectors_ * lanes_;
        pixels.move_to(strips_.at(block / p_.groups));
        pixels.read(block % p_.groups * p_.ins + channel, std::min(lanes_, p_.ins - channel));
        T* to = source + block * size + channel * columns_;
        pixels.each_run([&](const T* from, int64_t count) {
          transforms_.forms->adjoint->source(from, pixels.row(), lanes_, count, to, source_plane_, lanes_);
          to += count * lanes_;
        });
      }
    });
    parallel_for(0, p_.groups * slices_, 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, source);
      for (int64_t i = begin; i < end; ++i) worker.run(i / slices_, i % slices_ * width_);
    });
  }

 private:
  class Worker {
   public:
    Worker(const DeepWinograd& all, const T* source)
        : s_(all), p_(all.p_), source_(source), lined_(kLined * 9 * all.width_ * sizeof(T)),
          weights_(kPlanes * all.weight_plane_ * sizeof(T)),
          sums_(all.strips_.count() * kPlanes * all.sums_plane_ * sizeof(T)),
          pixels_((4 * all.columns_ + 4) * all.lanes_ * sizeof(T)), bias_(static_cast<std::size_t>(all.width_)) {}

    // Output channels [first, first + width) of a group.
    void run(int64_t group, int64_t first) {
      const int64_t outs = std::min(s_.width_, p_.outs - first), strips = s_.strips_.count();
      T* const sums = sums_.template as<T>();
      ConvGradBlock<T> b{};
      b.rows_at = s_.tiles_at_.data(), b.pixels = s_.channels_at_.data(), b.width = s_.width_;
      for (int64_t k = 0; k < p_.ins; k += kDepth) {
        b.depth = std::min(kDepth, p_.ins - k);
        b.add = k > 0;
        transform_weights(p_.weight + group * p_.weight_group + first * p_.weight_out + k * p_.weight_in, outs, b.depth);
        for (int64_t plane = 0; plane < kPlanes; ++plane) {
          b.right = weights_.template as<T>() + plane * s_.weight_plane_;
          for (int64_t strip = 0; strip < strips; ++strip) {
            const ConvStrip at = s_.strips_.at(strip);
            b.rows = at.images * at.count;
            b.window = source_ + ((strip * p_.groups + group) * kPlanes + plane) * s_.source_plane_ + k * s_.columns_;
            b.sums = sums + (strip * kPlanes + plane) * s_.sums_plane_;
            s_.use_.accumulate(b);
          }
        }
      }
      const int64_t channel = group * p_.outs + first;
      for (int64_t o = 0; o < outs; ++o) bias_[static_cast<std::size_t>(o)] = p_.bias ? p_.bias[channel + o] : T{0};
      for (int64_t strip = 0; strip < strips; ++strip) {
        for (int64_t o = 0; o < outs; o += s_.lanes_) {
          finish(s_.strips_.at(strip), channel + o, std::min(s_.lanes_, outs - o), bias_.data() + o,
                 sums + strip * kPlanes * s_.sums_plane_ + o);
        }
      }
    }

   private:
    void transform_weights(const T* from, int64_t outs, int64_t depth) {
      const int64_t width = s_.width_;
      T* const lined = lined_.template as<T>();
      for (int64_t k = 0, count; k < depth; k += count) {
        count = std::min(kLined, depth - k);
        const T* const some = from + k * p_.weight_in;
        if (s_.together_ && p_.weight_in == 9) {
          s_.use_.transpose(some, p_.weight_out, 1, outs, 9 * count, lined, width);
        } else {
          for (int64_t c = 0; c < count; ++c) {
            T* const to = lined + 9 * c * width;
            if (s_.together_) s_.use_.transpose(some + c * p_.weight_in, p_.weight_out, 1, outs, 9, to, width);
            else scatter(some + c * p_.weight_in, outs, to);
          }
        }
        s_.transforms_.weight_lanes(lined, s_.order_, count, width, weights_.template as<T>() + k * width, s_.weight_plane_);
      }
    }

    // Weights whose taps do not lie side by side.
    void scatter(const T* from, int64_t outs, T* to) const {
      for (int t = 0; t < 9; ++t, to += s_.width_) {
        for (int64_t o = 0; o < outs; ++o) to[o] = from[s_.tap_[static_cast<std::size_t>(t)] + o * p_.weight_out];
        for (int64_t o = outs; o < s_.width_; ++o) to[o] = 0;
      }
    }

    // Some channels of a strip's outputs, two rows or a whole image at a time.
    void finish(const ConvStrip& strip, int64_t channel, int64_t channels, const T* bias, const T* sums) {
      const int64_t *const tiles = s_.grid_.size, *const size = p_.out.size, lanes = s_.lanes_;
      T* const pixels = pixels_.template as<T>();
      for (int64_t n = 0; n < strip.images; ++n) {
        T* const image = p_.out.data + (strip.image + n) * p_.out.image + channel * p_.out.channel;
        if (whole_images(strip)) {
          for (int64_t y = 0; y < tiles[1]; ++y, sums += tiles[2] * s_.width_) {
            s_.transforms_.result_lanes(sums, s_.sums_plane_, s_.width_, tiles[2], bias, p_.relu,
                                        pixels + 2 * y * size[2] * lanes, size[2] * lanes);
          }
          s_.use_.copy_channels(pixels, lanes, channels, size[1] * size[2], image, p_.out.channel);
          continue;
        }
        for (int64_t at = strip.first, end = strip.first + strip.count, count; at < end; at += count) {
          const int64_t x = at % tiles[2], y = at / tiles[2] % tiles[1], z = at / (tiles[1] * tiles[2]);
          count = std::min(tiles[2] - x, end - at);
          s_.transforms_.result_lanes(sums, s_.sums_plane_, s_.width_, count, bias, p_.relu, pixels, 2 * count * lanes);
          sums += count * s_.width_;
          T* const to = image + z * p_.out.stride[0] + 2 * y * p_.out.stride[1] + 2 * x * p_.out.stride[2];
          const int64_t width = std::min(2 * count, size[2] - 2 * x);
          for (int64_t r = 0; r < std::min<int64_t>(2, size[1] - 2 * y); ++r) {
            write(pixels + 2 * r * count * lanes, channels, width, to + r * p_.out.stride[1]);
          }
        }
      }
    }

    bool whole_images(const ConvStrip& strip) const {
      const int64_t* const size = p_.out.size;
      return strip.count == s_.grid_.size[1] * s_.grid_.size[2] && size[0] == 1 && size[1] % 2 == 0 && size[2] % 2 == 0 &&
             p_.out.stride[2] == 1 && p_.out.stride[1] == size[2];
    }

    void write(const T* from, int64_t channels, int64_t count, T* to) const {
      const int64_t step = p_.out.stride[2], lanes = s_.lanes_;
      if (step == 1) return s_.use_.copy_channels(from, lanes, channels, count, to, p_.out.channel);
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t i = 0; i < count; ++i) to[c * p_.out.channel + i * step] = from[i * lanes + c];
      }
    }

    const DeepWinograd& s_;
    const Correlation<T>& p_;
    const T* const source_;
    ConvScratch lined_, weights_, sums_, pixels_;
    std::vector<T> bias_;
  };

  const Correlation<T>& p_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const WinogradKernels<T>& transforms_ = winograd_kernels_of<T>();
  const int64_t lanes_ = use_.lanes;
  const TileGrid grid_;
  const ConvStrips strips_;
  int64_t columns_, vectors_, width_, slices_, source_plane_, weight_plane_, sums_plane_;
  std::vector<int64_t> tap_;
  std::int32_t order_[9];
  bool together_;  // the nine taps of a pair of channels
  std::vector<std::int32_t> tiles_at_, channels_at_;
};

}  // namespace

template <class T>
bool fits_deep_winograd(const Correlation<T>& p, const WinogradForm<T>& form) {
  if (&form != winograd_kernels_of<T>().forms || p.place[0].size() > 1) return false;
  const TileGrid grid = tile_grid(p, form);
  const int64_t tiles = p.batch * grid.size[0] * grid.size[1] * grid.size[2];
  return tiles <= kFewTiles && tiles <= p.outs && p.ins * p.outs >= kManyWeights;
}

template <class T>
void deep_winograd(const Correlation<T>& problem) {
  DeepWinograd<T>(problem).run();
}

template bool fits_deep_winograd(const Correlation<float>&, const WinogradForm<float>&);
template void deep_winograd(const Correlation<float>&);

}  // namespace pyframe
