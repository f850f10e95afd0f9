// The pieces of attention: products of small blocks, packing, and the rows of a mask or of dropout.
//
// Scores are kept transposed, [keys, queries]: a vector holds one key's scores for neighbouring queries, so that the
// softmax over keys needs no sums across lanes, and both products with a block of scores read it as it lies.
#pragma once

#include "attention.h"
#include "isa/philox.h"
#include "isa/vec_math.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// The register tile: kHeight × kTileVectors vectors of sums. Eight chains hide the latency of a fused multiply-add.
constexpr int kTileVectors = 2;
#if defined(__AVX512F__)
constexpr int kHeight = 8;
#else
constexpr int kHeight = 4;
#endif

// Queries that are worked on together: the columns of a register tile.
template <class T> constexpr int kPanel = kTileVectors * kLanes<T>;
static_assert(kQueryBlock % kPanel<float> == 0 && kKeyBlock % kPanel<float> == 0 && kPanel<double> % kHeight == 0,
              "blocks consist of whole panels and tiles");

PYFRAME_INLINE int64_t least(int64_t a, int64_t b) { return b < a ? b : a; }
PYFRAME_INLINE int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }
PYFRAME_INLINE constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
template <class T> PYFRAME_INLINE constexpr int64_t padded(int64_t n) { return round_up(n, kLanes<T>); }

// c (+)= left · right for one tile: left element (i, k) at left[i * left_line + k * left_depth], right row k at
// right + k * right_depth. Rows are addressed in groups of three from one pointer (+ stride, + 2 * stride are
// addressing modes).
template <class T, int Vectors>
void tile(int64_t depth, const T* left, int64_t left_line, int64_t left_depth, const T* right, int64_t right_depth,
          T* c, int64_t c_stride, bool add) {
  constexpr int L = kLanes<T>, kGroups = (kHeight + 2) / 3;
  Vec<T> sum[kHeight][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < kHeight; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) sum[i][j] = Vec<T>{};
  }
  const T* row[kGroups];
#pragma GCC unroll 3
  for (int g = 0; g < kGroups; ++g) row[g] = left + 3 * g * left_line;
  for (int64_t k = 0; k < depth; ++k) {
    Vec<T> b[Vectors];
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) b[j] = load(right + j * L);
#pragma GCC unroll 8
    for (int i = 0; i < kHeight; ++i) {
      const Vec<T> a = splat(row[i / 3][(i % 3) * left_line]);
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) sum[i][j] += a * b[j];
    }
#pragma GCC unroll 3
    for (int g = 0; g < kGroups; ++g) row[g] += left_depth;
    right += right_depth;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kHeight; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
      T* const at = c + i * c_stride + j * L;
      store<T>(at, add ? load(at) + sum[i][j] : sum[i][j]);
    }
  }
}

// The same for `rows` rows (rounded up to whole tiles) and `vectors` vectors of columns.
template <class T>
PYFRAME_INLINE void product(int64_t rows, int64_t vectors, int64_t depth, const T* left, int64_t left_line,
                            int64_t left_depth, const T* right, int64_t right_depth, T* c, int64_t c_stride, bool add) {
  constexpr int L = kLanes<T>;
  for (int64_t j = 0; j < vectors; j += kTileVectors) {
    for (int64_t i = 0; i < rows; i += kHeight) {
      if (vectors - j >= kTileVectors) {
        tile<T, kTileVectors>(depth, left + i * left_line, left_line, left_depth, right + j * L, right_depth,
                              c + i * c_stride + j * L, c_stride, add);
      } else {
        tile<T, 1>(depth, left + i * left_line, left_line, left_depth, right + j * L, right_depth,
                   c + i * c_stride + j * L, c_stride, add);
      }
    }
  }
}

template <class T>
PYFRAME_INLINE void clear(T* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store<T>(to + i, Vec<T>{});
}

template <class T>
PYFRAME_INLINE Vec<T> load_up_to(const T* from, int64_t count) {
  return count >= kLanes<T> ? load(from) : load_part(from, count);
}
template <class T>
PYFRAME_INLINE void store_up_to(T* to, Vec<T> v, int64_t count) {
  if (count >= kLanes<T>) store<T>(to, v);
  else store_part<T>(to, v, count);
}

// exp of a score relative to the highest of its row: x <= 0, or little above. 2 units in the last place near 0; for
// far lower x, where the result is small, the relative error grows to x · 1e-8. Half the instructions of vexp, which
// took a fifth of the forward pass with 32 features. exp(0) is 1 exactly.
PYFRAME_INLINE Vec<float> exp_of_score(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  x = vmax<float>(splat(-104.0f), x);
  const Vec<float> n = (x * 1.44269504088896341f + magic) - magic;
  const Vec<float> f = x * 1.44269504088896341f - n;
  Vec<float> p = splat(1.5345812025e-4f);  // minimax for 2^f, |f| <= 1/2, with an error of 2e-9
  p = p * f + 1.3399931220e-3f;
  p = p * f + 9.6184889570e-3f;
  p = p * f + 5.5503287770e-2f;
  p = p * f + 2.4022646891e-1f;
  p = p * f + 6.9314720574e-1f;
  p = p * f + 1.0f;
  return scale_by_power(p, n);
}
PYFRAME_INLINE Vec<double> exp_of_score(Vec<double> x) { return vexp(x); }

