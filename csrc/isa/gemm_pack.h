// Packing of strided factors: any layout, half types too, into panels that the microkernel reads from front to back.
#pragma once

#include "gemm.h"
#include "isa/gemm_half.h"
#include "isa/gemm_micro.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// Copies `count` elements without touching any others; whole vectors, the last one overlapping the one before.
template <class T>
PYFRAME_INLINE void copy_exact(T* to, const T* from, int64_t count) {
  constexpr int kLane = kLanes<T>;
  if (count >= kLane) {
    for (int64_t i = 0; i + kLane <= count; i += kLane) store<T>(to + i, load(from + i));
    if (count % kLane) store<T>(to + count - kLane, load(from + count - kLane));
  } else if (count > 0) {
    store_part<T>(to, load_part(from, count), count);
  }
}

// Whole vectors and parts of one as T, from any element type.
template <class T, class S>
PYFRAME_INLINE Vec<T> load_as(const S* from) {
  if constexpr (kIsHalf<S>) return widen(from);
  else return load(from);
}
template <class T, class S>
PYFRAME_INLINE Vec<T> load_part_as(const S* from, int64_t count) {
  if constexpr (kIsHalf<S>) {
    S full[kLanes<T>] = {};
    for (int64_t i = 0; i < count; ++i) full[i] = from[i];
    return widen(full);
  } else {
    return load_part(from, count);
  }
}
template <class T, class S>
PYFRAME_INLINE T value_as(S value) {
  if constexpr (kIsHalf<S>) return widen_one(value);
  else return value;
}

// Interleaves the lower (or upper) halves of two vectors.
template <class T, bool Upper>
PYFRAME_INLINE Vec<T> zip(Vec<T> a, Vec<T> b) {
  constexpr int n = kLanes<T>, h = Upper ? n / 2 : 0;
  if constexpr (n == 16) {
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3, n + h + 3, h + 4,
                                   n + h + 4, h + 5, n + h + 5, h + 6, n + h + 6, h + 7, n + h + 7);
  } else if constexpr (n == 8) {
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1, h + 2, n + h + 2, h + 3, n + h + 3);
  } else if constexpr (n == 4) {
    return __builtin_shufflevector(a, b, h, n + h, h + 1, n + h + 1);
  } else {
    return __builtin_shufflevector(a, b, h, n + h);
  }
}

// Transposes lanes × lanes elements: log2(lanes) rounds of interleaving row i with row i + lanes / 2.
template <class T>
PYFRAME_INLINE void transpose(Vec<T>* rows) {
  constexpr int n = kLanes<T>;
  Vec<T> other[n];
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      other[2 * i] = zip<T, false>(rows[i], rows[i + n / 2]);
      other[2 * i + 1] = zip<T, true>(rows[i], rows[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) rows[i] = other[i];
  }
}

