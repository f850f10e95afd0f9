// The kernels of the convolution for one instruction set level.
#include "conv_table.h"

#include "isa/conv_tile.h"
#include "isa/gemm_pack.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T, int Rows, int Vectors>
PYFRAME_INLINE void put(const Vec<T> (&sum)[Rows][Vectors], T* to, int64_t stride, bool add) {
  constexpr int kLane = kLanes<T>;
  if (add) {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) {
        T* const at = to + i * stride + j * kLane;
        store<T>(at, load(at) + sum[i][j]);
      }
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) store<T>(to + i * stride + j * kLane, sum[i][j]);
    }
  }
}

// How far ahead the left factor is fetched, in elements: panels follow each other, and large weights come from memory.
constexpr int64_t kAhead = 512;

template <class T, int Rows, int Vectors>
void tile(int64_t depth, const T* left, int64_t height, const T* const* right, const std::int32_t* offsets, T* sums,
          int64_t stride, bool add) {
  Vec<T> sum[Rows][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec<T>{};
  }
  const T* base[Vectors];
#pragma GCC unroll 4
  for (int j = 0; j < Vectors; ++j) base[j] = right[j];
  for (int64_t k = 0; k < depth; ++k, left += height) {
    __builtin_prefetch(left + kAhead);
    const int64_t offset = offsets[k];
    Vec<T> b[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) b[j] = load(base[j] + offset);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Vec<T> a = splat(left[i]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
    }
  }
  put<T, Rows, Vectors>(sum, sums, stride, add);
}

template <class T>
using Tile = void (*)(int64_t depth, const T* left, int64_t height, const T* const* right, const std::int32_t* offsets,
                      T* sums, int64_t stride, bool add);

template <class T, int Rows, int Vectors>
void grad_tile(int64_t depth, const T* window, const std::int32_t* rows_at, const std::int32_t* pixels, const T* right,
               int64_t width, T* sums, bool add) {
  constexpr int kLane = kLanes<T>;
  Vec<T> sum[Rows][Vectors];
  const T* row[Rows];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i) {
    row[i] = window + rows_at[i];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec<T>{};
  }
  for (int64_t p = 0; p < depth; ++p, right += width) {
    const int64_t pixel = pixels[p];
    Vec<T> b[Vectors];
#pragma GCC unroll 4
    for (int j = 0; j < Vectors; ++j) b[j] = load(right + j * kLane);
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
      const Vec<T> a = splat(row[i][pixel]);
#pragma GCC unroll 4
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
    }
  }
  put<T, Rows, Vectors>(sum, sums, width, add);
}

template <class T>
using GradTile = void (*)(int64_t depth, const T* window, const std::int32_t* rows_at, const std::int32_t* pixels,
                          const T* right, int64_t width, T* sums, bool add);

// One kernel per height and number of vectors: tiles at the edges multiply no padding.
template <class T>
struct Tiles {
  Tile<T> of[kTileRows + 1][kTileVectors + 1];
  GradTile<T> grad[kGradRows + 1][kGradVectors + 1];

  constexpr Tiles() : of{}, grad{} {
    fill<kTileRows, kTileVectors>();
    fill_grad<kGradRows, kGradVectors>();
  }

 private:
  template <int Rows, int Vectors>
  constexpr void fill() {
    of[Rows][Vectors] = &tile<T, Rows, Vectors>;
    if constexpr (Vectors > 1) fill<Rows, Vectors - 1>();
    else if constexpr (Rows > 1) fill<Rows - 1, kTileVectors>();
  }
  template <int Rows, int Vectors>
  constexpr void fill_grad() {
    grad[Rows][Vectors] = &grad_tile<T, Rows, Vectors>;
    if constexpr (Vectors > 1) fill_grad<Rows, Vectors - 1>();
    else if constexpr (Rows > 1) fill_grad<Rows - 1, kGradVectors>();
  }
};
template <class T>
constexpr Tiles<T> tiles{};

template <class T>
void multiply(const ConvBlock<T>& b) {
  for (int64_t i = 0; i < b.rows; i += b.height) {
    const int64_t rows = smaller<int64_t>(b.rows - i, b.height);
    const T* const left = b.left + i / b.height * b.left_panel;
    for (int64_t v = 0; v < b.vectors; v += kTileVectors) {
      const int64_t vectors = smaller<int64_t>(b.vectors - v, kTileVectors);
      tiles<T>.of[rows][vectors](b.depth, left, b.height, b.right + v, b.offsets,
                                 b.sums + i * b.sums_stride + v * kLanes<T>, b.sums_stride, b.add);
    }
  }
}

