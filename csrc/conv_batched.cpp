#include "conv_batched.h"

#include <algorithm>
#include <cstring>

#include "conv_table.h"
#include "conv_window.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// The window of a block of images, with some channels, and what it is summed to stay in the second-level cache.
constexpr int64_t kWindowBytes = 384 << 10, kSumsBytes = 576 << 10;
constexpr int64_t kMostOuts = 512;   // with more, lining up pixels is a small part of the work
constexpr int64_t kLeastBlocks = 2;  // of images, which are what the threads share out

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

// The rows of the window: source rows with what the taps see to their left and right.
template <class T>
struct Rows {
  explicit Rows(const Correlation<T>& p) {
    const auto [least, most] = std::minmax_element(p.place[2].begin(), p.place[2].end());
    left = std::max<int64_t>(0, -*least);
    length = left + std::max(p.source.size[2], (p.out.size[2] - 1) * p.step[2] + *most + 1);
  }
  int64_t left, length;
};

// The channels of one group that are worked on at once.
template <class T>
int64_t channels_at_once(const Correlation<T>& p, int64_t lanes) {
  const int64_t plane = p.source.size[0] * p.source.size[1] * Rows<T>(p).length * lanes * static_cast<int64_t>(sizeof(T));
  return even_part(p.ins, std::max<int64_t>(1, kWindowBytes / plane));
}

// Lays windows out as [channel][z][y][x][image]; z and y without padding, as taps outside of the source are left out.
template <class T>
class Batched {
 public:
  explicit Batched(const Correlation<T>& problem) : p_(problem), rows_(problem) {
    lanes_ = use_.lanes;
    blocks_ = ceil_div(p_.batch, lanes_);
    height_ = even_part(p_.outs, use_.rows);
    panels_ = ceil_div(p_.outs, height_);
    taps_[0] = size_of(p_.place[0]), taps_[1] = size_of(p_.place[1]), taps_[2] = size_of(p_.place[2]);
    all_taps_ = taps_[0] * taps_[1] * taps_[2];
    part_ = channels_at_once(p_, lanes_);
    channel_ = p_.source.size[0] * p_.source.size[1] * rows_.length * lanes_;
    pixels_ = p_.out.size[0] * p_.out.size[1] * p_.out.size[2];
  }

  void run() {
    ConvScratch weights(p_.groups * panels_ * panel_size() * sizeof(T));
    packed_ = weights.template as<T>();
    pack_weights();
    offsets_ = offsets_of(part_), last_offsets_ = offsets_of((p_.ins - 1) % part_ + 1);
    parallel_for(0, blocks_ * p_.groups, 1, [&](int64_t begin, int64_t end) {
      ConvScratch window(part_ * channel_ * sizeof(T));
      ConvScratch sums((part_ < p_.ins ? panels_ : 1) * height_ * pixels_ * lanes_ * sizeof(T));
      ConvScratch turned(p_.out.stride[2] == 1 ? 0 : pixels_ * lanes_ * sizeof(T));
      for (int64_t i = begin; i < end; ++i) {
        work(i / p_.groups * lanes_, i % p_.groups, window.template as<T>(), sums.template as<T>(), turned.template as<T>());
      }
    });
  }

 private:
  static int64_t size_of(const std::vector<int64_t>& list) { return static_cast<int64_t>(list.size()); }

  int64_t panel_size() const { return p_.ins * all_taps_ * height_; }

  // To [group][panel][part of the channels][tap][channel][height]: a row of taps is one run of K.
  void pack_weights() {
    T* to = packed_;
    for (int64_t i = 0; i < p_.groups * panels_; ++i) {
      const int64_t line = i % panels_ * height_, lines = std::min(height_, p_.outs - line);
      const T* const from = p_.weight + i / panels_ * p_.weight_group + line * p_.weight_out;
      for (int64_t first = 0; first < p_.ins; first += part_) {
        const int64_t last = std::min(p_.ins, first + part_);
        for (int64_t z : p_.tap[0]) {
          for (int64_t y : p_.tap[1]) {
            for (int64_t x : p_.tap[2]) {
              use_.transpose(from + z + y + x + first * p_.weight_in, p_.weight_out, p_.weight_in, lines, last - first, to,
                             height_);
              to += (last - first) * height_;
            }
          }
        }
      }
    }
  }

