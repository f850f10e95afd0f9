// What the main loops of matrix products load of a convolution. Images are channels-last, so that values along the
// channels lie next to each other; no matrix of patches exists, a tile's values are looked up as it is loaded.
//
// A `Spot` says which pieces of a tile a thread copies and where they go: kCount × kPieces of them, with kValues values
// each. Where values along k lie next to each other in memory (K_INNER), piece (i, p) is of row(i) at along(p), else of
// row(p) at along(i).
#pragma once

#include "pyframe/conv.cuh"
#include "pyframe/gemm_loop.cuh"
#include "pyframe/gemm_simt.cuh"

namespace pf {

// Copies BYTES, or writes as many zeros.
template <int BYTES>
__device__ __forceinline__ void copy_piece(void* target, const void* source, bool there) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "what cp.async copies");
  if constexpr (BYTES == 4) {
    copy_async_4(target, source, there ? 4 : 0);
  } else if constexpr (BYTES == 8) {
    copy_async_8(target, source, there ? 8 : 0);
  } else {
    copy_async_16(target, source, there ? 16 : 0);
  }
}

template <class Tile_, int THREADS, int BYTES>
struct MmaSpot {
  using Tile = Tile_;
  using T = typename Tile::T;
  using Memory = unsigned char*;
  using Chunks = ThreadChunks<Tile, THREADS>;
  static constexpr int kCount = Chunks::kCount, kPieces = 16 / BYTES, kBytes = BYTES, kDepth = Tile::kDepth;
  static constexpr int kValues = BYTES / static_cast<int>(sizeof(T));
  __device__ __forceinline__ static int outer(int i) { return Chunks::line(i); }
  __device__ __forceinline__ static int inner(int p) { return Chunks::chunk() * Tile::kPack + p * kValues; }
  __device__ __forceinline__ static int row(int j) { return Tile::kKInner ? outer(j) : inner(j); }
  __device__ __forceinline__ static int along(int j) { return Tile::kKInner ? inner(j) : outer(j); }
  __device__ __forceinline__ static void* at(Memory tile, int i, int p) {
    return tile + Chunks::place() + i * Chunks::kBetween + p * BYTES;
  }
};

// Tiles of gemm_simt.cuh have values along the rows next to each other: those along k are copied one by one.
template <class T_, int SIZE, int THREADS, bool K_INNER, int BYTES>
struct SimtSpot {
  using Tile = SimtTile<T_, SIZE>;
  using T = T_;
  using Memory = Tile&;
  static constexpr int kPack = 16 / sizeof(T), kDepth = 8;
  static constexpr int kBytes = K_INNER ? sizeof(T) : BYTES, kPieces = K_INNER ? 1 : 16 / BYTES;
  static constexpr int kValues = kBytes / static_cast<int>(sizeof(T));
  static constexpr int kAcross = K_INNER ? kDepth : SIZE / kPack;  // threads that share a row, or a value of k
  static constexpr int kCount = (K_INNER ? SIZE : kDepth) * kAcross / THREADS;
  static_assert(kCount >= 1 && kCount * THREADS == (K_INNER ? SIZE : kDepth) * kAcross, "each thread has equally many");
  __device__ __forceinline__ static int outer(int i) {
    return static_cast<int>(threadIdx.x) / kAcross + i * (THREADS / kAcross);
  }
  __device__ __forceinline__ static int inner(int p) {
    return static_cast<int>(threadIdx.x) % kAcross * (K_INNER ? 1 : kPack) + p * kValues;
  }
  __device__ __forceinline__ static int row(int j) { return K_INNER ? outer(j) : inner(j); }
  __device__ __forceinline__ static int along(int j) { return K_INNER ? inner(j) : outer(j); }
  __device__ __forceinline__ static void* at(Memory tile, int i, int p) {
    return K_INNER ? &tile.values[inner(p)][outer(i)] : &tile.values[outer(i)][inner(p)];
  }
};

// ---------------------------------------------------------------- forward, and gradient of the input

// The destination positions whose sources begin at the same remainder of the stride: all of them, except in an input
// gradient. Along each dimension, position q reads source positions reach.at + q · read_step + j · reach.step, and is
// written at made_first + q · made_step.
struct Phase {
  Reach reach[3];
  int count[3], read_step[3], made_first[3], made_step[3];

  __device__ __forceinline__ Phase(const ConvGeometry& g, int number, bool transposed) {
#pragma unroll
    for (int d = 2; d >= 0; --d) {
      made_step[d] = transposed ? g.stride[d] : 1;
      read_step[d] = transposed ? 1 : g.stride[d];
      made_first[d] = number % made_step[d];
      number /= made_step[d];
      count[d] = max((g.out[d] - made_first[d] + made_step[d] - 1) / made_step[d], 0);
      reach[d] = Reach::all(g, d, made_first[d], transposed);
    }
  }
  __device__ __forceinline__ int taps() const { return reach[0].count * reach[1].count * reach[2].count; }
};