// Lines that lie side by side (line stride 1): one row of the panel is a piece of a row in memory.
template <class T, class S>
void pack_rows(const S* from, int64_t depth_stride, int64_t lines, int64_t depth, int64_t width, T* packed) {
  constexpr int kLane = kLanes<T>;
  if (lines == width && width % kLane == 0) {
    for (int64_t k = 0; k < depth; ++k, from += depth_stride, packed += width) {
      for (int64_t l = 0; l < width; l += kLane) store<T>(packed + l, load_as<T>(from + l));
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k, from += depth_stride, packed += width) {
    int64_t l = 0;
    for (; l + kLane <= lines; l += kLane) store<T>(packed + l, load_as<T>(from + l));
    if (l < lines) {
      store_part<T>(packed + l, load_part_as<T>(from + l, lines - l), lines - l);
      l = lines;
    }
    for (; l < width; ++l) packed[l] = 0;
  }
}

// Up to `lanes` lines, each contiguous along K, into columns [0, lines) of a panel, in transposed blocks.
template <class T, class S>
void pack_columns(const S* from, int64_t line_stride, int64_t lines, int64_t depth, int64_t width, T* packed) {
  constexpr int kLane = kLanes<T>;
  const bool full = lines == kLane;
  int64_t k = 0;
  for (; k < depth; k += kLane) {
    const int64_t count = depth - k < kLane ? depth - k : kLane;
    Vec<T> rows[kLane];
    for (int i = 0; i < kLane; ++i) {
      if (i >= lines) rows[i] = Vec<T>{};
      else if (count == kLane) rows[i] = load_as<T>(from + i * line_stride + k);
      else rows[i] = load_part_as<T>(from + i * line_stride + k, count);
    }
    transpose<T>(rows);
    if (full && count == kLane) {
#pragma GCC unroll 16
      for (int i = 0; i < kLane; ++i) store<T>(packed + (k + i) * width, rows[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        T* const to = packed + (k + i) * width;
        if (full) store<T>(to, rows[i]);
        else store_part<T>(to, rows[i], lines);
      }
    }
  }
}

// One panel.
template <class T, class S>
void pack_panel(const S* from, int64_t line_stride, int64_t depth_stride, int64_t lines, int64_t depth, int64_t width,
                T* packed) {
  if (line_stride == 1) return pack_rows<T, S>(from, depth_stride, lines, depth, width, packed);
  if (depth_stride == 1) {
    for (int64_t l = 0; l < lines; l += kLanes<T>) {
      pack_columns<T, S>(from + l * line_stride, line_stride, smaller<int64_t>(lines - l, kLanes<T>), depth, width,
                         packed + l);
    }
  } else {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t l = 0; l < lines; ++l) {
        packed[k * width + l] = value_as<T>(from[l * line_stride + k * depth_stride]);
      }
    }
  }
  if (lines < width) {
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t l = lines; l < width; ++l) packed[k * width + l] = 0;
    }
  }
}

// Several complete panels of lines that lie side by side. A few rows at a time, each from front to back: memory is read
// in long runs, not in pieces of one panel's width that lie a row apart.
template <class T, class S>
void pack_wide(const S* from, int64_t depth_stride, int64_t panels, int64_t depth, int64_t width, T* packed) {
  constexpr int kLane = kLanes<T>;
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t k = 0; k < depth; k += kRowsAtOnce) {
    const int64_t end = smaller<int64_t>(depth, k + kRowsAtOnce);
    for (int64_t p = 0; p < panels; ++p) {
      T* to = packed + (p * depth + k) * width;
      for (int64_t kk = k; kk < end; ++kk, to += width) {
        const S* const row = from + kk * depth_stride + p * width;
        for (int64_t l = 0; l < width; l += kLane) store<T>(to + l, load_as<T>(row + l));
      }
    }
  }
}

template <class T, class S>
void pack_strided(const Factor<T>& factor, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width,
                  T* packed) {
  const S* const from = static_cast<const S*>(factor.data) + line * factor.line_stride + k * factor.depth_stride;
  int64_t l = 0;
  if (factor.line_stride == 1 && width % kLanes<T> == 0 && lines >= 2 * width) {
    pack_wide<T, S>(from, factor.depth_stride, lines / width, depth, width, packed);
    l = lines / width * width;
  }
  for (; l < lines; l += width) {
    pack_panel<T, S>(from + l * factor.line_stride, factor.line_stride, factor.depth_stride,
                     smaller<int64_t>(lines - l, width), depth, width, packed + l * depth);
  }
}

template <class T>
void pack(const Factor<T>& factor, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width, T* packed) {
  if (factor.pack) return factor.pack(factor.context, line, lines, k, depth, width, packed);
  if constexpr (sizeof(T) == 4) {
    if (factor.type == Element::bfloat16) {
      return pack_strided<T, BFloat16>(factor, line, lines, k, depth, width, packed);
    }
    if (factor.type == Element::float16) {
      return pack_strided<T, Float16>(factor, line, lines, k, depth, width, packed);
    }
  }
  pack_strided<T, T>(factor, line, lines, k, depth, width, packed);
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
