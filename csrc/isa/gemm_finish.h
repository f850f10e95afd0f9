// What follows a product, applied to tiles that are still in the first-level cache.
#pragma once

#include "gemm.h"
#include "isa/gemm_half.h"
#include "isa/gemm_micro.h"
#include "isa/gemm_pack.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T> constexpr int kColumns = kVectors * kLanes<T>;

// Whether a tile may be stored to C as it is.
template <class T>
PYFRAME_INLINE bool is_plain(const Gemm<T>& p) {
  return p.alpha == 1 && p.beta == 0 && !p.row_bias && !p.column_bias && !p.residual && !p.map && !p.half &&
         p.activation == Activation::none;
}

// Where columns [column, column + columns) of a row of C lie: calls piece(offset in C, first of the columns, count, step).
template <class T, class Piece>
PYFRAME_INLINE void each_piece(const Gemm<T>& p, int64_t row, int64_t column, int64_t columns, Piece piece) {
  const int64_t base = row * p.row_stride;
  if (p.segment == 0) return piece(base + column * p.column_stride, int64_t{0}, columns, p.column_stride);
  for (int64_t at = 0; at < columns;) {
    const int64_t inside = (column + at) % p.segment;
    const int64_t count = smaller<int64_t>(columns - at, p.segment - inside);
    piece(base + (column + at) / p.segment * p.segment_stride + inside, at, count, int64_t{1});
    at += count;
  }
}

template <class T>
PYFRAME_INLINE void read_row(const Gemm<T>& p, const T* from, int64_t row, int64_t column, int64_t columns, T* to) {
  each_piece(p, row, column, columns, [&](int64_t offset, int64_t at, int64_t count, int64_t step)
             __attribute__((always_inline)) {
    if (step == 1) return copy_exact(to + at, from + offset, count);
    for (int64_t j = 0; j < count; ++j) to[at + j] = from[offset + j * step];
  });
}

template <class T>
PYFRAME_INLINE void write_row(const Gemm<T>& p, const T* from, int64_t row, int64_t column, int64_t columns) {
  each_piece(p, row, column, columns, [&](int64_t offset, int64_t at, int64_t count, int64_t step)
             __attribute__((always_inline)) {
    if (step == 1) return copy_exact(p.c + offset, from + at, count);
    for (int64_t j = 0; j < count; ++j) p.c[offset + j * step] = from[at + j];
  });
}

template <class T>
PYFRAME_INLINE void write_half(const Gemm<T>& p, const T* from, int64_t row, int64_t column, int64_t columns) {
  if constexpr (sizeof(T) == 4) {
    each_piece(p, row, column, columns, [&](int64_t offset, int64_t at, int64_t count, int64_t step)
               __attribute__((always_inline)) {
      if (p.half_type == Element::bfloat16) {
        BFloat16* const to = static_cast<BFloat16*>(p.half) + offset;
        int64_t j = 0;
        for (; step == 1 && j + kLanes<T> <= count; j += kLanes<T>) store_bfloat16(to + j, load(from + at + j));
        for (; j < count; ++j) to[j * step] = narrow_bfloat16(from[at + j]);
      } else {
        Float16* const to = static_cast<Float16*>(p.half) + offset;
        for (int64_t j = 0; j < count; ++j) to[j * step] = narrow_float16(from[at + j]);
      }
    });
  }
}

