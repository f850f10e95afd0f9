// The kernels under correlate(), one table per instruction set level. Only conv*.cpp and csrc/isa/conv*.cpp include this.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

// Sums for `rows` output channels and `vectors` vectors of pixels over `depth` elements of K:
//   sums[i * sums_stride + v * lanes + l] (+)= sum over k of left(i, k) * right[v][offsets[k] + l]
// left comes as panels of `height` rows, each [depth][height].
template <class T>
struct ConvBlock {
  const T* left;
  std::int64_t height, left_panel, rows, depth;
  const T* const* right;
  std::int64_t vectors;
  const std::int32_t* offsets;
  T* sums;
  std::int64_t sums_stride;
  bool add;
};

// Sums over pixels, for the gradient of the weight:
//   sums[r * width + l] (+)= sum over p of window[rows_at[r] + pixels[p]] * right[p * width + l]
// for l < width, a whole number of vectors, at most grad_vectors.
template <class T>
struct ConvGradBlock {
  const T* window;
  const std::int32_t* rows_at;
  std::int64_t rows;
  const std::int32_t* pixels;
  std::int64_t depth;
  const T* right;
  std::int64_t width;
  T* sums;
  bool add;
};

// `count` neighbouring pixels from column `column` on, that lie side by side at `from` (relative to a tap's offset).
struct ConvPiece {
  std::int64_t from, column, count;
};

template <class T>
struct ConvKernels {
  std::int64_t rows, vectors, lanes;  // the tile of `multiply`
  std::int64_t grad_vectors;          // the most vectors of `accumulate`

  void (*multiply)(const ConvBlock<T>& block);
  void (*accumulate)(const ConvGradBlock<T>& block);

  // packed[k * width + c] = from[offsets[k] + pixel of column c], for the pieces' columns, ascending; columns up to a
  // whole vector get any values.
  // With `exact` nothing behind a piece is read or written; else up to a vector is, also behind the last row.
  void (*pack)(const T* from, const std::int32_t* offsets, std::int64_t depth, const ConvPiece* pieces,
               std::int64_t count, std::int64_t columns, bool exact, T* packed, std::int64_t width);

  // to[i] = from[(i - begin) * stride] for begin <= i < end, else 0 up to `length`; up to a vector more is overwritten.
  void (*fill_row)(const T* from, std::int64_t stride, std::int64_t begin, std::int64_t end, std::int64_t length, T* to);
  // to[c * to_channel + i] = from[c + i * stride]: channels lie side by side.
  void (*copy_channels)(const T* from, std::int64_t stride, std::int64_t channels, std::int64_t count, T* to,
                        std::int64_t to_channel);
  // to[i * width + l] = from[l * line + i * step], for l < lines, then zeros.
  void (*transpose)(const T* from, std::int64_t line, std::int64_t step, std::int64_t lines, std::int64_t count, T* to,
                    std::int64_t width);

  // to[i * step] = from[i] + bias, then relu.
  void (*finish)(const T* from, std::int64_t count, T bias, bool relu, T* to, std::int64_t step);

  // Panels of weights: to[panel][k][height] = from[(panel * height + i) * line + k], zeros behind the last line.
  void (*pack_lines)(const T* from, std::int64_t line, std::int64_t lines, std::int64_t depth, std::int64_t height, T* to);
};

// Tiles side by side, from column `column` on of where they are written: values (i, j) of tile t are the source's at
// rows[i] + x + t / gap * gap * step + t % gap + j * gap, zeros where there is no such row or element of it.
struct TileRun {
  const std::int64_t* rows;
  std::int64_t x, column, count;
};
constexpr std::int64_t kNoRow = INT64_MIN;

