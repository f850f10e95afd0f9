#include "conv_winograd.h"

#include <algorithm>

#include "conv_table.h"
#include "conv_tiles.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using namespace winograd_detail;

constexpr int64_t kTiles = 48;     // 2×2 tiles of outputs in a strip
constexpr int64_t kChannels = 128;  // summed in registers
constexpr int64_t kOuts = 256;      // output channels of a block
constexpr int64_t kThreadWork = 1 << 18;

template <class T>
class Winograd {
 public:
  explicit Winograd(const Correlation<T>& problem) : p_(problem), tiles_(source_tiles(problem)) {
    rows_ = use_.rows;
    width_ = use_.vectors * use_.lanes * std::max<int64_t>(1, kTiles / (use_.vectors * use_.lanes));
    panels_ = ceil_div(p_.outs, rows_);
    part_ = even_part(p_.ins, kChannels);
    pixels_ = tiles_.out.size[0] * tiles_.out.size[1] * tiles_.out.size[2];
  }

  void run() {
    ConvScratch weights(p_.groups * kPlanes * plane() * sizeof(T));
    T* const packed = weights.template as<T>();
    const int64_t work = p_.batch * p_.groups * p_.outs * p_.ins * pixels_ * kPlanes;
    const int64_t threads = in_parallel() || work < 2 * kThreadWork ? 1 : num_threads();
    transform_weights(packed, threads > 1);
    const ConvStrips strips(p_.batch, pixels_, width_, use_.lanes);
    const int64_t shares = std::min(panels_, ceil_div(2 * threads, strips.count() * p_.groups));
    const int64_t most = std::max<int64_t>(1, kOuts / rows_);
    const int64_t share = even_part(panels_, threads == 1 ? most : std::min(most, ceil_div(panels_, shares)));
    const int64_t blocks = ceil_div(panels_, share), tasks = strips.count() * p_.groups * blocks;
    parallel_for(0, tasks, threads == 1 ? tasks : 1, [&](int64_t begin, int64_t end) {
      Worker worker(*this, strips, share, packed);
      for (int64_t i = begin; i < end; ++i) {
        worker.run(strips.at(i / (p_.groups * blocks)), i / blocks % p_.groups, i % blocks * share);
      }
    });
  }

 private:
  int64_t plane() const { return apart<T>(panels_ * p_.ins * rows_); }  // of the transformed weights

