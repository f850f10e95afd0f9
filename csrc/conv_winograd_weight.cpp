// The gradient of a kernel by minimal filtering: the adjoint of the forward sums. Gradients of outputs and source
// values are transformed tile by tile, their products summed over all tiles in each plane, and the sums transformed to
// taps at the end.
#include <algorithm>
#include <cstring>

#include "conv_tiles.h"
#include "conv_winograd.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using namespace winograd_detail;

constexpr int64_t kTiles = 128;      // of a strip, summed in registers
constexpr int64_t kRows = 128;       // source channels of a block times their taps along the depth
constexpr int64_t kOuts = 128;       // output channels of a block
constexpr int64_t kPiece = 16;       // rows whose sums are transformed at a time
constexpr int64_t kMemory = 1 << 23;  // bytes of all parts' sums
constexpr int64_t kTasks = 16, kLeastTasks = 4;  // parts of the batch are made until there are so many tasks
constexpr int64_t kPartStrips = 4;  // with fewer of them, adding up a part's sums would be 5 % of its work
constexpr int64_t kPartWork = 1 << 20;
constexpr int64_t kThreadWork = 1 << 18;

template <class T>
class WinogradWeight {
 public:
  WinogradWeight(const Correlation<T>& problem, const WinogradForm<T>& form, T* target)
      : p_(problem), form_(form), target_(target), grid_(tile_grid(problem, form)) {
    planes_ = form.planes(), taps_ = form.taps[0] * form.taps[1];
    pixels_ = grid_.size[0] * grid_.size[1] * grid_.size[2];
    deep_ = static_cast<int64_t>(p_.place[0].size());
    const int64_t vectors = ceil_div(p_.outs, use_.lanes);
    width_ = std::min(vectors, use_.grad_vectors) * use_.lanes;
    slices_ = std::min(ceil_div(p_.outs, width_), std::max<int64_t>(1, kOuts / width_));
    outs_ = slices_ * width_;
    out_blocks_ = ceil_div(p_.outs, outs_);
    channels_ = even_part(p_.ins, std::max<int64_t>(1, kRows / deep_));
    channel_blocks_ = ceil_div(p_.ins, channels_);
    rows_ = channels_ * deep_;
    plane_ = apart<T>(rows_ * outs_);
  }