// finish_row for a whole row of a tile that is contiguous in C, the usual case: nothing goes through a buffer.
template <class T>
PYFRAME_INLINE void finish_full_row(const Gemm<T>& p, int64_t row, int64_t column, int64_t offset, const T* sums,
                                    bool first, bool last) {
  constexpr int kLane = kLanes<T>;
  T* const c = p.c + offset;
  Vec<T> value[kVectors];
  for (int j = 0; j < kVectors; ++j) value[j] = load(sums + j * kLane) * p.alpha;
  const T factor = first ? p.beta : T{1};
  if (factor != 0) {
    for (int j = 0; j < kVectors; ++j) value[j] += load(c + j * kLane) * factor;
  }
  if (last) {
    if (p.row_bias) {
      for (int j = 0; j < kVectors; ++j) value[j] += p.row_bias[row];
    }
    if (p.column_bias) {
      for (int j = 0; j < kVectors; ++j) value[j] += load(p.column_bias + column + j * kLane);
    }
    if (p.residual) {
      for (int j = 0; j < kVectors; ++j) value[j] += load(p.residual + offset + j * kLane);
    }
    if (p.activation == Activation::relu) {
      const Vec<T> zero{};
      for (int j = 0; j < kVectors; ++j) value[j] = value[j] < zero ? zero : value[j];  // NaN stays
    }
  }
  for (int j = 0; j < kVectors; ++j) store<T>(c + j * kLane, value[j]);
}

// Finishes up to kColumns columns of a row whose sums lie at `sums`, readable in full width. Of a sum that comes in
// parts of K, the first is stored, the others are added, and the last one is followed by everything else.
template <class T>
PYFRAME_INLINE void finish_row(const Gemm<T>& p, int64_t row, int64_t column, int64_t columns, const T* sums, bool first,
                               bool last) {
  constexpr int kLane = kLanes<T>;
  if (columns == kColumns<T> && !(last && (p.map || p.half))) {
    if (p.segment == 0 && p.column_stride == 1) {
      return finish_full_row(p, row, column, row * p.row_stride + column, sums, first, last);
    }
    if (p.segment != 0 && column % p.segment + columns <= p.segment) {
      const int64_t offset = column / p.segment * p.segment_stride + column % p.segment;
      return finish_full_row(p, row, column, row * p.row_stride + offset, sums, first, last);
    }
  }
  Vec<T> value[kVectors];
  alignas(64) T buffer[kColumns<T>] = {};
  for (int j = 0; j < kVectors; ++j) value[j] = load(sums + j * kLane) * p.alpha;
  const T factor = first ? p.beta : T{1};
  if (factor != 0) {
    read_row(p, p.c, row, column, columns, buffer);
    for (int j = 0; j < kVectors; ++j) value[j] += load(buffer + j * kLane) * factor;
  }
  if (last) {
    if (p.row_bias) {
      for (int j = 0; j < kVectors; ++j) value[j] += p.row_bias[row];
    }
    if (p.column_bias) {
      copy_exact(buffer, p.column_bias + column, columns);
      for (int j = 0; j < kVectors; ++j) value[j] += load(buffer + j * kLane);
    }
    if (p.residual) {
      read_row(p, p.residual, row, column, columns, buffer);
      for (int j = 0; j < kVectors; ++j) value[j] += load(buffer + j * kLane);
    }
    if (p.activation == Activation::relu) {
      const Vec<T> zero{};
      for (int j = 0; j < kVectors; ++j) value[j] = value[j] < zero ? zero : value[j];  // NaN stays
    }
  }
  for (int j = 0; j < kVectors; ++j) store<T>(buffer + j * kLane, value[j]);
  if (last && p.map) p.map(p.map_context, buffer, columns);
  if (last && p.half) return write_half(p, buffer, row, column, columns);
  write_row(p, buffer, row, column, columns);
}

template <class T>
void finish(const Gemm<T>& p, int64_t row, int64_t rows, int64_t column, int64_t columns, const T* sums,
            int64_t row_stride, int64_t column_stride) {
  alignas(64) T line[kColumns<T>] = {};
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; j += kColumns<T>) {
      const int64_t count = smaller<int64_t>(columns - j, kColumns<T>);
      const T* const from = sums + i * row_stride + j * column_stride;
      if (column_stride == 1) {
        copy_exact(line, from, count);
      } else {
        for (int64_t l = 0; l < count; ++l) line[l] = from[l * column_stride];
      }
      finish_row(p, row + i, column + j, count, line, true, true);
    }
  }
}

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