// Where pieces are along k: k runs over the phase's taps, and inside of those over the channels of a group.
template <class Spot>
class TapWalk {
 public:
  int channel[Spot::kPieces], tap[Spot::kPieces][3];

  __device__ __forceinline__ TapWalk(const Phase& phase, int channels, int step)
      : channels_(channels), high_(phase.reach[1].count), wide_(phase.reach[2].count), deep_(phase.reach[0].count) {
#pragma unroll
    for (int p = 0; p < Spot::kPieces; ++p) {
      const int k = step * Spot::kDepth + Spot::along(p), t = k / channels, line = t / max(wide_, 1);
      channel[p] = k - t * channels;
      tap[p][2] = t - line * wide_;
      tap[p][0] = line / max(high_, 1);
      tap[p][1] = line - tap[p][0] * high_;
    }
  }
  __device__ __forceinline__ bool inside(int p) const { return tap[p][0] < deep_; }
  __device__ __forceinline__ void advance() {
#pragma unroll
    for (int p = 0; p < Spot::kPieces; ++p) {
      channel[p] += Spot::kDepth;
      while (channel[p] >= channels_) {
        channel[p] -= channels_;
        if (++tap[p][2] == wide_) {
          tap[p][2] = 0;
          if (++tap[p][1] == high_) {
            tap[p][1] = 0;
            ++tap[p][0];
          }
        }
      }
    }
  }

 private:
  int channels_, high_, wide_, deep_;
};

// The values that destination positions read: rows are positions of a phase.
template <class Spot>
class PatchLoader {
 public:
  using Tile = typename Spot::Tile;
  using T = typename Spot::T;

  // `x`: the group's first channel; `stride`: channels of the whole image; `row`: the tile's first position, of `rows`.
  __device__ __forceinline__ PatchLoader(const T* x, int stride, const ConvGeometry& g, const Phase& phase,
                                         const TapWalk<Spot>& walk, int row, int rows)
      : x_(x), stride_(stride), g_(g), phase_(phase), walk_(walk) {
#pragma unroll
    for (int i = 0; i < Spot::kCount; ++i) {
      const int m = row + Spot::row(i);
      const Place p = place(static_cast<unsigned>(m), phase.count[0], phase.count[1], phase.count[2]);
#pragma unroll
      for (int d = 0; d < 3; ++d) first_[i][d] = phase.reach[d].at + p.at[d] * phase.read_step[d];
      const int plane = static_cast<int>(p.rest) * g.size[0] + first_[i][0];
      base_[i] = ((plane * g.size[1] + first_[i][1]) * g.size[2] + first_[i][2]) * stride;
      if (m >= rows) {
        first_[i][2] = -(1 << 30);  // outside of every image
        base_[i] = 0;
      }
    }
  }

  __device__ __forceinline__ void load(typename Spot::Memory tile, int) {
#pragma unroll
    for (int p = 0; p < Spot::kPieces; ++p) {
      int far[3];
#pragma unroll
      for (int d = 0; d < 3; ++d) far[d] = walk_.tap[p][d] * phase_.reach[d].step;
      const int offset = ((far[0] * g_.size[1] + far[1]) * g_.size[2] + far[2]) * stride_ + walk_.channel[p];
      const bool inside = walk_.inside(p);
#pragma unroll
      for (int i = 0; i < Spot::kCount; ++i) {
        bool there = inside;
#pragma unroll
        for (int d = 0; d < 3; ++d) {
          there = there && static_cast<unsigned>(first_[i][d] + far[d]) < static_cast<unsigned>(g_.size[d]);
        }
        copy_piece<Spot::kBytes>(Spot::at(tile, i, p), x_ + (there ? base_[i] + offset : 0), there);
      }
    }
  }

 private:
  const T* x_;
  int stride_, base_[Spot::kCount], first_[Spot::kCount][3];
  const ConvGeometry& g_;
  const Phase& phase_;
  const TapWalk<Spot>& walk_;
};

// The weights of a group, [rows, taps, channels]. Moves on the walk, which both operands' loaders share: their pieces
// have the same places along k, and the main loops load the left operand first.
template <class Spot, class Walk>
class FilterLoader {
 public:
  using Tile = typename Spot::Tile;
  using T = typename Spot::T;

  __device__ __forceinline__ FilterLoader(const T* w, int channels, const ConvGeometry& g, const Phase& phase,
                                          Walk& walk, int row, int rows)
      : w_(w + static_cast<long long>(row) * g.kernel[0] * g.kernel[1] * g.kernel[2] * channels),
        channels_(channels),
        rows_(rows - row),
        g_(g),
        phase_(phase),
        walk_(walk) {}

