// Thin products: one factor has at most kThin lines, so that the other, big one is read once and memory sets the pace.
#pragma once

#include "gemm_table.h"
#include "isa/gemm_micro.h"
#include "isa/gemm_pack.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// Lines of the big factor that thin_dot reads side by side: as many sums as there are registers for.
template <int Few>
constexpr int kDotLines = kVectorBytes == 64 ? (Few <= 3 ? 8 : 6) : (Few == 1 ? 8 : Few == 2 ? 4 : Few == 3 ? 3 : 2);

// The sums over the lanes of `Count` vectors, a power of two of at most `lanes`: sums[i] gets that of v[i]. Each round
// folds half of the vectors onto the other half, interleaved; then the lanes of the one that is left are folded.
template <class T, int Count>
PYFRAME_INLINE void sum_lanes(Vec<T>* v, T* sums) {
#pragma GCC unroll 4
  for (int half = Count / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) v[i] = zip<T, false>(v[i], v[i + half]) + zip<T, true>(v[i], v[i + half]);
  }
  T lanes[kLanes<T>];
  store<T>(lanes, v[0]);
#pragma GCC unroll 4
  for (int width = kLanes<T> / 2; width >= Count; width /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
#pragma GCC unroll 8
  for (int i = 0; i < Count; ++i) sums[i] = lanes[i];
}

template <class T, int Few, int Lines>
PYFRAME_INLINE void dot_lines(const T* few, const T* big, std::int64_t line_stride, std::int64_t depth, T* out,
                              std::int64_t out_few, std::int64_t out_line) {
  constexpr int kLane = kLanes<T>;
  Vec<T> sum[Few][Lines];
#pragma GCC unroll 8
  for (int i = 0; i < Few; ++i) {
#pragma GCC unroll 8
    for (int l = 0; l < Lines; ++l) sum[i][l] = Vec<T>{};
  }
  std::int64_t k = 0;
  for (; k + kLane <= depth; k += kLane) {
    Vec<T> b[Lines];
#pragma GCC unroll 8
    for (int l = 0; l < Lines; ++l) b[l] = load(big + l * line_stride + k);
#pragma GCC unroll 8
    for (int i = 0; i < Few; ++i) {
      const Vec<T> a = load(few + i * depth + k);
#pragma GCC unroll 8
      for (int l = 0; l < Lines; ++l) sum[i][l] += a * b[l];
    }
  }
  if (k < depth) {
    const std::int64_t rest = depth - k;
#pragma GCC unroll 8
    for (int l = 0; l < Lines; ++l) {
      const Vec<T> b = load_part(big + l * line_stride + k, rest);
#pragma GCC unroll 8
      for (int i = 0; i < Few; ++i) sum[i][l] += load_part(few + i * depth + k, rest) * b;
    }
  }
  constexpr int kGroup = smaller<int>(8, kLanes<T>), kGroups = (Few * Lines + kGroup - 1) / kGroup;
  T sums[kGroups * kGroup];
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
    Vec<T> group[kGroup];
#pragma GCC unroll 8
    for (int j = 0; j < kGroup; ++j) {
      const int at = g * kGroup + j;
      group[j] = at < Few * Lines ? sum[at / Lines % Few][at % Lines] : Vec<T>{};
    }
    sum_lanes<T, kGroup>(group, sums + g * kGroup);
  }
#pragma GCC unroll 8
  for (int i = 0; i < Few; ++i) {
#pragma GCC unroll 8
    for (int l = 0; l < Lines; ++l) out[i * out_few + l * out_line] = sums[i * Lines + l];
  }
}

template <class T, int Few>
void dot_few(const T* few, const T* big, std::int64_t line_stride, std::int64_t lines, std::int64_t depth, T* out,
             std::int64_t out_few, std::int64_t out_line) {
  constexpr int kLines = kDotLines<Few>;
  std::int64_t l = 0;
  for (; l + kLines <= lines; l += kLines) {
    dot_lines<T, Few, kLines>(few, big + l * line_stride, line_stride, depth, out + l * out_line, out_few, out_line);
  }
  for (; l < lines; ++l) {
    dot_lines<T, Few, 1>(few, big + l * line_stride, line_stride, depth, out + l * out_line, out_few, out_line);
  }
}

// Rows of the big factor that one pass of thin_axpy over the sums adds.
template <int Few>
constexpr int kAxpyRows = smaller<int>(8, larger<int>(1, (kVectorBytes == 64 ? 24 : 10) / Few));

