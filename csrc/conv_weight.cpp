// The gradient of a convolution with respect to its weight.
//
// Sums over all pixels of all images: for a block of taps and output channels, the gradient's pixels are lined up with
// output channels side by side, and each is multiplied with the source values that the taps see, which are read one by
// one from the window. Blocks, and where there are few of them parts of the batch, are shared out to the threads.
#include <algorithm>
#include <cstring>

#include "conv.h"
#include "conv_table.h"
#include "conv_window.h"
#include "conv_winograd.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t kPixels = 240;     // of a strip, summed in registers
constexpr int64_t kRows = 640;       // taps of all channels of a block, about
constexpr int64_t kSlices = 4;       // of output channels, that share what a block reads of the source
constexpr int64_t kRowsAtOnce = 24;  // a multiple of the tile's; meanwhile a part of the next gradients is fetched
constexpr int64_t kTasks = 16;       // parts of the batch are made where there are fewer than half as many blocks
constexpr int64_t kPartWork = 1 << 20;  // the least multiplications of one
constexpr int64_t kThreadWork = 1 << 18;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

template <class T>
class WeightGradient {
 public:
  WeightGradient(const Correlation<T>& problem, T* target) : p_(problem), target_(target) {
    taps_ = static_cast<int64_t>(p_.place[0].size() * p_.place[1].size() * p_.place[2].size());
    pixels_ = p_.out.size[0] * p_.out.size[1] * p_.out.size[2];
    channels_ = even_part(p_.ins, std::max<int64_t>(1, kRows / std::max<int64_t>(1, taps_)));
    channel_blocks_ = ceil_div(p_.ins, std::max<int64_t>(1, channels_));
    outs_ = even_part(ceil_div(p_.outs, use_.lanes), use_.grad_vectors) * use_.lanes;
    slices_ = even_part(ceil_div(p_.outs, outs_), kSlices);
    // Slices as blocks of their own, where those are then so many that no parts have to be added up.
    const int64_t blocks = p_.groups * channel_blocks_, few = blocks * ceil_div(p_.outs, slices_ * outs_);
    if (2 * few < kTasks && 2 * blocks * ceil_div(p_.outs, outs_) >= kTasks) slices_ = 1;
    out_blocks_ = ceil_div(p_.outs, slices_ * outs_);
  }

