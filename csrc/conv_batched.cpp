#include "conv_batched.h"

#include <algorithm>
#include <cstring>

#include "conv_table.h"
#include "conv_tiles.h"
#include "conv_window.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// The window of a block of images, with some channels, and what it is summed to stay in the second-level cache.
constexpr int64_t kWindowBytes = 384 << 10, kSumsBytes = 576 << 10;
constexpr int64_t kMostOuts = 512;   // with more, lining up pixels is a small part of the work
constexpr int64_t kFormOuts = 4;     // share a transformed source
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

// The form for the rows, where it pays and all channels' transformed rows stay in the second-level cache, or nullptr.
// Its rounding errors are those of a few products, so that sums must be of many.
template <class T>
const WinogradForm<T>* row_form(const Correlation<T>& p) {
  const WinogradForm<T>* const form = winograd_kernels_of<T>().five;
  const int64_t depth = p.ins * static_cast<int64_t>(p.place[0].size() * p.place[1].size());
  if (depth < form->channels || p.outs < kFormOuts || p.step[2] != 1 || p.out.size[2] % form->outs[1] ||
      !winograd_detail::consecutive(p.place[2], form->taps[1], 1)) {
    return nullptr;
  }
  const int64_t vectors = p.ins * p.source.size[0] * p.source.size[1] * p.out.size[2] / form->outs[1] * form->planes();
  return vectors * conv_kernels_of<T>().lanes * static_cast<int64_t>(sizeof(T)) <= kWindowBytes ? form : nullptr;
}

// The channels of one group that are worked on at once.
template <class T>
int64_t channels_at_once(const Correlation<T>& p, int64_t lanes) {
  const int64_t plane = p.source.size[0] * p.source.size[1] * Rows<T>(p).length * lanes * static_cast<int64_t>(sizeof(T));
  return even_part(p.ins, std::max<int64_t>(1, kWindowBytes / plane));
}

// Lays windows out as [channel][z][y][x][image]; z and y without padding, as taps outside of the source are left out.
//
// With minimal filtering of the rows, they are transformed to planes of such windows in which x counts tiles. The sums of
// a plane are then of kernels of one column.
template <class T>
class Batched {
 public:
  explicit Batched(const Correlation<T>& problem)
      : whole_(problem), p_(problem), rows_(problem), form_(row_form(problem)) {
    lanes_ = use_.lanes;
    blocks_ = ceil_div(p_.batch, lanes_);
    height_ = form_ ? use_.rows : even_part(p_.outs, use_.rows);
    panels_ = ceil_div(p_.outs, height_);
    line_ = rows_.length;
    if (form_) {
      planes_ = form_->planes();
      line_ = p_.out.size[2] = p_.source.size[2] = p_.out.size[2] / form_->outs[1];
      p_.place[2] = {0};
    }
    taps_[0] = size_of(p_.place[0]), taps_[1] = size_of(p_.place[1]), taps_[2] = size_of(p_.place[2]);
    all_taps_ = taps_[0] * taps_[1] * taps_[2];
    part_ = form_ ? p_.ins : channels_at_once(p_, lanes_);
    source_rows_ = p_.source.size[0] * p_.source.size[1];
    channel_ = source_rows_ * line_ * lanes_;
    plane_ = winograd_detail::apart<T>(p_.ins * channel_);
    pixels_ = p_.out.size[0] * p_.out.size[1] * p_.out.size[2];
  }

  void run() {
    ConvScratch weights(p_.groups * panels_ * panel_size() * sizeof(T));
    packed_ = weights.template as<T>();
    pack_weights();
    offsets_ = offsets_of(part_), last_offsets_ = offsets_of((p_.ins - 1) % part_ + 1);
    parallel_for(0, blocks_ * p_.groups, 1, [&](int64_t begin, int64_t end) {
      Room room(*this);
      for (int64_t i = begin; i < end; ++i) work(i / p_.groups * lanes_, i % p_.groups, room);
    });
  }

 private:
  static int64_t size_of(const std::vector<int64_t>& list) { return static_cast<int64_t>(list.size()); }

  int64_t panel_size() const { return planes_ * p_.ins * all_taps_ * height_; }

  // All outputs of a channel, of as many images as there are lanes.
  int64_t out_elements() const { return whole_.out.size[0] * whole_.out.size[1] * whole_.out.size[2] * lanes_; }