  __device__ __forceinline__ void load(typename Spot::Memory tile, int) {
    const int line = g_.kernel[0] * g_.kernel[1] * g_.kernel[2] * channels_;
#pragma unroll
    for (int p = 0; p < Spot::kPieces; ++p) {
      int tap[3];
#pragma unroll
      for (int d = 0; d < 3; ++d) tap[d] = phase_.reach[d].tap + walk_.tap[p][d] * phase_.reach[d].tap_step;
      const int offset = ((tap[0] * g_.kernel[1] + tap[1]) * g_.kernel[2] + tap[2]) * channels_ + walk_.channel[p];
      const bool inside = walk_.inside(p);
#pragma unroll
      for (int i = 0; i < Spot::kCount; ++i) {
        const bool there = inside && Spot::row(i) < rows_;
        copy_piece<Spot::kBytes>(Spot::at(tile, i, p), w_ + (there ? Spot::row(i) * line + offset : 0), there);
      }
    }
    walk_.advance();
  }

 private:
  const T* w_;
  int channels_, rows_;
  const ConvGeometry& g_;
  const Phase& phase_;
  Walk& walk_;
};

// ---------------------------------------------------------------- gradient of the weight

// The output's gradient: rows are channels, k runs over the positions of all images.
template <class Spot>
class GradientLoader {
 public:
  using Tile = typename Spot::Tile;
  using T = typename Spot::T;

  // `grad`: the group's first channel; `stride`: channels in all; `row`: the tile's first one, of the group's `rows`.
  __device__ __forceinline__ GradientLoader(const T* grad, int stride, int row, int rows, int positions)
      : grad_(grad + row), stride_(stride), rows_(rows - row), positions_(positions) {}

  __device__ __forceinline__ void load(typename Spot::Memory tile, int step) {
#pragma unroll
    for (int i = 0; i < Spot::kCount; ++i) {
      const int position = step * Spot::kDepth + Spot::along(i);
#pragma unroll
      for (int p = 0; p < Spot::kPieces; ++p) {
        const bool there = position < positions_ && Spot::row(p) < rows_;
        copy_piece<Spot::kBytes>(Spot::at(tile, i, p), grad_ + (there ? position * stride_ + Spot::row(p) : 0), there);
      }
    }
  }

 private:
  const T* grad_;
  int stride_, rows_, positions_;
};

// What the taps of the weight meet at each position: rows are (tap, channel), k as above.
template <class Spot>
class TapLoader {
 public:
  using Tile = typename Spot::Tile;
  using T = typename Spot::T;

  // `out`: divisors by the lengths of the output.
  __device__ __forceinline__ TapLoader(const T* x, int stride, const ConvGeometry& g, const Divisor (&out)[3],
                                       int channels, int row, int positions)
      : x_(x), stride_(stride), positions_(positions), g_(g), out_(out) {
#pragma unroll
    for (int p = 0; p < Spot::kPieces; ++p) {
      const int r = row + Spot::row(p);
      const Place tap = place(static_cast<unsigned>(r / channels), g.kernel[0], g.kernel[1], g.kernel[2]);
#pragma unroll
      for (int d = 0; d < 3; ++d) first_[p][d] = tap.at[d] * g.dilation[d] - g.padding[d];
      offset_[p] = ((first_[p][0] * g.size[1] + first_[p][1]) * g.size[2] + first_[p][2]) * stride + r % channels;
      if (tap.rest) first_[p][2] = -(1 << 30);  // no tap: outside of every image
    }
  }

  __device__ __forceinline__ void load(typename Spot::Memory tile, int step) {
#pragma unroll
    for (int i = 0; i < Spot::kCount; ++i) {
      const int position = step * Spot::kDepth + Spot::along(i);
      unsigned rest = static_cast<unsigned>(position);
      int at[3];
#pragma unroll
      for (int d = 2; d >= 0; --d) {
        const unsigned quotient = out_[d].of(rest);
        at[d] = static_cast<int>(rest - quotient * out_[d].value) * g_.stride[d];
        rest = quotient;
      }
      const int base =
          (((static_cast<int>(rest) * g_.size[0] + at[0]) * g_.size[1] + at[1]) * g_.size[2] + at[2]) * stride_;
#pragma unroll
      for (int p = 0; p < Spot::kPieces; ++p) {
        bool there = position < positions_;
#pragma unroll
        for (int d = 0; d < 3; ++d) {
          there = there && static_cast<unsigned>(at[d] + first_[p][d]) < static_cast<unsigned>(g_.size[d]);
        }
        copy_piece<Spot::kBytes>(Spot::at(tile, i, p), x_ + (there ? base + offset_[p] : 0), there);
      }
    }
  }

 private:
  const T* x_;
  int stride_, positions_, offset_[Spot::kPieces], first_[Spot::kPieces][3];
  const ConvGeometry& g_;
  const Divisor (&out_)[3];
};

}  // namespace pf
