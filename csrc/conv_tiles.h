// The 2×2 tiles of outputs that Winograd's transforms work on, and reading what they see of the source.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "conv_table.h"
#include "conv_window.h"

namespace pyframe {
namespace winograd_detail {

using std::int64_t;

constexpr int64_t kPlanes = 16;  // numbers of a transformed tile

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

// The planes of a tile are written and read side by side: a distance of an odd number of cache lines keeps them apart
// in the caches, where multiples of 4 KB would all fall into the same few places.
template <class T>
constexpr int64_t apart(int64_t elements) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  return (elements + line - 1) / line / 2 * 2 * line + 3 * line;
}

// The least of three consecutive places, in any order; false for anything else.
inline bool consecutive(const std::vector<int64_t>& place, int64_t* least) {
  if (place.size() != 3) return false;
  *least = std::min({place[0], place[1], place[2]});
  return std::max({place[0], place[1], place[2]}) == *least + 2 && place[0] != place[1] && place[1] != place[2] &&
         place[0] != place[2];
}

// The problem of reading 4×4 source values per 2×2 tile of outputs.
template <class T>
Correlation<T> source_tiles(const Correlation<T>& p) {
  Correlation<T> t;
  t.batch = p.batch, t.groups = p.groups, t.outs = p.outs, t.ins = p.ins;
  t.source = p.source;
  t.out = p.out;
  t.place[0] = p.place[0];
  t.step[0] = p.step[0];
  for (int d = 1; d < 3; ++d) {
    int64_t first = 0;
    consecutive(p.place[d], &first);
    t.step[d] = 2;
    t.out.size[d] = ceil_div(p.out.size[d], 2);
    for (int64_t i = 0; i < 4; ++i) t.place[d].push_back(first + i);
  }
  return t;
}

// The tiles of a strip and where their values lie in a window; reads them channel by channel.
template <class T>
class TileReader {
 public:
  TileReader(const Correlation<T>& tiles, int64_t channels, const ConvStrips& strips, int64_t width)
      : window_(tiles, channels, strips.longest(), strips.images(), false), width_(width),
        taps_(static_cast<std::size_t>(window_.taps())) {}

  void move_to(const ConvStrip& strip) {
    window_.move_to(strip);
    pieces_.clear();
    columns_ = 0;
    for (int64_t n = 0; n < strip.images; ++n) {
      window_.each_row(n, [&](int64_t, int64_t offset, int64_t count) {
        pieces_.push_back({offset, columns_, count});
        columns_ += count;
      });
    }
    for (std::size_t t = 0; t < taps_.size(); ++t) taps_[t] = window_.tap(static_cast<int64_t>(t));
  }
  void read(int64_t group, int64_t first, int64_t count) { window_.read(group, first, count); }
  // Channel c of those read: to[tap * width + tile].
  void tiles(int64_t c, T* to) const {
    use_.pack(window_.data() + c * window_.channel(), taps_.data(), static_cast<int64_t>(taps_.size()), pieces_.data(),
              static_cast<int64_t>(pieces_.size()), columns_, false, to, width_);
  }
  int64_t columns() const { return columns_; }

 private:
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  ConvWindow<T> window_;
  const int64_t width_;
  int64_t columns_ = 0;
  std::vector<ConvPiece> pieces_;
  std::vector<std::int32_t> taps_;
};

// The 2×2 tiles of all outputs, and the source index that the first value of tile 0 has in each dimension.
struct TileGrid {
  int64_t size[3], first[3], step;  // `step`: between source planes
};

template <class T>
TileGrid tile_grid(const Correlation<T>& p) {
  TileGrid grid{};
  grid.size[0] = p.out.size[0], grid.first[0] = p.place[0][0], grid.step = p.step[0];
  for (int d = 1; d < 3; ++d) {
    grid.size[d] = ceil_div(p.out.size[d], 2);
    consecutive(p.place[d], &grid.first[d]);
  }
  return grid;
}

// The pixels that the tiles of a strip see, with one vector of channels side by side and zeros around the image.
template <class T>
class TilePixels {
 public:
  // Tiles are 2 apart and `taps` wide: 4 for the source, 2 for the outputs, which start with tile 0.
  TilePixels(const Images<const T>& images, const TileGrid& grid, int64_t taps, const ConvStrips& strips)
      : images_(images), grid_(grid), taps_(taps), pixels_(room(strips, false)), staged_(room(strips, true)) {
    if (taps == 2) grid_.first[0] = grid_.first[1] = grid_.first[2] = 0, grid_.step = 1;
  }