// Asks for `count` rows. Rows of a head lie a page or so apart, where the hardware does not fetch ahead; without this
// a fifth of the forward pass of 128 queries with 64 features was waiting for them.
template <class T>
PYFRAME_INLINE void prefetch_rows(Rows<const T> from, int64_t first, int64_t count, int64_t width) {
  for (int64_t r = first; r < first + count; ++r) {
    for (int64_t j = 0; j < width; j += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(from[r] + j);
  }
}
constexpr int64_t kRowsAhead = 16;

// Rows times a factor, padded with zeros to whole vectors; rows from `count` to `height` are zeros.
template <class T>
void pack_rows(Rows<const T> from, int64_t count, int64_t height, int64_t width, T factor, T* to) {
  constexpr int L = kLanes<T>;
  for (int64_t r = 0; r < count; ++r) {
    const T* const row = from[r];
    if (r + kRowsAhead < count) prefetch_rows(from, r + kRowsAhead, 1, width);
    int64_t j = 0;
    for (; j + L <= width; j += L, to += L) store<T>(to, load(row + j) * factor);
    if (j < width) {
      store<T>(to, load_part(row + j, width - j) * factor);
      to += L;
    }
  }
  clear(to, (height - count) * padded<T>(width));
}

// Transposes lanes × lanes numbers: interleaving row i with row i + lanes / 2, log2(lanes) times.
template <class T>
PYFRAME_INLINE void transpose(Vec<T>* rows) {
  constexpr int L = kLanes<T>;
  Vec<T> other[L];
#pragma GCC unroll 4
  for (int round = 1; round < L; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; ++i) interleave<T>(rows[i], rows[i + L / 2], other[2 * i], other[2 * i + 1]);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) rows[i] = other[i];
  }
}

// to[j][i] = from[i][j] · factor for up to kPanel rows, `to` being [width, kPanel]; columns from `count` on are zeros.
template <class T>
void pack_panel(Rows<const T> from, int64_t count, int64_t width, T factor, T* to) {
  constexpr int L = kLanes<T>;
  for (int64_t first = 0; first < kPanel<T>; first += L) {
    for (int64_t j = 0; j < width; j += L) {
      Vec<T> rows[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        rows[i] = first + i < count ? load_up_to(from[first + i] + j, width - j) * factor : Vec<T>{};
      }
      transpose<T>(rows);
      const int64_t columns = least(width - j, L);
      for (int i = 0; i < columns; ++i) store<T>(to + (j + i) * kPanel<T> + first, rows[i]);
    }
  }
}

// Numbers that a row of the mask adds to the scores of `count` keys from `key` on.
template <class T>
void mask_row(const AttentionShape& s, const void* mask, int64_t query, int64_t key, int64_t count, T* out) {
  const int64_t at = query * s.mask_row + key * s.mask_column;
  if (s.mask == AttentionMask::bytes) {
    const std::uint8_t* const bytes = static_cast<const std::uint8_t*>(mask) + at;
    const T out_of_it = -static_cast<T>(__builtin_inf());
    if (s.mask_column == 1) {
      for (int64_t i = 0; i < count; ++i) out[i] = bytes[i] ? T{0} : out_of_it;
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = bytes[i * s.mask_column] ? T{0} : out_of_it;
    }
  } else {
    const T* const numbers = static_cast<const T*>(mask) + at;
    if (s.mask_column == 1) {
      for (int64_t i = 0; i < count; ++i) out[i] = numbers[i];
    } else {
      for (int64_t i = 0; i < count; ++i) out[i] = numbers[i * s.mask_column];
    }
  }
}

// kept_scale or 0 for `count` weights from number `first` of the stream on. `words` has room for count + 64 words more
// than a whole number of steps.
template <class T>
void dropout_row(const AttentionShape& s, int64_t first, int64_t count, std::uint32_t* words, T* out) {
  const int64_t counter = first / 4, skipped = first % 4;
  philox(s.stream, counter, round_up((skipped + count + 3) / 4, kPhiloxStep), words);
  const T kept = static_cast<T>(s.kept_scale);
  for (int64_t i = 0; i < count; ++i) out[i] = words[skipped + i] < s.threshold ? kept : T{0};
}

// A panel of numbers by key and query from rows by query: `row(query, out)` writes one row of `count` keys. `rows` is
// room for kPanel rows of kKeyBlock.
template <class T, class Row>
PYFRAME_INLINE void by_key(int64_t queries, int64_t count, T* rows, T* to, Row row) {
  for (int64_t i = 0; i < queries; ++i) row(i, rows + i * kKeyBlock);
  pack_panel<T>({rows, kKeyBlock}, queries, count, T{1}, to);
}

// What the mask adds, as a panel [count, kPanel].
template <class T>
void mask_panel(const AttentionShape& s, const void* mask, int64_t query, int64_t queries, int64_t key, int64_t count,
                T* rows, T* to) {
  if (s.mask_row == 0) {  // the same for all queries
    mask_row<T>(s, mask, 0, key, count, rows);
    for (int64_t k = 0; k < count; ++k) {
      for (int u = 0; u < kTileVectors; ++u) store<T>(to + k * kPanel<T> + u * kLanes<T>, splat(rows[k]));
    }
    return;
  }
  by_key<T>(queries, count, rows, to, [&](int64_t i, T* out) { mask_row<T>(s, mask, query + i, key, count, out); });
}

// What dropout multiplies the weights with, as such a panel.
template <class T>
void dropout_panel(const AttentionShape& s, int64_t first_word, int64_t query, int64_t queries, int64_t key,
                   int64_t count, T* rows, T* to) {
  alignas(64) std::uint32_t words[kKeyBlock + 128];
  by_key<T>(queries, count, rows, to, [&](int64_t i, T* out) {
    dropout_row<T>(s, first_word + (query + i) * s.keys + key, count, words, out);
  });
}

// Hands out parts of a piece of memory, each aligned to 64 bytes.
template <class T>
struct Parts {
  T* next;
  T* take(int64_t count) {
    T* const part = next;
    next += round_up(count, 64 / static_cast<int64_t>(sizeof(T)));
    return part;
  }
};

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