template <class T>
void accumulate(const ConvGradBlock<T>& b) {
  const int64_t vectors = b.width / kLanes<T>;
  for (int64_t r = 0; r < b.rows; r += kGradRows) {
    const int64_t rows = smaller<int64_t>(b.rows - r, kGradRows);
    tiles<T>.grad[rows][vectors](b.depth, b.window, b.rows_at + r, b.pixels, b.right, b.width, b.sums + r * b.width, b.add);
  }
}

// How many rows ahead a source in place is fetched: each lies in another page, where the hardware does not look ahead.
constexpr int64_t kRowsAhead = 6;

template <class T, bool Exact>
void pack_pieces(const T* from, const std::int32_t* offsets, int64_t depth, const ConvPiece* pieces, int64_t count,
                 int64_t columns, T* packed, int64_t width) {
  constexpr int kLane = kLanes<T>;
  const int64_t whole = columns / kLane * kLane;
  bool narrow = !Exact;
  for (int64_t p = 0; p < count; ++p) narrow = narrow && pieces[p].count <= kLane;
  if (narrow) {  // one vector per piece; what it writes too much is overwritten by the next piece or row
    for (int64_t k = 0; k < depth; ++k, packed += width) {
      const T* const tap = from + offsets[k];
      for (int64_t p = 0; p < count; ++p) store<T>(packed + pieces[p].column, load(tap + pieces[p].from));
    }
    return;
  }
  for (int64_t k = 0; k < depth; ++k, packed += width) {
    const T* const tap = from + offsets[k];
    if (Exact && k + kRowsAhead < depth) {
      const T* const next = from + offsets[k + kRowsAhead];
      for (int64_t p = 0; p < count; ++p) {
        for (int64_t i = 0; i < pieces[p].count; i += kLane) __builtin_prefetch(next + pieces[p].from + i);
      }
    }
    if (whole < columns) store<T>(packed + whole, Vec<T>{});
    for (int64_t p = 0; p < count; ++p) {
      const T* const source = tap + pieces[p].from;
      T* const to = packed + pieces[p].column;
      const int64_t n = pieces[p].count;
      int64_t i = 0;
      for (; i + kLane <= n; i += kLane) store<T>(to + i, load(source + i));
      if (i < n) {
        if (Exact || p + 1 == count) store_part<T>(to + i, load_part(source + i, n - i), n - i);
        else store<T>(to + i, load(source + i));
      }
    }
  }
}

template <class T>
void pack_taps(const T* from, const std::int32_t* offsets, int64_t depth, const ConvPiece* pieces, int64_t count,
               int64_t columns, bool exact, T* packed, int64_t width) {
  if (exact) pack_pieces<T, true>(from, offsets, depth, pieces, count, columns, packed, width);
  else pack_pieces<T, false>(from, offsets, depth, pieces, count, columns, packed, width);
}

// The even elements of the first vector and the odd ones of the second.
template <class T>
PYFRAME_INLINE Vec<T> every_other(Vec<T> a, Vec<T> b) {
  constexpr int n = kLanes<T>;
  if constexpr (n == 16) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
  else if constexpr (n == 8) return __builtin_shufflevector(a, b, 0, 2, 4, 6, 9, 11, 13, 15);
  else if constexpr (n == 4) return __builtin_shufflevector(a, b, 0, 2, 5, 7);
  else return __builtin_shufflevector(a, b, 0, 3);
}

// The first `count` of every other element from `from` on, nothing behind the last of them being read.
template <class T>
PYFRAME_INLINE Vec<T> load_every_other(const T* from, int64_t count) {
  constexpr int kLane = kLanes<T>;
  const int64_t reach = 2 * count - 1;
  if (reach <= kLane) return every_other<T>(load_part(from, reach), Vec<T>{});
  return every_other<T>(load(from), load_part(from + kLane - 1, reach - kLane + 1));
}

template <class T>
void fill_row(const T* from, int64_t stride, int64_t begin, int64_t end, int64_t length, T* to) {
  constexpr int kLane = kLanes<T>;
  for (int64_t i = 0; i < begin; i += kLane) store<T>(to + i, Vec<T>{});
  int64_t i = begin;
  if (stride == 1) {
    for (; i + kLane <= end; i += kLane, from += kLane) store<T>(to + i, load(from));
    if (i < end) store<T>(to + i, load_part(from, end - i));
  } else if (stride == 2) {
    // Two vectors give one; they share an element, so that nothing behind the last one used is read.
    for (; i + kLane <= end; i += kLane, from += 2 * kLane) {
      store<T>(to + i, every_other<T>(load(from), load(from + kLane - 1)));
    }
    if (i < end) store<T>(to + i, load_every_other(from, end - i));
  } else {
    for (; i < end; ++i, from += stride) to[i] = *from;
  }
  for (i = end; i < length; i += kLane) store<T>(to + i, Vec<T>{});
}

