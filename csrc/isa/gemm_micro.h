// The microkernel of the matrix product: one tile of C, held in registers while K runs.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T> PYFRAME_INLINE constexpr T smaller(T a, T b) { return b < a ? b : a; }
template <class T> PYFRAME_INLINE constexpr T larger(T a, T b) { return a < b ? b : a; }

// The register tile: kRows × kVectors vectors of sums, with room left for one row of the right factor and a broadcast.
#if defined(__AVX512F__)
constexpr int kRows = 14, kVectors = 2;
#elif defined(__aarch64__)
constexpr int kRows = 8, kVectors = 3;
#elif defined(__AVX__)
constexpr int kRows = 6, kVectors = 2;
#else
constexpr int kRows = 4, kVectors = 2;
#endif

// Where a tile of sums goes, and what is done to it in registers on its way:
//   c = relu?(sums [+ c] [+ row_bias] [+ column_bias]), in this order.
template <class T>
struct Target {
  T* c;
  std::int64_t c_stride;
  bool add = false;                // C is read
  std::int64_t tail = kLanes<T>;   // lanes of the last vector that belong to C; fewer than all only with kMaskedTail
  const T* row_bias = nullptr;     // of the tile's first row and column
  const T* column_bias = nullptr;
  bool relu = false;
};

// Whether a part of a vector is loaded and stored in one instruction.
constexpr bool kMaskedTail = kVectorBytes == 64;

// From this depth on, the tile of C is asked for before the sums begin: it is there when they end.
constexpr std::int64_t kPrefetchDepth = 64;

template <class T, int Height, int Vectors>
PYFRAME_INLINE void finish_tile(Vec<T> (&sum)[Height][Vectors], const Target<T>& to) {
  constexpr int kLane = kLanes<T>;
  const bool whole = !kMaskedTail || to.tail == kLane;
  const auto read = [&](const T* from, int j) __attribute__((always_inline)) {
    return whole || j + 1 < Vectors ? load(from + j * kLane) : load_part(from + j * kLane, to.tail);
  };
  if (to.add) {
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += read(to.c + i * to.c_stride, j);
    }
  }
  if (to.row_bias) {
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += to.row_bias[i];
    }
  }
  if (to.column_bias) {
    Vec<T> bias[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) bias[j] = read(to.column_bias, j);
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += bias[j];
    }
  }
  if (to.relu) {
    const Vec<T> zero{};
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = sum[i][j] < zero ? zero : sum[i][j];  // NaN stays
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Height; ++i) {
    T* const at = to.c + i * to.c_stride;
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) {
      if (whole || j + 1 < Vectors) store<T>(at + j * kLane, sum[i][j]);
      else store_part<T>(at + j * kLane, sum[i][j], to.tail);
    }
  }
}

// What a step along K adds to a vector of sums.
struct Multiply {
  template <class T>
  static PYFRAME_INLINE Vec<T> add(Vec<T> sum, Vec<T> a, Vec<T> b) { return sum + a * b; }
};

// left · right for Height × (Vectors * lanes) elements. Strides as in GemmBlock.
//
// One broadcast per row, multiplied with Vectors vectors of the right row. Rows are addressed in groups of three from
// one pointer (base, + stride, + 2 * stride are addressing modes), so that the left factor needs no packing.
template <class T, class Step, int Height, int Vectors>
void microkernel(std::int64_t depth, const T* left, std::int64_t left_line, std::int64_t left_depth, const T* right,
                 std::int64_t right_depth, const Target<T>& to) {
  constexpr int kLane = kLanes<T>;
  constexpr int kGroups = (Height + 2) / 3;
  if (depth >= kPrefetchDepth) {
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) __builtin_prefetch(to.c + i * to.c_stride + j * kLane, 1);
    }
  }
  Vec<T> sum[Height][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Height; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec<T>{};
  }
  const T* row[kGroups];
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) row[g] = left + 3 * g * left_line;
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<T> b[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) b[j] = load(right + j * kLane);
#pragma GCC unroll 16
    for (int i = 0; i < Height; ++i) {
      const Vec<T> a = splat(row[i / 3][(i % 3) * left_line]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] = Step::template add<T>(sum[i][j], a, b[j]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) row[g] += left_depth;
    right += right_depth;
  }
  finish_tile<T, Height, Vectors>(sum, to);
}

template <class T>
using Microkernel = void (*)(std::int64_t depth, const T* left, std::int64_t left_line, std::int64_t left_depth,
                             const T* right, std::int64_t right_depth, const Target<T>& to);

// One microkernel per height and number of vectors: tiles at the edges multiply no padding.
template <class T, class Step>
struct Microkernels {
  Microkernel<T> of[kRows + 1][kVectors + 1];

  constexpr Microkernels() : of{} { fill<kRows>(); }

 private:
  template <int Height>
  constexpr void fill() {
    if constexpr (Height > 0) {
      fill_vectors<Height, kVectors>();
      fill<Height - 1>();
    }
  }
  template <int Height, int Vectors>
  constexpr void fill_vectors() {
    if constexpr (Vectors > 0) {
      of[Height][Vectors] = &microkernel<T, Step, Height, Vectors>;
      fill_vectors<Height, Vectors - 1>();
    }
  }
};

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
