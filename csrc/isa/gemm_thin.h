// Thin products: one factor has at most kThin lines, so that the other, big one is read once and memory sets the pace.
#pragma once

#include "gemm_table.h"
#include "isa/gemm_micro.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// Lines of the big factor that thin_dot reads side by side: as many sums as there are registers for.
template <int Few>
constexpr int kDotLines = smaller<int>(kVectorBytes == 64 ? 8 : 4, (kVectorBytes == 64 ? 24 : 10) / Few);

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
#pragma GCC unroll 8
  for (int i = 0; i < Few; ++i) {
#pragma GCC unroll 8
    for (int l = 0; l < Lines; ++l) out[i * out_few + l * out_line] = hsum<T>(sum[i][l]);
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
void axpy_few(const T* few, const T* big, std::int64_t depth_stride, std::int64_t lines, std::int64_t depth, T* out,
              std::int64_t out_few) {
  constexpr int kRowsAtOnce = kAxpyRows<Few>;
  std::int64_t k = 0;
  for (; k + kRowsAtOnce <= depth; k += kRowsAtOnce) {
    axpy_rows<T, Few, kRowsAtOnce>(few + k, depth, big + k * depth_stride, depth_stride, lines, out, out_few, k == 0);
  }
  for (; k < depth; ++k) {
    axpy_rows<T, Few, 1>(few + k, depth, big + k * depth_stride, depth_stride, lines, out, out_few, k == 0);
  }
}

template <class T>
void thin_dot(const T* few, std::int64_t count, const T* big, std::int64_t line_stride, std::int64_t lines,
              std::int64_t depth, T* out, std::int64_t out_few, std::int64_t out_line) {
  switch (count) {
    case 1: return dot_few<T, 1>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 2: return dot_few<T, 2>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 3: return dot_few<T, 3>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 4: return dot_few<T, 4>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 5: return dot_few<T, 5>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 6: return dot_few<T, 6>(few, big, line_stride, lines, depth, out, out_few, out_line);
    case 7: return dot_few<T, 7>(few, big, line_stride, lines, depth, out, out_few, out_line);
    default: return dot_few<T, 8>(few, big, line_stride, lines, depth, out, out_few, out_line);
  }
}

template <class T>
void thin_axpy(const T* few, std::int64_t count, const T* big, std::int64_t depth_stride, std::int64_t lines,
               std::int64_t depth, T* out, std::int64_t out_few) {
  switch (count) {
    case 1: return axpy_few<T, 1>(few, big, depth_stride, lines, depth, out, out_few);
    case 2: return axpy_few<T, 2>(few, big, depth_stride, lines, depth, out, out_few);
    case 3: return axpy_few<T, 3>(few, big, depth_stride, lines, depth, out, out_few);
    case 4: return axpy_few<T, 4>(few, big, depth_stride, lines, depth, out, out_few);
    case 5: return axpy_few<T, 5>(few, big, depth_stride, lines, depth, out, out_few);
    case 6: return axpy_few<T, 6>(few, big, depth_stride, lines, depth, out, out_few);
    case 7: return axpy_few<T, 7>(few, big, depth_stride, lines, depth, out, out_few);
    default: return axpy_few<T, 8>(few, big, depth_stride, lines, depth, out, out_few);
  }
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