  // Where K lies in a window of so many channels.
  std::vector<std::int32_t> offsets_of(int64_t channels) const {
    std::vector<std::int32_t> offsets;
    offsets.reserve(static_cast<std::size_t>(channels * all_taps_));
    for (int64_t z : p_.place[0]) {
      for (int64_t y : p_.place[1]) {
        for (int64_t x : p_.place[2]) {
          const int64_t at = ((z * p_.source.size[1] + y) * rows_.length + x) * lanes_;
          for (int64_t c = 0; c < channels; ++c) offsets.push_back(static_cast<std::int32_t>(at + c * channel_));
        }
      }
    }
    return offsets;
  }

  // Reads channels [channel, channel + count).
  void read(int64_t image, int64_t images, int64_t channel, int64_t count, T* window) const {
    const Images<const T>& s = p_.source;
    const int64_t width = s.size[2], right = rows_.length - rows_.left - width, rows = s.size[0] * s.size[1];
    const bool whole = rows_.length == width && s.stride[1] == width * s.stride[2] &&
                       (s.size[0] == 1 || s.stride[0] == s.size[1] * s.stride[1]);
    for (int64_t c = 0; c < count; ++c) {
      const T* const from = s.data + image * s.image + (channel + c) * s.channel;
      T* to = window + c * channel_;
      if (whole) {
        use_.transpose(from, s.image, s.stride[2], images, rows * width, to, lanes_);
        continue;
      }
      for (int64_t row = 0; row < rows; ++row, to += rows_.length * lanes_) {
        std::fill_n(to, rows_.left * lanes_, T{0});
        use_.transpose(from + row / s.size[1] * s.stride[0] + row % s.size[1] * s.stride[1], s.image, s.stride[2], images,
                       width, to + rows_.left * lanes_, lanes_);
        std::fill_n(to + (rows_.left + width) * lanes_, right * lanes_, T{0});
      }
    }
  }

  // The taps of dimension d, [*begin, *end), that see the source from any of the outputs [from, to). Places ascend or
  // descend, so that those which see it from one output follow each other.
  void seen(int d, int64_t from, int64_t to, int64_t* begin, int64_t* end) const {
    *begin = taps_[d], *end = 0;
    for (int64_t t = 0; t < taps_[d]; ++t) {
      const int64_t place = p_.place[d][static_cast<std::size_t>(t)], step = p_.step[d];
      bool any = false;
      for (int64_t i = from; i < to; ++i) any = any || (i * step + place >= 0 && i * step + place < p_.source.size[d]);
      if (any) *begin = std::min(*begin, t), *end = t + 1;
    }
  }

  // Sums of `count` pixels of a row over `channels` channels, for the rows of a block, which holds the first values of
  // its factors.
  void sum(ConvBlock<T> block, int64_t channels, int64_t z, int64_t y, int64_t x, int64_t count) const {
    const T* const left = block.left;
    const std::int32_t* const offsets = block.offsets;
    int64_t low[3], high[3];
    seen(0, z, z + 1, &low[0], &high[0]);
    seen(1, y, y + 1, &low[1], &high[1]);
    seen(2, x, x + count, &low[2], &high[2]);
    block.vectors = count;
    int64_t begin = 0, end = 0;  // a run of K
    const auto multiply = [&] {
      block.depth = end - begin, block.left = left + begin * height_, block.offsets = offsets + begin;
      use_.multiply(block);
      block.add = true;
    };
    for (int64_t tz = low[0]; tz < high[0]; ++tz) {
      for (int64_t ty = low[1]; ty < high[1]; ++ty) {
        const int64_t row = (tz * taps_[1] + ty) * taps_[2];
        if (begin < end && (row + low[2]) * channels != end) multiply(), begin = end;
        if (begin == end) begin = (row + low[2]) * channels;
        end = std::max(begin, (row + high[2]) * channels);
      }
    }
    multiply();  // of nothing where no tap sees the source: zeros
  }