  // To [group][plane][part of the channels][panel][channel][rows], the order in which they are read.
  void transform_weights(T* packed, bool threaded) const {
    int64_t tap[9];
    int64_t least[3] = {0, 0, 0};
    for (int d = 1; d < 3; ++d) consecutive(p_.place[d], &least[d]);
    for (int i = 0; i < 9; ++i) {
      const int64_t y = p_.place[1][i / 3] - least[1], x = p_.place[2][i % 3] - least[2];
      tap[3 * y + x] = p_.tap[0][0] + p_.tap[1][i / 3] + p_.tap[2][i % 3];
    }
    bool natural = p_.weight_in == 9;
    for (int i = 0; i < 9; ++i) natural = natural && tap[i] == i;
    constexpr int64_t kSome = 32;  // channels at a time
    const int64_t tasks = p_.groups * panels_;
    parallel_for(0, tasks, threaded ? 1 : tasks, [&](int64_t begin, int64_t end) {
      ConvScratch memory(kSome * 9 * rows_ * sizeof(T));
      T* const lined = memory.as<T>();
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / panels_, panel = i % panels_;
        const int64_t line = panel * rows_, lines = std::min(rows_, p_.outs - line);
        const T* const from = p_.weight + group * p_.weight_group + line * p_.weight_out;
        T* const to = packed + group * kPlanes * plane();
        for (int64_t c = 0, count; c < p_.ins; c += count) {
          const int64_t begin = c / part_ * part_, end = std::min(p_.ins, begin + part_);
          count = std::min(kSome, end - c);
          if (natural) {
            use_.pack_lines(from + 9 * c, p_.weight_out, lines, 9 * count, rows_, lined);
          } else {
            T* at = lined;
            for (int64_t k = c; k < c + count; ++k) {
              for (int t = 0; t < 9; ++t, at += rows_) {
                const T* const source = from + k * p_.weight_in + tap[t];
                for (int64_t l = 0; l < lines; ++l) at[l] = source[l * p_.weight_out];
                for (int64_t l = lines; l < rows_; ++l) at[l] = 0;
              }
            }
          }
          transforms_.weight(lined, count, to + (begin * panels_ + panel * (end - begin) + c - begin) * rows_, plane());
        }
      }
    });
  }

  class Worker {
   public:
    Worker(const Winograd& all, const ConvStrips& strips, int64_t share, const T* weights)
        : s_(all), p_(all.p_), share_(share), weights_(weights), reader_(all.tiles_, all.part_, strips, all.width_),
          // A vector more, as packing writes past the last piece.
          patch_((kPlanes * s_.width_ + 64) * sizeof(T)), source_(kPlanes * apart<T>(s_.part_ * s_.width_) * sizeof(T)),
          sums_(kPlanes * apart<T>(share * s_.rows_ * s_.width_) * sizeof(T)), rows_(4 * s_.width_ * sizeof(T)) {
      for (int64_t k = 0; k < s_.part_; ++k) offsets_.push_back(static_cast<std::int32_t>(k * s_.width_));
      right_.resize(static_cast<std::size_t>(s_.width_ / s_.use_.lanes));
    }

    void run(const ConvStrip& strip, int64_t group, int64_t first) {
      reader_.move_to(strip);
      const int64_t last = std::min(s_.panels_, first + share_);
      const int64_t source_plane = apart<T>(s_.part_ * s_.width_);
      const int64_t sums_plane = apart<T>(share_ * s_.rows_ * s_.width_);
      T* const sums = sums_.template as<T>();
      T* const source = source_.template as<T>();
      ConvBlock<T> block{};
      block.height = s_.rows_;
      block.sums_stride = s_.width_;
      block.vectors = ceil_div(reader_.columns(), s_.use_.lanes);
      block.right = right_.data(), block.offsets = offsets_.data();
      block.rows = std::min(p_.outs, last * s_.rows_) - first * s_.rows_;
      for (int64_t k = 0; k < p_.ins; k += s_.part_) {
        block.depth = std::min(s_.part_, p_.ins - k);
        block.left_panel = block.depth * s_.rows_;
        reader_.read(group, k, block.depth);
        for (int64_t c = 0; c < block.depth; ++c) {
          reader_.tiles(c, patch_.template as<T>());
          s_.transforms_.source(patch_.template as<T>(), s_.width_, reader_.columns(), source + c * s_.width_, source_plane);
        }
        block.add = k > 0;
        for (int64_t plane = 0; plane < kPlanes; ++plane) {
          for (std::size_t v = 0; v < right_.size(); ++v) {
            right_[v] = source + plane * source_plane + static_cast<int64_t>(v) * s_.use_.lanes;
          }
          block.left = weights_ + (group * kPlanes + plane) * s_.plane() + k * s_.panels_ * s_.rows_ + first * block.left_panel;
          block.sums = sums + plane * sums_plane;
          s_.use_.multiply(block);
        }
      }
      finish(strip, group * p_.outs + first * s_.rows_, block.rows, sums, sums_plane);
    }

   private:
    void finish(const ConvStrip& strip, int64_t channel, int64_t channels, const T* sums, int64_t plane) {
      const Images<T>& out = p_.out;
      const int64_t *const size = out.size, *const tiles = s_.tiles_.out.size;
      T* const rows = rows_.template as<T>();
      for (int64_t c = 0; c < channels; ++c) {
        s_.transforms_.result(sums + c * s_.width_, plane, reader_.columns(), rows, 2 * s_.width_);
        const T bias = p_.bias ? p_.bias[channel + c] : T{0};
        const T* from = rows;
        for (int64_t n = 0; n < strip.images; ++n) {
          T* const image = out.data + (strip.image + n) * out.image + (channel + c) * out.channel;
          for (int64_t at = strip.first, end = strip.first + strip.count; at < end;) {
            const int64_t x = at % tiles[2], y = at / tiles[2] % tiles[1], z = at / (tiles[1] * tiles[2]);
            const int64_t count = std::min(tiles[2] - x, end - at), pixels = std::min(2 * count, size[2] - 2 * x);
            T* const to = image + z * out.stride[0] + 2 * y * out.stride[1] + 2 * x * out.stride[2];
            s_.use_.finish(from, pixels, bias, p_.relu, to, out.stride[2]);
            if (2 * y + 1 < size[1]) {
              s_.use_.finish(from + 2 * s_.width_, pixels, bias, p_.relu, to + out.stride[1], out.stride[2]);
            }
            from += 2 * count;
            at += count;
          }
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
  const Correlation<T> tiles_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  const WinogradKernels<T>& transforms_ = winograd_kernels_of<T>();
  int64_t rows_, width_, panels_, part_, pixels_;
};

}  // namespace

template <class T>
bool fits_winograd(const Correlation<T>& p) {
  int64_t least;
  return p.place[0].size() == 1 && consecutive(p.place[1], &least) && consecutive(p.place[2], &least) &&
         p.step[1] == 1 && p.step[2] == 1 && p.ins >= 16 && p.outs >= 16 && p.out.size[1] > 1 && p.out.size[2] > 1;
}

template <class T>
void winograd(const Correlation<T>& problem) {
  fits_deep_winograd(problem) ? deep_winograd(problem) : Winograd<T>(problem).run();
}

template bool fits_winograd(const Correlation<float>&);
template bool fits_winograd(const Correlation<double>&);
template void winograd(const Correlation<float>&);
template void winograd(const Correlation<double>&);

}  // namespace pyframe
