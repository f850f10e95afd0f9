// The tiles of outputs that minimal filtering works on, and reading what they see of the source.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "conv_table.h"
#include "conv_window.h"

namespace pyframe {
namespace winograd_detail {

using std::int64_t;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

// The planes of a tile are written and read side by side: a distance of an odd number of cache lines keeps them apart
// in the caches, where multiples of 4 KB would all fall into the same few places.
template <class T>
constexpr int64_t apart(int64_t elements) {
  constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
  return (elements + line - 1) / line / 2 * 2 * line + 3 * line;
}

// Whether these are so many places, in any order, `gap` apart.
inline bool consecutive(const std::vector<int64_t>& place, int64_t taps, int64_t gap) {
  if (static_cast<int64_t>(place.size()) != taps) return false;
  const int64_t least = *std::min_element(place.begin(), place.end());
  std::uint64_t seen = 0;
  for (int64_t at : place) {
    if ((at - least) % gap == 0 && at - least < taps * gap) seen |= std::uint64_t{1} << (at - least) / gap;
  }
  return seen == (std::uint64_t{1} << taps) - 1;
}

// The weights' taps within a plane of the kernel, for places in ascending order, `gap` apart along x.
template <class T>
std::vector<int64_t> taps_in_order(const Correlation<T>& p, int64_t gap) {
  const std::vector<int64_t>&y = p.place[1], &x = p.place[2];
  const int64_t first_y = *std::min_element(y.begin(), y.end()), first_x = *std::min_element(x.begin(), x.end());
  std::vector<int64_t> taps(y.size() * x.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    for (std::size_t j = 0; j < x.size(); ++j) {
      taps[static_cast<std::size_t>((y[i] - first_y) * static_cast<int64_t>(x.size()) + (x[j] - first_x) / gap)] =
          p.tap[1][i] + p.tap[2][j];
    }
  }
  return taps;
}

// Reads the source values of tiles channel by channel: where the rows lie, or from rows copied together where their
// elements lie apart.
template <class T>
class TileReader {
 public:
  // `tiles`: of an image, in each dimension; the values of one are written `width` apart.
  TileReader(const Correlation<T>& p, const WinogradForm<T>& form, const int64_t* tiles, int64_t width)
      : p_(p), form_(form), tiles_(tiles), deep_(static_cast<int64_t>(p.place[0].size())), width_(width),
        in_place_(p.source.stride[2] == 1 || p.source.size[2] == 1) {
    for (int d = 1; d < 3; ++d) first_[d] = *std::min_element(p.place[d].begin(), p.place[d].end());
  }

  // Tiles [first, first + count) of all images.
  void move_to(int64_t first, int64_t count) {
    const Images<const T>& s = p_.source;
    runs_.clear(), rows_.clear(), lines_.clear();
    const int64_t reach = form_.reach[0];
    for (int64_t at = first, end = first + count, some; at < end; at += some) {
      const int64_t x = at % tiles_[2], row = at / tiles_[2], y = row % tiles_[1], plane = row / tiles_[1];
      some = std::min(tiles_[2] - x, end - at);
      runs_.push_back({nullptr, x * form_.outs[1] * form_.step[1] + first_[2], at - first, some});
      for (int64_t place : p_.place[0]) {
        const int64_t z = plane % tiles_[0] * p_.step[0] + place;
        for (int64_t i = 0; i < reach; ++i) {
          const int64_t sy = y * form_.outs[0] * form_.step[0] + first_[1] + i;
          const bool inside = z >= 0 && z < s.size[0] && sy >= 0 && sy < s.size[1];
          rows_.push_back(inside ? plane / tiles_[0] * s.image + z * s.stride[0] + sy * s.stride[1] : kNoRow);
        }
      }
    }
    for (std::size_t r = 0; r < runs_.size(); ++r) runs_[r].rows = rows_.data() + static_cast<int64_t>(r) * deep_ * reach;
    if (!in_place_) number_lines();
  }

