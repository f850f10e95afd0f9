#include "conv.h"

#include <algorithm>
#include <cstring>

#include "conv_batched.h"
#include "conv_table.h"
#include "conv_window.h"
#include "conv_winograd.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// K, all taps of all channels, is summed in parts of about kDepth in registers. A strip of kColumns pixels and what it
// needs of the source for one part lies in the second-level cache. Only kDepth has an effect on the bits of the result.
constexpr int64_t kDepth = 320;
constexpr int64_t kColumns = 400;

// With fewer panels there is too little to do meanwhile for fetching the next window's source to pay.
constexpr int64_t kFetchPanels = 4;

// Multiplications below which a second thread costs more than it saves.
constexpr int64_t kThreadWork = 1 << 18;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// n cut into the fewest parts of at most `most`, as equal as possible: the length of a part.
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

template <class T>
class Sums {
 public:
  explicit Sums(const Correlation<T>& problem) : p_(problem) {
    taps_ = static_cast<int64_t>(p_.place[0].size() * p_.place[1].size() * p_.place[2].size());
    depth_ = p_.ins * taps_;
    pixels_ = p_.out.size[0] * p_.out.size[1] * p_.out.size[2];
    height_ = even_part(p_.outs, use_.rows);
    panels_ = ceil_div(p_.outs, height_);
    if (depth_ == 0) return;
    // Whole channels where a part has room for several.
    part_ = taps_ <= kDepth ? even_part(p_.ins, std::max<int64_t>(1, kDepth / taps_)) * taps_ : even_part(depth_, kDepth);
    channels_ = taps_ <= kDepth ? std::max<int64_t>(1, part_ / taps_) : std::min(p_.ins, part_ / taps_ + 2);
    work_ = p_.batch * p_.groups * p_.outs * pixels_ * depth_;
    direct_ = reads_directly();
    tile_ = use_.vectors * use_.lanes;
  }