  void work(int64_t image, int64_t group, T* window, T* sums, T* turned) const {
    const int64_t images = std::min(lanes_, p_.batch - image);
    const int64_t* const size = p_.out.size;
    const int64_t line_step = pixels_ * lanes_, tile = use_.vectors;
    std::vector<const T*> right(static_cast<std::size_t>(pixels_));
    for (int64_t i = 0; i < pixels_; ++i) {
      const int64_t x = i % size[2] * p_.step[2], y = i / size[2] % size[1] * p_.step[1];
      const int64_t z = i / (size[1] * size[2]) * p_.step[0];
      right[static_cast<std::size_t>(i)] = window + ((z * p_.source.size[1] + y) * rows_.length + rows_.left + x) * lanes_;
    }
    ConvBlock<T> block{};
    block.height = height_, block.left_panel = panel_size();
    block.sums_stride = line_step;
    for (int64_t first = 0; first < p_.ins; first += part_) {
      const int64_t channels = std::min(part_, p_.ins - first);
      const bool last = first + channels == p_.ins;
      read(image, images, group * p_.ins + first, channels, window);
      block.offsets = last ? last_offsets_.data() : offsets_.data();
      block.add = first > 0;
      for (int64_t panel = 0; panel < panels_; ++panel) {
        block.left = packed_ + (group * panels_ + panel) * panel_size() + first * all_taps_ * height_;
        block.rows = std::min(height_, p_.outs - panel * height_);
        T* const to = part_ < p_.ins ? sums + panel * height_ * line_step : sums;
        for (int64_t i = 0; i < pixels_; i += size[2]) {
          for (int64_t x = 0, count; x < size[2]; x += count) {
            count = ceil_div(size[2] - x, ceil_div(size[2] - x, tile));
            block.right = right.data() + i + x, block.sums = to + (i + x) * lanes_;
            sum(block, channels, i / (size[1] * size[2]), i / size[2] % size[1], x, count);
          }
        }
        if (!last) continue;
        for (int64_t r = 0; r < block.rows; ++r) {
          write(to + r * line_step, image, images, group * p_.outs + panel * height_ + r, turned);
        }
      }
    }
  }

  // One channel of the outputs; `turned` has room for it where they do not lie side by side.
  void write(T* sums, int64_t image, int64_t images, int64_t channel, T* turned) const {
    const Images<T>& out = p_.out;
    const int64_t* const size = out.size;
    const T bias = p_.bias ? p_.bias[channel] : T{0};
    T* const to = out.data + image * out.image + channel * out.channel;
    const auto row_at = [&](int64_t row) { return row / size[1] * out.stride[0] + row % size[1] * out.stride[1]; };
    const int64_t rows = size[0] * size[1];
    if (out.stride[2] != 1) {
      use_.copy_channels(sums, lanes_, images, pixels_, turned, pixels_);
      for (int64_t n = 0; n < images; ++n) {
        for (int64_t row = 0; row < rows; ++row) {
          use_.finish(turned + n * pixels_ + row * size[2], size[2], bias, p_.relu, to + n * out.image + row_at(row),
                      out.stride[2]);
        }
      }
      return;
    }
    use_.finish(sums, pixels_ * lanes_, bias, p_.relu, sums, 1);
    if ((size[1] == 1 || out.stride[1] == size[2]) && (size[0] == 1 || out.stride[0] == size[1] * size[2])) {
      return use_.copy_channels(sums, lanes_, images, pixels_, to, out.image);
    }
    for (int64_t row = 0; row < rows; ++row) {
      use_.copy_channels(sums + row * size[2] * lanes_, lanes_, images, size[2], to + row_at(row), out.image);
    }
  }

  const Correlation<T>& p_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const Rows<T> rows_;
  int64_t lanes_, blocks_, height_, panels_, taps_[3], all_taps_, part_, channel_, pixels_;
  T* packed_ = nullptr;
  std::vector<std::int32_t> offsets_, last_offsets_;
};

}  // namespace

template <class T>
bool fits_batched(const Correlation<T>& p) {
  const int64_t lanes = conv_kernels_of<T>().lanes, rows = std::min(conv_kernels_of<T>().rows, p.outs);
  const std::size_t taps = p.place[0].size() * p.place[1].size() * p.place[2].size();
  const int64_t blocks = ceil_div(p.batch, lanes), pixels = p.out.size[0] * p.out.size[1] * p.out.size[2];
  const int64_t item = static_cast<int64_t>(sizeof(T)) * lanes;
  if (taps < 2 || p.outs > kMostOuts || blocks < kLeastBlocks || 4 * p.batch < 3 * blocks * lanes ||
      p.out.size[2] >= lanes || pixels == 0 || p.ins == 0) {
    return false;
  }
  const bool parts = channels_at_once(p, lanes) < p.ins;
  return p.source.size[0] * p.source.size[1] * Rows<T>(p).length * item <= kWindowBytes &&
         (parts ? p.outs + rows : rows) * pixels * item <= kSumsBytes;
}

template <class T>
void batched(const Correlation<T>& problem) {
  Batched<T>(problem).run();
}

template bool fits_batched(const Correlation<float>&);
template bool fits_batched(const Correlation<double>&);
template void batched(const Correlation<float>&);
template void batched(const Correlation<double>&);

}  // namespace pyframe
