// The 2×2 tiles of outputs that Winograd's transforms work on, and reading what they see of the source.
#pragma once

#include <algorithm>
#include <cstdint>
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

// The problem of reading `taps`×`taps` values per 2×2 tile of outputs, from `first` on.
template <class T>
Correlation<T> tiles_of(const Correlation<T>& p, const Images<const T>& source, int64_t ins, int64_t taps,
                        const int64_t* first, bool with_depth) {
  Correlation<T> t;
  t.batch = p.batch, t.groups = p.groups, t.outs = p.outs, t.ins = ins;
  t.source = source;
  t.out = p.out;
  t.place[0] = {with_depth ? p.place[0][0] : 0};
  t.step[0] = with_depth ? p.step[0] : 1;
  for (int d = 1; d < 3; ++d) {
    t.step[d] = 2;
    t.out.size[d] = ceil_div(p.out.size[d], 2);
    for (int64_t i = 0; i < taps; ++i) t.place[d].push_back(first[d] + i);
  }
  return t;
}

template <class T>
Correlation<T> source_tiles(const Correlation<T>& p) {
  int64_t first[3] = {0, 0, 0};
  for (int d = 1; d < 3; ++d) consecutive(p.place[d], &first[d]);
  return tiles_of(p, p.source, p.ins, 4, first, true);
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

}  // namespace winograd_detail
}  // namespace pyframe