  void move_to(const ConvStrip& strip) {
    strip_ = strip;
    const int64_t *const size = grid_.size, last = strip.first + strip.count - 1, area = size[1] * size[2];
    const int64_t row = strip.first / size[2], last_row = last / size[2];
    z_ = strip.first / area, planes_ = last / area - z_ + 1;
    y_ = planes_ > 1 ? 0 : row % size[1];
    rows_ = 2 * ((planes_ > 1 ? size[1] : last_row - row + 1) - 1) + taps_;
    x_ = row == last_row ? strip.first % size[2] : 0;
    columns_ = 2 * ((row == last_row ? strip.count : size[2]) - 1) + taps_;
  }

  // Elements from one row of pixels to the next.
  int64_t row() const { return columns_ * lanes_; }

  // Reads channels [channel, channel + count); the other lanes become zeros.
  void read(int64_t channel, int64_t count) {
    T* to = pixels_.template as<T>();
    const int64_t x = 2 * x_ + grid_.first[2], before = std::min(columns_, std::max<int64_t>(0, -x));
    const int64_t inside = std::max<int64_t>(0, std::min(columns_, images_.size[2] - x) - before);
    const int64_t y = 2 * y_ + grid_.first[1], top = std::min(rows_, std::max<int64_t>(0, -y));
    const int64_t lines = std::max<int64_t>(0, std::min(rows_, images_.size[1] - y) - top);
    // Short rows that lie one after the other are read as one.
    const int64_t width = images_.size[2];
    const bool staged = short_rows();
    for (int64_t n = 0; n < strip_.images; ++n) {
      for (int64_t p = 0; p < planes_; ++p) {
        const int64_t z = (z_ + p) * grid_.step + grid_.first[0];
        const bool here = z >= 0 && z < images_.size[0] && inside > 0 && lines > 0;
        const T* from = images_.data + (strip_.image + n) * images_.image + channel * images_.channel +
                        z * images_.stride[0] + (y + top) * images_.stride[1];
        T* stage = staged_.template as<T>();
        if (here && staged) {
          use_.transpose(from, images_.channel, images_.stride[2], count, lines * width, stage, lanes_);
        }
        stage += (x + before) * lanes_, from += (x + before) * images_.stride[2];
        for (int64_t r = 0; r < rows_; ++r, to += row()) {
          if (!here || r < top || r >= top + lines) {
            fill(to, columns_);
            continue;
          }
          fill(to, before);
          if (staged) std::memcpy(static_cast<void*>(to + before * lanes_), stage, inside * lanes_ * sizeof(T));
          else use_.transpose(from, images_.channel, images_.stride[2], count, inside, to + before * lanes_, lanes_);
          fill(to + (before + inside) * lanes_, columns_ - before - inside);
          stage += width * lanes_, from += images_.stride[1];
        }
      }
    }
  }

  // Calls run(first pixel, count) for tiles side by side, in the order of the strip.
  template <class Run>
  void each_run(Run run) {
    const int64_t *const size = grid_.size, area = size[1] * size[2];
    for (int64_t n = 0; n < strip_.images; ++n) {
      for (int64_t at = strip_.first, end = strip_.first + strip_.count, count; at < end; at += count) {
        const int64_t x = at % size[2], y = at / size[2] % size[1], z = at / area;
        count = std::min(size[2] - x, end - at);
        const int64_t line = (n * planes_ + z - z_) * rows_ + 2 * (y - y_);
        run(pixels_.template as<T>() + line * row() + 2 * (x - x_) * lanes_, count);
      }
    }
  }

 private:
  void fill(T* to, int64_t pixels) const { std::memset(static_cast<void*>(to), 0, pixels * lanes_ * sizeof(T)); }

  bool short_rows() const {
    return images_.stride[1] == images_.size[2] * images_.stride[2] && images_.size[2] < 4 * lanes_;
  }

  // Bytes for any strip's pixels, or for the rows of one of its images as they are read.
  int64_t room(const ConvStrips& strips, bool staged) {
    if (staged && !short_rows()) return 0;
    int64_t most = 0;
    for (int64_t i = 0; i < strips.count(); ++i) {
      move_to(strips.at(i));
      most = std::max(most, rows_ * (staged ? images_.size[2] : strip_.images * planes_ * columns_));
    }
    return most * lanes_ * static_cast<int64_t>(sizeof(T));
  }

  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const int64_t lanes_ = use_.lanes;
  const Images<const T> images_;
  TileGrid grid_;
  const int64_t taps_;
  ConvStrip strip_{};
  int64_t z_ = 0, planes_ = 0, y_ = 0, rows_ = 0, x_ = 0, columns_ = 0;
  ConvScratch pixels_, staged_;
};

}  // namespace winograd_detail
}  // namespace pyframe