  void run() {
    const int64_t blocks = p_.groups * channel_blocks_ * out_blocks_;
    if (blocks * taps_ <= 0) return;
    const ConvStrips strips(p_.batch, pixels_, kPixels, 1);
    const int64_t work = p_.groups * p_.outs * p_.ins * taps_ * p_.batch * pixels_;
    const int64_t wanted =
        2 * blocks >= kTasks ? 1 : std::min(ceil_div(kTasks, blocks), ceil_div(work, blocks * kPartWork));
    const int64_t parts = std::max<int64_t>(1, std::min(wanted, strips.count()));
    const int64_t rows = channels_ * taps_, size = slices_ * rows * outs_;  // of one block's sums
    ConvScratch memory(parts > 1 ? parts * blocks * size * sizeof(T) : 0);
    T* const sums = memory.template as<T>();
    const bool alone = in_parallel() || work < 2 * kThreadWork;
    parallel_for(0, blocks * parts, alone ? blocks * parts : 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, strips);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % parts, block = i / parts;
        const int64_t first = part * strips.count() / parts, last = (part + 1) * strips.count() / parts;
        worker.run(block, first, last, parts > 1 ? sums + i * size : nullptr);
      }
    });
    if (parts == 1) return;
    const int64_t grain = std::max<int64_t>(1, (1 << 14) / (parts * outs_)), total_rows = blocks * slices_ * rows;
    parallel_for(0, total_rows, alone ? total_rows : grain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t slice = begin / rows % slices_, block = begin / rows / slices_;
        const int64_t row = begin % rows, count = std::min(rows - row, end - begin);
        T* const total = sums + block * parts * size + (slice * rows + row) * outs_;
        for (int64_t part = 1; part < parts; ++part) {
          const T* const more = total + part * size;
          for (int64_t i = 0; i < count * outs_; ++i) total[i] += more[i];
        }
        write(place(block), slice, total, row, count);
        begin += count;
      }
    });
  }

 private:
  // The first channels of a block, within the group.
  struct Place {
    int64_t group, channel, out;
  };
  Place place(int64_t block) const {
    return {block / out_blocks_ / channel_blocks_, block / out_blocks_ % channel_blocks_ * channels_,
            block % out_blocks_ * slices_ * outs_};
  }

  // Writes rows [row, row + count) of the sums of a block's slice to the target.
  void write(const Place& at, int64_t slice, const T* sums, int64_t row, int64_t count) const {
    const int64_t out = at.out + slice * outs_, outs = std::min(outs_, p_.outs - out);
    count = std::min(count, std::min(channels_, p_.ins - at.channel) * taps_ - row);
    if (count <= 0 || outs <= 0) return;
    // The target is contiguous: rows are its last dimensions.
    T* const to = target_ + (at.group * p_.outs + out) * p_.weight_out + at.channel * taps_ + row;
    use_.copy_channels(sums, outs_, outs, count, to, p_.weight_out);
  }

  class Worker {
   public:
    Worker(const WeightGradient& gradient, const ConvStrips& strips)
        : s_(gradient), p_(gradient.p_), strips_(strips),
          window_(p_, s_.channels_, strips.longest(), strips.images(), true),
          lined_((strips.longest() * s_.outs_) * sizeof(T)),
          own_(s_.slices_ * s_.channels_ * s_.taps_ * s_.outs_ * sizeof(T)),
          rows_at_(static_cast<std::size_t>(s_.channels_ * s_.taps_)),
          pixels_(static_cast<std::size_t>(strips.longest())) {}

    // The sums over strips [first, last), to `sums`, or with nullptr to the target.
    void run(int64_t block, int64_t first, int64_t last, T* sums) {
      const Place at = s_.place(block);
      const int64_t channels = std::min(s_.channels_, p_.ins - at.channel);
      const int64_t slice_size = s_.channels_ * s_.taps_ * s_.outs_;
      T* const to = sums ? sums : own_.template as<T>();
      const int64_t all = channels * s_.taps_;
      ConvGradBlock<T> b{};
      b.width = s_.outs_;
      if (first >= last) std::memset(static_cast<void*>(to), 0, s_.slices_ * slice_size * sizeof(T));
      for (int64_t i = first; i < last; ++i) {
        const ConvStrip strip = strips_.at(i);
        window_.move_to(strip);
        window_.read(at.group, at.channel, channels);
        std::int32_t* row = rows_at_.data();
        for (int64_t c = 0; c < channels; ++c) {
          const std::int32_t here = static_cast<std::int32_t>(c * window_.channel());
          for (int64_t t = 0; t < s_.taps_; ++t) *row++ = here + window_.tap(t);
        }
        b.window = window_.data();
        b.pixels = pixels_.data();
        b.depth = strip.images * strip.count;
        b.right = lined_.template as<T>();
        b.add = i > first;
        for (int64_t slice = 0, out = at.out; slice < s_.slices_ && out < p_.outs; ++slice, out += s_.outs_) {
          line_up(strip, at.group * p_.outs + out, std::min(s_.outs_, p_.outs - out));
          const bool more = out + s_.outs_ < std::min(p_.outs, at.out + s_.slices_ * s_.outs_);
          const ConvStrip next = more ? strip : strips_.at(std::min(i + 1, last - 1));
          const int64_t next_out = more ? out + s_.outs_ : at.out, outs = std::min(s_.outs_, p_.outs - next_out);
          for (int64_t r = 0; r < all; r += kRowsAtOnce) {
            const int64_t from = outs * r / all, end = outs * std::min(all, r + kRowsAtOnce) / all;
            fetch(next, at.group * p_.outs + next_out + from, end - from);
            b.rows = std::min(kRowsAtOnce, all - r), b.rows_at = rows_at_.data() + r;
            b.sums = to + slice * slice_size + r * s_.outs_;
            s_.use_.accumulate(b);
          }
        }
      }
      if (sums) return;
      for (int64_t slice = 0; slice < s_.slices_; ++slice) s_.write(at, slice, to + slice * slice_size, 0, all);
    }

   private:
    // Starts to bring gradients from memory that will be lined up next, where an image's pixels follow each other.
    void fetch(const ConvStrip& strip, int64_t channel, int64_t outs) const {
      const Images<T>& g = p_.out;
      if (g.stride[2] != 1) return;
      for (int64_t n = 0; n < strip.images; ++n) {
        const T* const from = g.data + (strip.image + n) * g.image + channel * g.channel + strip.first;
        for (int64_t o = 0; o < outs; ++o) fetch_run(from + o * g.channel, strip.count);
      }
    }

    // Writes the gradient of a strip's pixels with output channels side by side, and where the pixels are.
    void line_up(const ConvStrip& strip, int64_t channel, int64_t outs) {
      const Images<T>& g = p_.out;
      const int64_t* const size = g.size;
      const bool together = (size[1] == 1 || g.stride[1] == size[2] * g.stride[2]) &&
                            (size[0] == 1 || g.stride[0] == size[1] * size[2] * g.stride[2]);
      T* to = lined_.template as<T>();
      std::int32_t* pixel_at = pixels_.data();
      const int64_t step = window_.pixel_step();
      for (int64_t n = 0; n < strip.images; ++n) {
        const T* const from = g.data + (strip.image + n) * g.image + channel * g.channel;
        if (together) {
          s_.use_.transpose(from + strip.first * g.stride[2], g.channel, g.stride[2], outs, strip.count, to, s_.outs_);
          to += strip.count * s_.outs_;
        }
        int64_t pixel = strip.first;
        window_.each_row(n, [&](int64_t, int64_t offset, int64_t count) {
          for (int64_t i = 0; i < count; ++i) *pixel_at++ = static_cast<std::int32_t>(offset + i * step);
          if (!together) {
            const int64_t row = pixel / size[2];
            s_.use_.transpose(from + row / size[1] * g.stride[0] + row % size[1] * g.stride[1] + pixel % size[2] * g.stride[2],
                              g.channel, g.stride[2], outs, count, to, s_.outs_);
            to += count * s_.outs_;
          }
          pixel += count;
        });
      }
    }

    const WeightGradient& s_;
    const Correlation<T>& p_;
    const ConvStrips& strips_;
    ConvWindow<T> window_;
    ConvScratch lined_, own_;
    std::vector<std::int32_t> rows_at_, pixels_;
  };

  const Correlation<T>& p_;
  T* const target_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  int64_t taps_, pixels_, channels_, channel_blocks_, outs_, slices_, out_blocks_;
};

}  // namespace

void correlate_weight(const Correlation<float>& problem, float* target) {
  fits_winograd_weight(problem) ? winograd_weight(problem, target) : WeightGradient<float>(problem, target).run();
}
void correlate_weight(const Correlation<double>& problem, double* target) {
  fits_winograd_weight(problem) ? winograd_weight(problem, target) : WeightGradient<double>(problem, target).run();
}

}  // namespace pyframe