// Minimal filtering for the gradient of the weight, with channels in the lanes: of tiles side by side, value (i, j) of
// tile t is the vector at from + i * row + (t * tile + j) * pixel, its transform those at to + t * step, one per plane.
template <class T>
struct WinogradAdjoint {
  void (*source)(const T* from, std::int64_t row, std::int64_t pixel, std::int64_t count, T* to, std::int64_t plane,
                 std::int64_t step);
  // Gradients of outputs.
  void (*spread)(const T* from, std::int64_t row, std::int64_t pixel, std::int64_t count, T* to, std::int64_t plane,
                 std::int64_t step);
  // Sums of products of those, planes of [depth][width], to to[depth][taps][width].
  void (*gather)(const T* from, std::int64_t plane, std::int64_t depth, std::int64_t width, T* to);
};

// Minimal filtering: a tile of outputs from fewer products of sums than a direct sum takes. The numbers of a transformed
// tile, one per plane, lie `plane` apart.
template <class T>
struct WinogradForm {
  // Along y and x: of the kernel, its stride, a tile's outputs, and the source values that it sees.
  std::int64_t taps[2], step[2], outs[2], reach[2];
  std::int64_t gap;       // between the taps along x, being dilated: every so manieth column is a line of its own
  std::int64_t channels;  // on either side from which on the transforms pay
  const WinogradAdjoint<T>* adjoint;  // or nullptr

  std::int64_t planes() const { return reach[0] * reach[1]; }
  // The source values of runs of tiles to to[planes][width]; `size` is the rows' length, `first` is added to i. Behind
  // each run up to a vector more is overwritten.
  void (*read)(const T* from, const TileRun* runs, std::int64_t count, std::int64_t first, std::int64_t size, T* to,
               std::int64_t width);
  // from[planes][width], the source values of `columns` tiles, to their transforms; whole vectors are written.
  void (*source)(const T* from, std::int64_t width, std::int64_t columns, T* to, std::int64_t plane);
  // Weights of `depth` channels, from[depth][taps][rows] to to[planes][depth][rows]; `rows` is the tile's.
  void (*weight)(const T* from, std::int64_t depth, T* to, std::int64_t plane);
  // Sums of products back to outputs: row r of the tiles at to + r * row, tiles side by side; whole vectors of tiles.
  void (*result)(const T* from, std::int64_t plane, std::int64_t columns, T* to, std::int64_t row);
};

template <class T>
struct WinogradKernels {
  // The first is F(2×2, 3×3), for which alone, and for float alone, there are the functions below.
  const WinogradForm<T>* forms;
  std::int64_t count;
  // F(2, 5) for lines along x with one tile of several images in the lanes: outputs of a tile are vectors side by side.
  // It reads no tiles. For float only.
  const WinogradForm<T>* five;
  // Weights of `width` output channels in lanes, from[depth][9][width], tap t of row major order at order[t], to
  // to[16 planes][depth][width].
  void (*weight_lanes)(const T* from, const std::int32_t* order, std::int64_t depth, std::int64_t width, T* to,
                       std::int64_t plane);
  // Its `result` with one vector of channels in the lanes, tile t at from + t * step, plus the channels' bias, then relu;
  // laid out as values of tiles are for `adjoint`.
  void (*result_lanes)(const T* from, std::int64_t plane, std::int64_t step, std::int64_t count, const T* bias, bool relu,
                       T* to, std::int64_t row);
};

struct ConvTable {
  ConvKernels<float> f32;
  ConvKernels<double> f64;
};
struct WinogradTable {
  WinogradKernels<float> f32;
  WinogradKernels<double> f64;
};
PYFRAME_ISA_TABLE(ConvTable, conv_table, conv_kernels)
PYFRAME_ISA_TABLE(WinogradTable, winograd_table, winograd_kernels)

template <class T>
const ConvKernels<T>& conv_kernels_of() {
  if constexpr (sizeof(T) == 8) return conv_kernels().f64;
  else return conv_kernels().f32;
}
template <class T>
const WinogradKernels<T>& winograd_kernels_of() {
  if constexpr (sizeof(T) == 8) return winograd_kernels().f64;
  else return winograd_kernels().f32;
}

}  // namespace pyframe