  // What a thread needs to work on a block: `planes` and `lines`, a row's sums in all planes, for a form only.
  struct Room {
    explicit Room(const Batched& b)
        : window(b.part_ * b.source_rows_ * b.rows_.length * b.lanes_ * sizeof(T)),
          sums((b.part_ < b.p_.ins ? b.panels_ : 1) * b.height_ * b.out_elements() * sizeof(T)),
          turned(b.p_.out.stride[2] == 1 ? 0 : b.out_elements() * sizeof(T)),
          planes(b.form_ ? b.planes_ * b.plane_ * sizeof(T) : 0),
          lines(b.form_ ? b.planes_ * b.line_plane() * sizeof(T) : 0) {}
    ConvScratch window, sums, turned, planes, lines;
  };
  int64_t line_plane() const { return winograd_detail::apart<T>(height_ * line_ * lanes_); }

  // To [group][panel][part of the channels][tap][channel][height]: a row of taps is one run of K. With a form, to
  // [group][panel][plane][tap along z and y][channel][height].
  void pack_weights() {
    if (form_) return transform_weights();
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

  void transform_weights() {
    const std::vector<int64_t>& places = whole_.place[2];
    const int64_t taps = form_->taps[1], least = *std::min_element(places.begin(), places.end());
    ConvScratch memory(p_.ins * taps * height_ * sizeof(T));
    T* const lined = memory.as<T>();
    T* to = packed_;
    for (int64_t i = 0; i < p_.groups * panels_; ++i, to += (planes_ - 1) * p_.ins * all_taps_ * height_) {
      const int64_t line = i % panels_ * height_, lines = std::min(height_, p_.outs - line);
      const T* const from = p_.weight + i / panels_ * p_.weight_group + line * p_.weight_out;
      for (int64_t z : p_.tap[0]) {
        for (int64_t y : p_.tap[1]) {
          for (int64_t j = 0; j < p_.ins * taps; ++j) {
            const int64_t x = j % taps;
            T* const row = lined + (j - x + places[static_cast<std::size_t>(x)] - least) * height_;
            const T* const source = from + z + y + p_.tap[2][static_cast<std::size_t>(x)] + j / taps * p_.weight_in;
            for (int64_t l = 0; l < height_; ++l) row[l] = l < lines ? source[l * p_.weight_out] : T{0};
          }
          form_->weight(lined, p_.ins, to, p_.ins * all_taps_ * height_);
          to += p_.ins * height_;
        }
      }
    }
  }

  // The rows of a window to planes of tiles.
  void transform(const T* window, T* planes) const {
    const std::vector<int64_t>& places = whole_.place[2];
    const int64_t first = rows_.left + *std::min_element(places.begin(), places.end()), outs = form_->outs[1];
    for (int64_t row = 0; row < p_.ins * source_rows_; ++row) {
      const T* const from = window + (row * rows_.length + first) * lanes_;
      for (int64_t t = 0; t < line_; ++t) {
        form_->source(from + t * outs * lanes_, lanes_, lanes_, planes + (row * line_ + t) * lanes_, plane_);
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
          const int64_t at = ((z * p_.source.size[1] + y) * line_ + x) * lanes_;
          for (int64_t c = 0; c < channels; ++c) offsets.push_back(static_cast<std::int32_t>(at + c * channel_));
        }
      }
    }
    return offsets;
  }

