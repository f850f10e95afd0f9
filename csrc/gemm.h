// Matrix products: C = finish(alpha * left · right + beta * C), with left M×K and right K×N.
//
// A factor is a strided matrix or anything else that can write itself into packed panels, so convolution multiplies
// patches that never exist as a matrix. What follows the product (bias, residual, activation) is applied to each tile
// while it is in the first-level cache.
//
// The bits of the result depend on the shapes and the instruction set level only, not on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyframe {

enum class Element { float32, float64, float16, bfloat16 };

// One factor of a product. It consists of *lines* of K elements: rows of the left factor, columns of the right one.
template <class T>
struct Factor {
  // A strided matrix: element k of a line at data[line * line_stride + k * depth_stride]; strides count elements and
  // may be zero or negative. `type` is T's, or a half type, converted while packing, where T is float.
  const void* data = nullptr;
  std::int64_t line_stride = 0, depth_stride = 0;
  Element type = sizeof(T) == 8 ? Element::float64 : Element::float32;

  // Set by gemm() alone: of how many bfloat16 elements K consists where it counts pairs of them, two in one T, the last
  // one zero where the number is odd. depth_stride then still counts elements; a factor whose `type` is float32 can be
  // read as pairs where it lies. 0: K counts elements.
  std::int64_t pairs_of = 0;

  // Anything else: writes `lines` lines from `line` on, elements [k, k + depth), as panels of `width` lines:
  //   packed[panel * depth * width + (kk - k) * width + l] = element kk of line (line + panel * width + l)
  // and zeros for the lines that the last panel lacks. Nothing may be written past the last panel. Called from several
  // threads at once, for ranges that depend on the blocking; `width` is at most max(GemmTile::rows, GemmTile::columns).
  // A right factor's width is always GemmTile::columns; a left factor's is 1 to GemmTile::rows.
  using Pack = void (*)(const void* context, std::int64_t line, std::int64_t lines, std::int64_t k, std::int64_t depth,
                        std::int64_t width, T* packed);
  Pack pack = nullptr;
  const void* context = nullptr;
};

enum class Activation { none, relu };

// One product. In the order of application:
//   c = alpha * left · right + beta * c + row_bias[i] + column_bias[j] + residual[i, j], then the activation, then `map`.
template <class T>
struct Gemm {
  std::int64_t m = 0, n = 0, k = 0;
  Factor<T> left, right;

  // Element (i, j) of C at c[i * row_stride + j * column_stride]; or, with segment != 0, at
  // c[i * row_stride + (j / segment) * segment_stride + j % segment], which lets the columns run over the pixels of
  // all images of a batch. Must not overlap the factors.
  T* c = nullptr;
  std::int64_t row_stride = 0, column_stride = 1;
  std::int64_t segment = 0, segment_stride = 0;

  T alpha = 1, beta = 0;  // with beta == 0, C is only written
  const T* row_bias = nullptr;
  const T* column_bias = nullptr;
  const T* residual = nullptr;  // laid out as C
  Activation activation = Activation::none;
  // Changes `count` finished values in place, for activations that are no one-liners; called row piece by row piece.
  void (*map)(const void* context, T* values, std::int64_t count) = nullptr;
  const void* map_context = nullptr;

  // Where T is float: the result rounded to a half type, written here, laid out as C, instead of to C. C may then be
  // null; it is not touched.
  void* half = nullptr;
  Element half_type = Element::bfloat16;

  // First index of K, for products over a part of it: factors are asked for [k_begin, k_begin + k).
  std::int64_t k_begin = 0;
};

// Runs a product on all threads (inside a parallel loop: on the calling thread). Throws std::bad_alloc where there is no
// memory for the packed panels, which take a few megabytes at most.
void gemm(const Gemm<float>& problem);
void gemm(const Gemm<double>& problem);

// The register tile of the microkernel: what a packed panel's width is derived from.
struct GemmTile {
  std::int64_t rows, columns;
};
template <class T>
GemmTile gemm_tile();
template <>
GemmTile gemm_tile<float>();
template <>
GemmTile gemm_tile<double>();

// Products of a batch: item b's C, left, right and residual lie at element offsets given for each of `dims` batch
// dimensions by index times stride (0 for a broadcast factor). All factors must be strided matrices.
struct GemmBatch {
  static constexpr int kMaxDims = 16;
  int dims = 0;
  std::int64_t shape[kMaxDims] = {};
  std::int64_t left[kMaxDims] = {}, right[kMaxDims] = {}, c[kMaxDims] = {};
};
void gemm(const Gemm<float>& first, const GemmBatch& batch);
void gemm(const Gemm<double>& first, const GemmBatch& batch);

}  // namespace pyframe