template <class T>
void transpose_lines(const T* from, int64_t line, int64_t step, int64_t lines, int64_t count, T* to, int64_t width) {
  pack_panel<T, T>(from, line, step, lines, count, width, to);
}

template <class T>
void copy_channels(const T* from, int64_t stride, int64_t channels, int64_t count, T* to, int64_t to_channel) {
  constexpr int kLane = kLanes<T>;
  for (int64_t c = 0; c < channels; c += kLane) {
    const int64_t some = smaller<int64_t>(channels - c, kLane);
    for (int64_t i = 0; i < count; i += kLane) {
      const int64_t n = smaller<int64_t>(count - i, kLane);
      Vec<T> rows[kLane];
      for (int64_t r = 0; r < kLane; ++r) {
        const T* const source = from + c + (i + r) * stride;
        rows[r] = r >= n ? Vec<T>{} : some == kLane ? load(source) : load_part(source, some);
      }
      transpose<T>(rows);
      for (int64_t r = 0; r < some; ++r) {
        T* const target = to + (c + r) * to_channel + i;
        if (n == kLane) store<T>(target, rows[r]);
        else store_part<T>(target, rows[r], n);
      }
    }
  }
}

#if defined(__AVX512F__)
// to[2 * i] = v[i] for i < count.
template <class T>
PYFRAME_INLINE void store_every_other(T* to, Vec<T> v, int64_t count) {
  constexpr int kLane = kLanes<T>;
  const Vec<T> low = zip<T, false>(v, v), high = zip<T, true>(v, v);
  const unsigned places = 0x55555555u >> (32 - 2 * kLane) & static_cast<unsigned>((std::uint64_t{1} << 2 * count) - 1);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_epi32(to, static_cast<__mmask16>(places), (__m512i)low);
    _mm512_mask_storeu_epi32(to + kLane, static_cast<__mmask16>(places >> kLane), (__m512i)high);
  } else {
    _mm512_mask_storeu_epi64(to, static_cast<__mmask8>(places), (__m512i)low);
    _mm512_mask_storeu_epi64(to + kLane, static_cast<__mmask8>(places >> kLane), (__m512i)high);
  }
}
#endif

template <class T>
void finish_run(const T* from, int64_t count, T bias, bool relu, T* to, int64_t step) {
  constexpr int kLane = kLanes<T>;
  const Vec<T> zero{};
  int64_t i = 0;
  if (step == 1) {
    for (; i + kLane <= count; i += kLane) {
      Vec<T> v = load(from + i) + bias;
      if (relu) v = v < zero ? zero : v;  // NaN stays
      store<T>(to + i, v);
    }
    if (i < count) {
      Vec<T> v = load_part(from + i, count - i) + bias;
      if (relu) v = v < zero ? zero : v;
      store_part<T>(to + i, v, count - i);
    }
    return;
  }
#if defined(__AVX512F__)
  if (step == 2) {  // masked stores of the values and of nothing between them
    for (; i < count; i += kLane) {
      const int64_t n = smaller<int64_t>(count - i, kLane);
      Vec<T> v = (n == kLane ? load(from + i) : load_part(from + i, n)) + bias;
      if (relu) v = v < zero ? zero : v;
      store_every_other<T>(to + 2 * i, v, n);
    }
    return;
  }
#endif
  for (; i < count; ++i) {
    const T v = from[i] + bias;
    to[i * step] = relu && v < 0 ? T{0} : v;
  }
}

template <class T>
void pack_weights(const T* from, int64_t line, int64_t lines, int64_t depth, int64_t height, T* to) {
  for (int64_t l = 0; l < lines; l += height) {
    pack_panel<T, T>(from + l * line, line, 1, smaller<int64_t>(lines - l, height), depth, height, to + l * depth);
  }
}

template <class T>
constexpr ConvKernels<T> conv_kernels_for{kTileRows,     kTileVectors,   kLanes<T>,           kGradVectors,
                                          &multiply<T>,  &accumulate<T>, &pack_taps<T>,       &fill_row<T>,
                                          &copy_channels<T>, &transpose_lines<T>, &finish_run<T>, &pack_weights<T>};

}  // namespace

extern const ConvTable conv_table{conv_kernels_for<float>, conv_kernels_for<double>};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