  // Channels [first, first + count) of the group.
  void read(int64_t group, int64_t first, int64_t count) {
    const Images<const T>& s = p_.source;
    data_ = s.data + (group * p_.ins + first) * s.channel, channel_ = s.channel;
    if (in_place_) return;
    const int64_t width = s.size[2], lines = static_cast<int64_t>(lines_.size());
    const int64_t bytes = (count * lines * width + 64) * static_cast<int64_t>(sizeof(T));  // whole vectors are written
    if (bytes > room_) copied_.emplace(room_ = bytes);
    T* const copied = copied_->template as<T>();
    for (int64_t i = 0; i < lines && s.channel == 1; ++i) {
      use_.copy_channels(data_ + lines_[static_cast<std::size_t>(i)], s.stride[2], count, width, copied + i * width,
                         lines * width);
    }
    T* to = copied;
    for (int64_t c = 0; c < count && s.channel != 1; ++c) {
      for (int64_t line : lines_) {
        use_.fill_row(data_ + c * s.channel + line, s.stride[2], 0, width, width, to);
        to += width;
      }
    }
    data_ = copied, channel_ = lines * width;
  }

  // Channel c of those read, through one tap of the depth: to[value][width].
  void tiles(int64_t c, int64_t tap, T* to) const {
    form_.read(data_ + c * channel_, runs_.data(), static_cast<int64_t>(runs_.size()), tap * form_.reach[0],
               p_.source.size[2], to, width_);
  }

 private:
  // Each row that is read gets a place among the copied ones.
  void number_lines() {
    for (int64_t row : rows_) {
      if (row != kNoRow) lines_.push_back(row);
    }
    std::sort(lines_.begin(), lines_.end());
    lines_.erase(std::unique(lines_.begin(), lines_.end()), lines_.end());
    for (int64_t& row : rows_) {
      if (row == kNoRow) continue;
      row = (std::lower_bound(lines_.begin(), lines_.end(), row) - lines_.begin()) * p_.source.size[2];
    }
  }

  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const Correlation<T>& p_;
  const WinogradForm<T>& form_;
  const int64_t* const tiles_;
  const int64_t deep_, width_;
  const bool in_place_;
  int64_t first_[3] = {0, 0, 0};
  std::vector<TileRun> runs_;
  std::vector<int64_t> rows_, lines_;
  std::optional<ConvScratch> copied_;
  int64_t room_ = 0;
  const T* data_ = nullptr;
  int64_t channel_ = 0;
};

// The tiles of a form, and what they see of images: `reach` values along y and x, `apart` from tile to tile. Every
// `gap`th column being a line of its own, a row's tiles are those of the first line, then those of the next ones.
struct TileGrid {
  int64_t size[3], first[3], step;  // tiles; the first index that tile 0 sees; between source planes
  int64_t apart[2], reach[2], gap;

  int64_t line() const { return size[2] / gap; }  // tiles
};

// The grid of the source.
template <class T>
TileGrid tile_grid(const Correlation<T>& p, const WinogradForm<T>& form) {
  TileGrid grid{};
  grid.size[0] = p.out.size[0], grid.first[0] = p.place[0][0], grid.step = p.step[0];
  grid.gap = form.gap;
  for (int d = 1; d < 3; ++d) {
    const int64_t lines = d == 2 ? form.gap : 1, outs = form.outs[d - 1];
    grid.size[d] = ceil_div(ceil_div(p.out.size[d], lines), outs) * lines;
    grid.first[d] = *std::min_element(p.place[d].begin(), p.place[d].end());
    grid.apart[d - 1] = outs * form.step[d - 1], grid.reach[d - 1] = form.reach[d - 1];
  }
  return grid;
}

// The same tiles on the outputs.
template <class T>
TileGrid output_grid(TileGrid grid, const WinogradForm<T>& form) {
  grid.first[0] = grid.first[1] = grid.first[2] = 0, grid.step = 1;
  for (int d = 0; d < 2; ++d) grid.apart[d] = grid.reach[d] = form.outs[d];
  return grid;
}

// The pixels that the tiles of a strip see, with one vector of channels side by side and zeros around the image. Strips
// are of whole rows where there are gaps.
template <class T>
class TilePixels {
 public:
  TilePixels(const Images<const T>& images, const TileGrid& grid, const ConvStrips& strips)
      : images_(images), grid_(grid), pixels_(room(strips, false)), staged_(room(strips, true)) {}