  void run() {
    const int64_t blocks = p_.groups * channel_blocks_ * out_blocks_;
    const int64_t unit = grid_.gap > 1 ? grid_.size[2] : std::min(grid_.size[2], kTiles);
    const ConvStrips strips(p_.batch, pixels_, kTiles, unit);
    const int64_t work = p_.groups * p_.outs * p_.ins * deep_ * planes_ * p_.batch * pixels_;
    const int64_t enough = std::min(kTasks, std::max(kLeastTasks, blocks * strips.count() / kPartStrips));
    const int64_t wanted = std::min(ceil_div(enough, blocks), ceil_div(work, blocks * kPartWork));
    const int64_t size = planes_ * plane_;
    const int64_t room = kMemory / (blocks * size * static_cast<int64_t>(sizeof(T)));
    const int64_t parts = std::max<int64_t>(1, std::min({wanted, strips.count(), room}));
    ConvScratch memory(parts > 1 ? parts * blocks * size * sizeof(T) : 0);
    T* const sums = memory.template as<T>();
    const bool alone = in_parallel() || work < 2 * kThreadWork;
    parallel_for(0, blocks * parts, alone ? blocks * parts : 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, strips);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % parts;
        const int64_t first = part * strips.count() / parts, last = (part + 1) * strips.count() / parts;
        worker.run(i / parts, first, last, parts > 1 ? sums + i * size : nullptr);
      }
    });
    if (parts == 1) return;
    const int64_t pieces = slices_ * ceil_div(rows_, kPiece), all = blocks * pieces;
    parallel_for(0, all, alone ? all : 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) write(i / pieces, i % pieces, sums + i / pieces * parts * size, parts);
    });
  }

 private:
  // Adds up the parts of the sums of one piece of a block, and writes their transform to the target. They are laid out
  // as planes of [slice][channel][tap of the depth][width].
  void write(int64_t block, int64_t piece, const T* sums, int64_t parts) const {
    const int64_t row = piece / slices_ * kPiece, slice = piece % slices_;
    const int64_t out = block % out_blocks_ * outs_ + slice * width_;
    const int64_t channel = block / out_blocks_ % channel_blocks_ * channels_;
    const int64_t group = block / out_blocks_ / channel_blocks_;
    const int64_t rows = std::min(kPiece, std::min(channels_, p_.ins - channel) * deep_ - row);
    const int64_t outs = std::min(width_, p_.outs - out);
    if (rows <= 0 || outs <= 0) return;
    const int64_t count = rows * width_, plane = apart<T>(count);
    ConvScratch memory((planes_ * plane + taps_ * count) * sizeof(T));
    T *const total = memory.as<T>(), *const taps = total + planes_ * plane;
    for (int64_t i = 0; i < planes_; ++i) {
      T* const to = total + i * plane;
      const T* from = sums + i * plane_ + (slice * rows_ + row) * width_;
      std::copy_n(from, count, to);
      for (int64_t part = 1; part < parts; ++part) {
        from += planes_ * plane_;
        for (int64_t j = 0; j < count; ++j) to[j] += from[j];
      }
    }
    form_.adjoint->gather(total, plane, rows, width_, taps);
    T* const to = target_ + (group * p_.outs + out) * p_.weight_out + (channel * deep_ + row) * taps_;
    use_.copy_channels(taps, width_, outs, taps_ * rows, to, p_.weight_out);
  }

  class Worker {
   public:
    Worker(const WinogradWeight& all, const ConvStrips& strips)
        : s_(all), p_(all.p_), strips_(strips), columns_(strips.longest()),
          source_(all.p_.source, all.grid_, strips),
          gradients_(gradient_of(all.p_), output_grid(all.grid_, all.form_), strips),
          source_plane_(apart<T>(all.deep_ * whole(all.channels_) * columns_)), gradient_plane_(apart<T>(all.outs_ * columns_)),
          left_(all.planes_ * source_plane_ * sizeof(T)), right_(all.planes_ * gradient_plane_ * sizeof(T)),
          own_(all.planes_ * all.plane_ * sizeof(T)) {
      const int64_t lanes = all.use_.lanes;
      for (int64_t r = 0; r < all.rows_; ++r) {
        const int64_t c = r / all.deep_, line = r % all.deep_ * whole(all.channels_) + c / lanes * lanes;
        rows_at_.push_back(static_cast<std::int32_t>(line * columns_ + c % lanes));
      }
      for (int64_t i = 0; i < columns_; ++i) pixels_.push_back(static_cast<std::int32_t>(i * lanes));
    }

    void run(int64_t block, int64_t first, int64_t last, T* sums) {
      const int64_t out = block % s_.out_blocks_ * s_.outs_;
      const int64_t channel = block / s_.out_blocks_ % s_.channel_blocks_ * s_.channels_;
      const int64_t group = block / s_.out_blocks_ / s_.channel_blocks_;
      const int64_t channels = std::min(s_.channels_, p_.ins - channel), outs = std::min(s_.outs_, p_.outs - out);
      T* const to = sums ? sums : own_.template as<T>();
      if (first >= last) std::memset(static_cast<void*>(to), 0, s_.planes_ * s_.plane_ * sizeof(T));
      ConvGradBlock<T> b{};
      b.rows_at = rows_at_.data(), b.rows = channels * s_.deep_, b.pixels = pixels_.data(), b.width = s_.width_;
      for (int64_t i = first; i < last; ++i) {
        const ConvStrip strip = strips_.at(i);
        transform_source(strip, group * p_.ins + channel, channels);
        transform_gradient(strip, group * p_.outs + out, outs);
        b.depth = strip.images * strip.count;
        b.add = i > first;
        for (int64_t plane = 0; plane < s_.planes_; ++plane) {
          b.window = left_.template as<T>() + plane * source_plane_;
          for (int64_t slice = 0; slice * s_.width_ < outs; ++slice) {
            b.right = right_.template as<T>() + plane * gradient_plane_ + slice * columns_ * s_.width_;
            b.sums = to + plane * s_.plane_ + slice * s_.rows_ * s_.width_;
            s_.use_.accumulate(b);
          }
        }
      }
      if (sums) return;
      for (int64_t piece = 0; piece < s_.slices_ * ceil_div(s_.rows_, kPiece); ++piece) s_.write(block, piece, to, 1);
    }

   private:
    int64_t whole(int64_t channels) const { return ceil_div(channels, s_.use_.lanes) * s_.use_.lanes; }

    static Images<const T> gradient_of(const Correlation<T>& p) {
      Images<const T> g;
      g.data = p.out.data, g.image = p.out.image, g.channel = p.out.channel;
      std::copy_n(p.out.stride, 3, g.stride);
      std::copy_n(p.out.size, 3, g.size);
      return g;
    }

    // To planes of [tap of the depth][vector of channels][tile][lanes].
    void transform_source(const ConvStrip& strip, int64_t channel, int64_t channels) {
      const int64_t lanes = s_.use_.lanes;
      source_.move_to(strip);
      for (int64_t t = 0; t < s_.deep_; ++t) {
        const int64_t deeper = p_.place[0][static_cast<std::size_t>(t)] - p_.place[0][0];
        for (int64_t c = 0; c < channels; c += lanes) {
          source_.read(channel + c, std::min(lanes, channels - c), deeper);
          source_.fetch(channel + c + lanes, std::min(lanes, channels - c - lanes));
          T* to = left_.template as<T>() + (t * whole(s_.channels_) + c) * columns_;
          source_.each_run([&](const T* from, int64_t count) {
            s_.form_.adjoint->source(from, source_.row(), source_.pixel(), count, to, source_plane_, lanes);
            to += count * lanes;
          });
        }
      }
    }

    // To planes of [slice][tile][width].
    void transform_gradient(const ConvStrip& strip, int64_t channel, int64_t outs) {
      const int64_t lanes = s_.use_.lanes, width = s_.width_;
      gradients_.move_to(strip);
      for (int64_t o = 0; o < ceil_div(outs, width) * width; o += lanes) {
        gradients_.read(channel + o, std::min(lanes, std::max<int64_t>(0, outs - o)));
        gradients_.fetch(channel + o + lanes, std::min(lanes, outs - o - lanes));
        T* to = right_.template as<T>() + o / width * width * columns_ + o % width;
        gradients_.each_run([&](const T* from, int64_t count) {
          s_.form_.adjoint->spread(from, gradients_.row(), gradients_.pixel(), count, to, gradient_plane_, width);
          to += count * width;
        });
      }
    }

    const WinogradWeight& s_;
    const Correlation<T>& p_;
    const ConvStrips& strips_;
    const int64_t columns_;
    TilePixels<T> source_, gradients_;
    const int64_t source_plane_, gradient_plane_;
    ConvScratch left_, right_, own_;
    std::vector<std::int32_t> rows_at_, pixels_;
  };

  const Correlation<T>& p_;
  const WinogradForm<T>& form_;
  T* const target_;
  const TileGrid grid_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  int64_t planes_, taps_;
  int64_t pixels_, deep_, width_, slices_, outs_, out_blocks_, channels_, channel_blocks_, rows_, plane_;
};

}  // namespace

template <class T>
bool fits_winograd_weight(const Correlation<T>& p) {
  const WinogradForm<T>* const form = winograd_form(p);
  return form && form->adjoint;
}

template <class T>
void winograd_weight(const Correlation<T>& problem, T* target) {
  WinogradWeight<T>(problem, *winograd_form(problem), target).run();
}

template bool fits_winograd_weight(const Correlation<float>&);
template bool fits_winograd_weight(const Correlation<double>&);
template void winograd_weight(const Correlation<float>&, float*);
template void winograd_weight(const Correlation<double>&, double*);

}  // namespace pyframe