  // Reads channels [channel, channel + count).
  void read(int64_t image, int64_t images, int64_t channel, int64_t count, T* window) const {
    const Images<const T>& s = whole_.source;
    const int64_t width = s.size[2], right = rows_.length - rows_.left - width, rows = s.size[0] * s.size[1];
    const bool whole = rows_.length == width && s.stride[1] == width * s.stride[2] &&
                       (s.size[0] == 1 || s.stride[0] == s.size[1] * s.stride[1]);
    for (int64_t c = 0; c < count; ++c) {
      const T* const from = s.data + image * s.image + (channel + c) * s.channel;
      T* to = window + c * rows * rows_.length * lanes_;
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

  // The sums of a row of outputs, for as many vectors as the tile has at a time.
  void sum_row(ConvBlock<T> block, int64_t channels, int64_t z, int64_t y) const {
    const int64_t width = p_.out.size[2];
    for (int64_t x = 0, count; x < width; x += count, block.right += count, block.sums += count * lanes_) {
      count = ceil_div(width - x, ceil_div(width - x, use_.vectors));
      sum(block, channels, z, y, x, count);
    }
  }

  // The same from planes of tiles; `lines` has room for their sums.
  void sum_tiles(ConvBlock<T> block, int64_t z, int64_t y, T* lines) const {
    T* const to = block.sums;
    const int64_t row = block.sums_stride, outs = form_->outs[1] * lanes_;
    block.sums = lines, block.sums_stride = line_ * lanes_;
    for (int64_t plane = 0; plane < planes_; ++plane) {
      sum_row(block, p_.ins, z, y);
      block.sums += line_plane(), block.right += pixels_, block.left += p_.ins * all_taps_ * height_;
    }
    for (int64_t r = 0; r < block.rows; ++r) {
      for (int64_t t = 0; t < line_; ++t) {
        form_->result(lines + (r * line_ + t) * lanes_, line_plane(), lanes_, to + r * row + t * outs, 0);
      }
    }
  }

  void work(int64_t image, int64_t group, Room& room) const {
    const int64_t images = std::min(lanes_, p_.batch - image);
    const int64_t* const size = p_.out.size;
    const int64_t line_step = out_elements(), row_step = whole_.out.size[2] * lanes_;
    T* const window = room.window.template as<T>();
    const T* const source = form_ ? room.planes.template as<T>() : window;
    std::vector<const T*> right(static_cast<std::size_t>(planes_ * pixels_));
    for (int64_t i = 0; i < planes_ * pixels_; ++i) {
      const int64_t x = i % size[2] * p_.step[2] + (form_ ? 0 : rows_.left), y = i / size[2] % size[1] * p_.step[1];
      const int64_t z = i % pixels_ / (size[1] * size[2]) * p_.step[0];
      const int64_t at = ((z * p_.source.size[1] + y) * line_ + x) * lanes_;
      right[static_cast<std::size_t>(i)] = source + i / pixels_ * plane_ + at;
    }
    ConvBlock<T> block{};
    block.height = height_, block.left_panel = panel_size();
    block.sums_stride = line_step;
    for (int64_t first = 0; first < p_.ins; first += part_) {
      const int64_t channels = std::min(part_, p_.ins - first);
      const bool last = first + channels == p_.ins;
      read(image, images, group * p_.ins + first, channels, window);
      if (form_) transform(window, room.planes.template as<T>());
      block.offsets = last ? last_offsets_.data() : offsets_.data();
      block.add = first > 0;
      for (int64_t panel = 0; panel < panels_; ++panel) {
        block.left = packed_ + (group * panels_ + panel) * panel_size() + first * all_taps_ * height_;
        block.rows = std::min(height_, p_.outs - panel * height_);
        T* const to = room.sums.template as<T>() + (part_ < p_.ins ? panel * height_ * line_step : 0);
        for (int64_t row = 0; row < size[0] * size[1]; ++row) {
          block.right = right.data() + row * size[2], block.sums = to + row * row_step;
          if (form_) sum_tiles(block, row / size[1], row % size[1], room.lines.template as<T>());
          else sum_row(block, channels, row / size[1], row % size[1]);
        }
        if (!last) continue;
        for (int64_t r = 0; r < block.rows; ++r) {
          write(to + r * line_step, image, images, group * p_.outs + panel * height_ + r, room.turned.template as<T>());
        }
      }
    }
  }

  // One channel of the outputs; `turned` has room for it where they do not lie side by side.
  void write(T* sums, int64_t image, int64_t images, int64_t channel, T* turned) const {
    const Images<T>& out = whole_.out;
    const int64_t* const size = out.size;
    const T bias = p_.bias ? p_.bias[channel] : T{0};
    T* const to = out.data + image * out.image + channel * out.channel;
    const auto row_at = [&](int64_t row) { return row / size[1] * out.stride[0] + row % size[1] * out.stride[1]; };
    const int64_t rows = size[0] * size[1], pixels = rows * size[2];
    if (out.stride[2] != 1) {
      use_.copy_channels(sums, lanes_, images, pixels, turned, pixels);
      for (int64_t n = 0; n < images; ++n) {
        for (int64_t row = 0; row < rows; ++row) {
          use_.finish(turned + n * pixels + row * size[2], size[2], bias, p_.relu, to + n * out.image + row_at(row),
                      out.stride[2]);
        }
      }
      return;
    }
    use_.finish(sums, pixels * lanes_, bias, p_.relu, sums, 1);
    if ((size[1] == 1 || out.stride[1] == size[2]) && (size[0] == 1 || out.stride[0] == size[1] * size[2])) {
      return use_.copy_channels(sums, lanes_, images, pixels, to, out.image);
    }
    for (int64_t row = 0; row < rows; ++row) {
      use_.copy_channels(sums + row * size[2] * lanes_, lanes_, images, size[2], to + row_at(row), out.image);
    }
  }

  const Correlation<T>& whole_;
  Correlation<T> p_;  // what is multiplied
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const Rows<T> rows_;
  const WinogradForm<T>* const form_;
  int64_t planes_ = 1, line_;  // vectors in a row
  int64_t lanes_, blocks_, height_, panels_, taps_[3], all_taps_, part_, source_rows_, channel_, plane_, pixels_;
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
template void batched(const Correlation<float>&);

}  // namespace pyframe