  void run() {
    if (p_.batch * p_.outs * p_.groups * pixels_ <= 0) return;
    if (depth_ == 0) return fill_bias();
    ConvScratch weights(p_.groups * panels_ * height_ * depth_ * sizeof(T));
    T* const packed = weights.template as<T>();
    pack_weights(packed);
    const int64_t unit = direct_ && p_.out.size[2] <= kColumns ? p_.out.size[2] : use_.lanes;
    const ConvStrips strips(p_.batch, pixels_, kColumns, unit);
    const int64_t threads = in_parallel() || work_ < 2 * kThreadWork ? 1 : num_threads();
    // Output channels are shared out too where there are few strips; each share then lines up the same patches.
    const int64_t shares = std::min(panels_, ceil_div(2 * threads, strips.count() * p_.groups));
    const int64_t share = threads == 1 ? panels_ : even_part(panels_, ceil_div(panels_, shares));
    const int64_t blocks = ceil_div(panels_, share), tasks = strips.count() * p_.groups * blocks;
    parallel_for(0, tasks, threads == 1 ? tasks : 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, strips, share, packed);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t next = std::min(i + 1, end - 1);
        worker.run(strips.at(i / (p_.groups * blocks)), i / blocks % p_.groups, i % blocks * share,
                   strips.at(next / (p_.groups * blocks)), next / blocks % p_.groups);
      }
    });
  }

 private:
  // Reading the window itself wastes lanes at the end of each row; lining up patches costs about a cycle per piece of
  // a row, and one per vector, that is used for all output channels.
  bool reads_directly() const {
    const int64_t width = p_.out.size[2], lanes = use_.lanes;
    const double vectors = static_cast<double>(ceil_div(width, lanes));
    const double waste = vectors * static_cast<double>(lanes) / static_cast<double>(width) - 1;
    const double pieces = 2.0 + static_cast<double>(lanes) / static_cast<double>(width);
    return width >= lanes / 2 && waste <= pieces / static_cast<double>(p_.outs);
  }

  void fill_bias() {
    const int64_t *const size = p_.out.size, channels = p_.groups * p_.outs;
    const std::vector<T> zeros(static_cast<std::size_t>(size[2]));
    parallel_for(0, p_.batch * channels, std::max<int64_t>(1, (1 << 14) / pixels_), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        T* const to = p_.out.data + i / channels * p_.out.image + i % channels * p_.out.channel;
        for (int64_t z = 0; z < size[0]; ++z) {
          for (int64_t y = 0; y < size[1]; ++y) {
            use_.finish(zeros.data(), size[2], p_.bias ? p_.bias[i % channels] : T{0}, p_.relu,
                        to + z * p_.out.stride[0] + y * p_.out.stride[1], p_.out.stride[2]);
          }
        }
      }
    });
  }

  // Panels of weights [group][panel][k][height] with k = channel * taps + tap.
  void pack_weights(T* packed) const {
    std::vector<int64_t> tap;
    tap.reserve(static_cast<std::size_t>(taps_));
    bool natural = p_.weight_in == taps_;
    for (int64_t z : p_.tap[0]) {
      for (int64_t y : p_.tap[1]) {
        for (int64_t x : p_.tap[2]) {
          natural = natural && z + y + x == static_cast<int64_t>(tap.size());
          tap.push_back(z + y + x);
        }
      }
    }
    const int64_t grain = std::max<int64_t>(1, (1 << 15) / (height_ * depth_));
    parallel_for(0, p_.groups * panels_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t line = i % panels_ * height_, lines = std::min(height_, p_.outs - line);
        const T* const from = p_.weight + i / panels_ * p_.weight_group + line * p_.weight_out;
        T* to = packed + i * height_ * depth_;
        if (natural) {
          use_.pack_lines(from, p_.weight_out, lines, depth_, height_, to);
        } else if (taps_ == 1) {
          use_.transpose(from + tap[0], p_.weight_out, p_.weight_in, lines, depth_, to, height_);
        } else {
          for (int64_t c = 0; c < p_.ins; ++c) {
            for (int64_t t = 0; t < taps_; ++t, to += height_) {
              const T* const source = from + c * p_.weight_in + tap[static_cast<std::size_t>(t)];
              for (int64_t l = 0; l < lines; ++l) to[l] = source[l * p_.weight_out];
              for (int64_t l = lines; l < height_; ++l) to[l] = 0;
            }
          }
        }
      }
    });
  }

  // What one thread needs to work on strips.
  class Worker {
   public:
    Worker(const Sums& sums, const ConvStrips& strips, int64_t share, const T* weights)
        : s_(sums), p_(sums.p_), share_(share), weights_(weights),
          columns_(most_columns(strips)),
          window_(p_, s_.channels_, strips.longest(), strips.images(),
                  p_.source.stride[2] * p_.step[2] == 1 && (!s_.direct_ || p_.out.size[2] % s_.use_.lanes == 0)),
          packed_(s_.direct_ ? 0 : (ceil_div(columns_, s_.tile_) * s_.tile_ * s_.part_ + s_.tile_) * sizeof(T)),
          sums_memory_((s_.depth_ > s_.part_ ? share * s_.height_ : s_.height_) * columns_ * sizeof(T)) {
      offsets_.resize(static_cast<std::size_t>(s_.part_));
      if (!s_.direct_) {
        panel_offsets_.resize(static_cast<std::size_t>(s_.part_));
        for (int64_t k = 0; k < s_.part_; ++k) panel_offsets_[k] = static_cast<std::int32_t>(k * s_.tile_);
      }
      right_.resize(static_cast<std::size_t>(columns_ / s_.use_.lanes));
    }

    // Panels [first, first + share) of a group's output channels. What is worked on after it is already fetched.
    void run(const ConvStrip& strip, int64_t group, int64_t first, const ConvStrip& next, int64_t next_group) {
      window_.move_to(strip);
      find_pieces(strip);
      const int64_t last = std::min(s_.panels_, first + share_);
      const bool several = s_.depth_ > s_.part_;
      T* const sums = sums_memory_.template as<T>();
      ConvBlock<T> block{};
      block.height = s_.height_, block.left_panel = s_.height_ * s_.depth_;
      block.sums_stride = columns_;
      block.vectors = static_cast<int64_t>(ceil_div(used_, s_.use_.lanes));
      block.right = right_.data();
      for (int64_t k = 0; k < s_.depth_; k += s_.part_) {
        block.depth = std::min(s_.part_, s_.depth_ - k);
        const int64_t channel = k / s_.taps_;
        window_.read(group, channel, (k + block.depth - 1) / s_.taps_ - channel + 1);
        set_offsets(k - channel * s_.taps_, block.depth);
        line_up(block.depth);
        block.offsets = s_.direct_ ? offsets_.data() : panel_offsets_.data();
        block.add = k > 0;
        const bool more = k + block.depth < s_.depth_;
        const int64_t next_k = more ? k + block.depth : 0, next_channel = next_k / s_.taps_;
        const int64_t next_end = (std::min(next_k + s_.part_, s_.depth_) - 1) / s_.taps_ + 1;
        for (int64_t panel = first; panel < last; ++panel) {
          if (last - first >= kFetchPanels) {
            const int64_t ahead = next_end - next_channel, from = next_channel + ahead * (panel - first) / (last - first);
            const int64_t to = next_channel + ahead * (panel - first + 1) / (last - first);
            window_.fetch(more ? strip : next, more ? group : next_group, from, to - from);
          }
          const int64_t line = panel * s_.height_;
          block.rows = std::min(s_.height_, p_.outs - line);
          block.left = weights_ + (group * s_.panels_ + panel) * block.left_panel + k * s_.height_;
          block.sums = several ? sums + (panel - first) * s_.height_ * columns_ : sums;
          if (k + block.depth == s_.depth_) fetch_outputs(strip, group * p_.outs + line, block.rows);
          s_.use_.multiply(block);
          if (k + block.depth == s_.depth_) finish(strip, group, line, block.rows, block.sums);
        }
      }
    }

   private:
    // Room for the columns of a strip: pixels, or whole vectors per piece of a row.
    int64_t most_columns(const ConvStrips& strips) const {
      const int64_t lanes = s_.use_.lanes, width = p_.out.size[2], longest = strips.longest();
      if (!s_.direct_) return ceil_div(longest, lanes) * lanes;
      return (longest / width + 2) * ceil_div(width, lanes) * lanes;
    }

    void find_pieces(const ConvStrip& strip) {
      pieces_.clear();
      used_ = 0;
      for (int64_t n = 0; n < strip.images; ++n) {
        window_.each_row(n, [&](int64_t, int64_t offset, int64_t count) {
          if (!s_.direct_ && !pieces_.empty() && pieces_.back().from + pieces_.back().count == offset) {
            pieces_.back().count += count;
          } else {
            pieces_.push_back({offset, used_, count});
          }
          used_ += s_.direct_ ? ceil_div(count, s_.use_.lanes) * s_.use_.lanes : count;
        });
      }
      if (!window_.in_place() || s_.direct_) return;
      split_.clear();  // at the panels' borders, with places in the packed panels for columns
      for (const ConvPiece& piece : pieces_) {
        for (int64_t i = 0; i < piece.count;) {
          const int64_t column = piece.column + i, inside = column % s_.tile_;
          const int64_t count = std::min(piece.count - i, s_.tile_ - inside);
          split_.push_back({piece.from + i, (column - inside) * s_.part_ + inside, count});
          i += count;
        }
      }
    }

    void set_offsets(int64_t tap, int64_t depth) {
      int64_t channel = 0;
      for (int64_t k = 0; k < depth; ++k) {
        offsets_[k] = window_.tap(tap) + static_cast<std::int32_t>(channel);
        if (++tap == s_.taps_) tap = 0, channel += window_.channel();
      }
    }

    // Points right_ at each vector of the columns, after packing them where that is the way.
    void line_up(int64_t depth) {
      const int64_t lanes = s_.use_.lanes, tile = s_.tile_;
      if (s_.direct_) {
        for (const ConvPiece& piece : pieces_) {
          for (int64_t i = 0; i < piece.count; i += lanes) {
            right_[(piece.column + i) / lanes] = window_.data() + piece.from + i;
          }
        }
        return;
      }
      T* const packed = packed_.template as<T>();
      for (int64_t column = 0; column < used_; column += lanes) {
        right_[column / lanes] = packed + column / tile * tile * s_.part_ + column % tile;
      }
      if (window_.in_place()) {  // all panels at once: long rows of the source are read from front to back
        s_.use_.pack(window_.data(), offsets_.data(), depth, split_.data(), static_cast<int64_t>(split_.size()), 0, true,
                     packed, tile);
        return;
      }
      std::size_t at = 0;
      for (int64_t column = 0; column < used_; column += tile) {
        // The pieces of this panel.
        ConvPiece here[64];
        int64_t count = 0;
        const int64_t end = std::min(used_, column + tile);
        for (; at < pieces_.size(); ++at) {
          const ConvPiece& piece = pieces_[at];
          const int64_t begin = std::max(piece.column, column), stop = std::min(piece.column + piece.count, end);
          if (begin >= stop) break;
          here[count++] = {piece.from + begin - piece.column, begin - column, stop - begin};
          if (piece.column + piece.count > end) break;
        }
        T* const panel = packed + column * s_.part_;
        s_.use_.pack(window_.data(), offsets_.data(), depth, here, count, end - column, false, panel, tile);
      }
    }

    // Outputs are on their way from memory while they are computed.
    void fetch_outputs(const ConvStrip& strip, int64_t channel, int64_t rows) const {
      const Images<T>& out = p_.out;
      if (!dense_rows() || strip.images > 1) return;
      constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
      for (int64_t r = 0; r < rows; ++r) {
        T* const to = out.data + strip.image * out.image + (channel + r) * out.channel + strip.first;
        for (int64_t i = 0; i < strip.count; i += kLine) __builtin_prefetch(to + i, 1);
      }
    }

    // Whether all pixels of an output channel follow each other.
    bool dense_rows() const {
      const Images<T>& out = p_.out;
      const int64_t* const size = out.size;
      return out.stride[2] == 1 && (out.stride[1] == size[2] || size[1] == 1) &&
             (out.stride[0] == size[1] * size[2] || size[0] == 1);
    }

    void finish(const ConvStrip& strip, int64_t group, int64_t line, int64_t rows, const T* sums) const {
      const Images<T>& out = p_.out;
      const int64_t* const size = out.size;
      const bool together = dense_rows() && !s_.direct_;
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t channel = group * p_.outs + line + r;
        const T bias = p_.bias ? p_.bias[channel] : T{0};
        const T* from = sums + r * columns_;
        for (int64_t n = 0; n < strip.images; ++n) {
          T* const to = out.data + (strip.image + n) * out.image + channel * out.channel;
          if (together) {
            s_.use_.finish(from, strip.count, bias, p_.relu, to + strip.first, 1);
            from += strip.count;
            continue;
          }
          for (int64_t pixel = strip.first, end = strip.first + strip.count; pixel < end;) {
            const int64_t x = pixel % size[2], row = pixel / size[2];
            const int64_t count = std::min(size[2] - x, end - pixel);
            s_.use_.finish(from, count, bias, p_.relu,
                           to + row / size[1] * out.stride[0] + row % size[1] * out.stride[1] + x * out.stride[2],
                           out.stride[2]);
            from += s_.direct_ ? ceil_div(count, s_.use_.lanes) * s_.use_.lanes : count;
            pixel += count;
          }
        }
      }
    }

    const Sums& s_;
    const Correlation<T>& p_;
    const int64_t share_;
    const T* const weights_;
    const int64_t columns_;
    int64_t used_ = 0;
    ConvWindow<T> window_;
    ConvScratch packed_, sums_memory_;
    std::vector<std::int32_t> offsets_, panel_offsets_;
    std::vector<const T*> right_;
    std::vector<ConvPiece> pieces_, split_;
  };

  const Correlation<T>& p_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  int64_t taps_, depth_, pixels_, height_, panels_, part_, channels_, work_, tile_;
  bool direct_;
};

template <class T>
void choose(const Correlation<T>& problem) {
  if (const WinogradForm<T>* const form = winograd_form(problem)) return winograd(problem, *form);
  if constexpr (sizeof(T) == sizeof(float)) {  // rare in float64
    if (fits_batched(problem)) return batched(problem);
  }
  Sums<T>(problem).run();
}

}  // namespace

void correlate(const Correlation<float>& problem) { choose(problem); }
void correlate(const Correlation<double>& problem) { choose(problem); }

}  // namespace pyframe