template <class T, int Few, int Rows>
PYFRAME_INLINE void axpy_rows(const T* few, std::int64_t few_stride, const T* big, std::int64_t depth_stride,
                              std::int64_t lines, T* out, std::int64_t out_few, bool first) {
  constexpr int kLane = kLanes<T>;
  Vec<T> a[Few][Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Few; ++i) {
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) a[i][r] = splat(few[i * few_stride + r]);
  }
  std::int64_t l = 0;
  for (; l + kLane <= lines; l += kLane) {
    Vec<T> sum[Few];
#pragma GCC unroll 8
    for (int i = 0; i < Few; ++i) sum[i] = first ? Vec<T>{} : load(out + i * out_few + l);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> b = load(big + r * depth_stride + l);
#pragma GCC unroll 8
      for (int i = 0; i < Few; ++i) sum[i] += a[i][r] * b;
    }
#pragma GCC unroll 8
    for (int i = 0; i < Few; ++i) store<T>(out + i * out_few + l, sum[i]);
  }
  if (l < lines) {
    const std::int64_t rest = lines - l;
    Vec<T> sum[Few];
#pragma GCC unroll 8
    for (int i = 0; i < Few; ++i) sum[i] = first ? Vec<T>{} : load_part(out + i * out_few + l, rest);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec<T> b = load_part(big + r * depth_stride + l, rest);
#pragma GCC unroll 8
      for (int i = 0; i < Few; ++i) sum[i] += a[i][r] * b;
    }
#pragma GCC unroll 8
    for (int i = 0; i < Few; ++i) store_part<T>(out + i * out_few + l, sum[i], rest);
  }
}

template <class T, int Few>
void axpy_few(const T* few, std::int64_t few_stride, const T* big, std::int64_t depth_stride, std::int64_t lines,
              std::int64_t depth, T* out, std::int64_t out_few, bool first) {
  constexpr int kRowsAtOnce = kAxpyRows<Few>;
  std::int64_t k = 0;
  for (; k + kRowsAtOnce <= depth; k += kRowsAtOnce, first = false) {
    axpy_rows<T, Few, kRowsAtOnce>(few + k, few_stride, big + k * depth_stride, depth_stride, lines, out, out_few, first);
  }
  for (; k < depth; ++k, first = false) {
    axpy_rows<T, Few, 1>(few + k, few_stride, big + k * depth_stride, depth_stride, lines, out, out_few, first);
  }
}

// Four lines of the thin factor at a time, so that many of the big one can be read side by side; the next four find
// those in the first-level cache.
template <class T>
void thin_dot(const T* few, std::int64_t count, const T* big, std::int64_t line_stride, std::int64_t lines,
              std::int64_t depth, T* out, std::int64_t out_few, std::int64_t out_line) {
  const std::int64_t block = count > 4 ? kDotLines<4> : lines;
  for (std::int64_t l = 0; l < lines; l += block) {
    const std::int64_t here = smaller<std::int64_t>(lines - l, block);
    const T* const from = big + l * line_stride;
    for (std::int64_t i = 0; i < count; i += 4) {
      const T* const a = few + i * depth;
      T* const to = out + i * out_few + l * out_line;
      switch (count - i) {
        case 1: dot_few<T, 1>(a, from, line_stride, here, depth, to, out_few, out_line); break;
        case 2: dot_few<T, 2>(a, from, line_stride, here, depth, to, out_few, out_line); break;
        case 3: dot_few<T, 3>(a, from, line_stride, here, depth, to, out_few, out_line); break;
        default: dot_few<T, 4>(a, from, line_stride, here, depth, to, out_few, out_line);
      }
    }
  }
}

// Four lines of the thin factor at a time: more would not leave registers for several rows of the big one. A block of
// its rows is still in the second-level cache when the next four lines need it.
template <class T>
void thin_axpy(const T* few, std::int64_t count, const T* big, std::int64_t depth_stride, std::int64_t lines,
               std::int64_t depth, T* out, std::int64_t out_few) {
  constexpr std::int64_t kBlock = 64;
  for (std::int64_t k = 0; k < depth; k += kBlock) {
    const std::int64_t rows = smaller<std::int64_t>(depth - k, kBlock);
    const T* const from = big + k * depth_stride;
    for (std::int64_t i = 0; i < count; i += 4) {
      const T* const a = few + i * depth + k;
      T* const to = out + i * out_few;
      switch (count - i) {
        case 1: axpy_few<T, 1>(a, depth, from, depth_stride, lines, rows, to, out_few, k == 0); break;
        case 2: axpy_few<T, 2>(a, depth, from, depth_stride, lines, rows, to, out_few, k == 0); break;
        case 3: axpy_few<T, 3>(a, depth, from, depth_stride, lines, rows, to, out_few, k == 0); break;
        default: axpy_few<T, 4>(a, depth, from, depth_stride, lines, rows, to, out_few, k == 0);
      }
    }
  }
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