  void move_to(const ConvStrip& strip) {
    strip_ = strip;
    const int64_t *const size = grid_.size, last = strip.first + strip.count - 1, area = size[1] * size[2];
    const int64_t row = strip.first / size[2], last_row = last / size[2];
    z_ = strip.first / area, planes_ = last / area - z_ + 1;
    y_ = planes_ > 1 ? 0 : row % size[1];
    rows_ = grid_.apart[0] * ((planes_ > 1 ? size[1] : last_row - row + 1) - 1) + grid_.reach[0];
    x_ = row == last_row ? strip.first % size[2] : 0;
    const int64_t tiles = (row == last_row ? strip.count : size[2]) / grid_.gap;
    columns_ = (grid_.apart[1] * (tiles - 1) + grid_.reach[1]) * grid_.gap;
  }

  // Elements from one row of pixels to the next.
  int64_t row() const { return columns_ * lanes_; }
  int64_t pixel() const { return grid_.gap * lanes_; }

  // Reads channels [channel, channel + count), so many planes deeper; the other lanes become zeros.
  void read(int64_t channel, int64_t count, int64_t deeper = 0) {
    T* to = pixels_.template as<T>();
    const int64_t x = grid_.apart[1] * x_ + grid_.first[2], before = std::min(columns_, std::max<int64_t>(0, -x));
    const int64_t inside = std::max<int64_t>(0, std::min(columns_, images_.size[2] - x) - before);
    const int64_t y = grid_.apart[0] * y_ + grid_.first[1], top = std::min(rows_, std::max<int64_t>(0, -y));
    const int64_t lines = std::max<int64_t>(0, std::min(rows_, images_.size[1] - y) - top);
    // Short rows that lie one after the other are read as one.
    const int64_t width = images_.size[2];
    const bool staged = short_rows();
    for (int64_t n = 0; n < strip_.images; ++n) {
      for (int64_t p = 0; p < planes_; ++p) {
        const int64_t z = (z_ + p) * grid_.step + grid_.first[0] + deeper;
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

  // Starts to bring what `read` will read from memory, where rows follow each other.
  void fetch(int64_t channel, int64_t count) const {
    const int64_t width = images_.size[2], y = std::max<int64_t>(0, grid_.apart[0] * y_ + grid_.first[1]);
    if (planes_ > 1 || images_.stride[2] != 1 || images_.stride[1] != width) return;
    const int64_t z = z_ * grid_.step + grid_.first[0], lines = std::min(rows_, images_.size[1] - y);
    if (z < 0 || z >= images_.size[0]) return;
    const T* const from = images_.data + strip_.image * images_.image + z * images_.stride[0] + y * width;
    for (int64_t n = 0; n < strip_.images; ++n) {
      for (int64_t c = channel; c < channel + count; ++c) {
        fetch_run(from + n * images_.image + c * images_.channel, lines * width);
      }
    }
  }

  // Calls run(first pixel, count) for tiles of a line, in the order of the strip. Neighbours in it lie pixel() apart.
  template <class Run>
  void each_run(Run run) {
    const int64_t *const size = grid_.size, area = size[1] * size[2], length = grid_.line();
    for (int64_t n = 0; n < strip_.images; ++n) {
      for (int64_t at = strip_.first, end = strip_.first + strip_.count, count; at < end; at += count) {
        const int64_t x = at % size[2], y = at / size[2] % size[1], z = at / area;
        count = std::min(length - x % length, end - at);
        const int64_t row_at = (n * planes_ + z - z_) * rows_ + grid_.apart[0] * (y - y_);
        const int64_t column = grid_.apart[1] * (x % length - x_) * grid_.gap + x / length;
        run(pixels_.template as<T>() + row_at * row() + column * lanes_, count);
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
  const TileGrid grid_;
  ConvStrip strip_{};
  int64_t z_ = 0, planes_ = 0, y_ = 0, rows_ = 0, x_ = 0, columns_ = 0;
  ConvScratch pixels_, staged_;
};

}  // namespace winograd_detail
}  // namespace pyframe
