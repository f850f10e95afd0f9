// Products of bfloat16 factors with an instruction that multiplies pairs along K (AVX512_BF16): twice float32's rate.
//
// A pair is one 32-bit element of a panel, and K counts pairs; all else is as in a float32 product. The sums are float32.
// The instruction takes subnormal inputs and results for zero; bfloat16 has float32's range, so that is 1e-38 and less.
#include "gemm_table.h"

#include "isa/gemm_finish.h"
#include "isa/gemm_micro.h"
#include "isa/gemm_pack.h"
#include "isa/gemm_tiles.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using Half = std::uint16_t;

struct DotPairs {
  template <class T>
  static PYFRAME_INLINE Vec<T> add(Vec<T> sum, Vec<T> a, Vec<T> b) {
    return (Vec<T>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
  }
};

PYFRAME_INLINE void store_pairs(float* to, Words pairs) { __builtin_memcpy(to, &pairs, sizeof pairs); }

// The first `count` pairs only.
PYFRAME_INLINE void store_pairs(float* to, Words pairs, int64_t count) {
  _mm512_mask_storeu_epi32(to, static_cast<__mmask16>((1u << count) - 1), (__m512i)pairs);
}

// Up to two vectors' worth of elements, zeros behind them.
PYFRAME_INLINE Words load_elements(const Half* from, int64_t count) {
  const __mmask32 m = count < 32 ? (1u << count) - 1 : ~0u;
  return (Words)_mm512_maskz_loadu_epi16(m, from);
}

// kLanes<float> pairs of the rows at `from` and `next`; a row past the end of K, nullptr, is zeros.
PYFRAME_INLINE Words join(const Half* from, const Half* next) {
  return next ? load_words(from) | load_words(next) << 16 : load_words(from);
}
PYFRAME_INLINE Words load_words_part(const Half* from, int64_t count) {
  const __mmask16 m = static_cast<__mmask16>((1u << count) - 1);
  return (Words)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(m, from));
}
PYFRAME_INLINE Words join_part(const Half* from, const Half* next, int64_t count) {
  const Words low = load_words_part(from, count);
  return next ? low | load_words_part(next, count) << 16 : low;
}

// Row k of pairs of one panel whose lines lie side by side.
PYFRAME_INLINE void pack_row(const Half* from, const Half* next, int64_t lines, int64_t width, float* packed) {
  constexpr int kLane = kLanes<float>;
  int64_t l = 0;
  for (; l + kLane <= lines; l += kLane) store_pairs(packed + l, join(from + l, next ? next + l : nullptr));
  for (; l < width; l += kLane) {
    const int64_t count = smaller<int64_t>(kLane, larger<int64_t>(0, lines - l));
    const Words pairs = join_part(from + l, next ? next + l : nullptr, count);
    if (l + kLane <= width) store_pairs(packed + l, pairs);
    else store_pairs(packed + l, pairs, width - l);
  }
}

// Several panels of lines that lie side by side, a few rows at a time: memory is read in long runs.
void pack_side_by_side(const Half* from, int64_t depth_stride, int64_t lines, int64_t elements, int64_t depth,
                       int64_t width, float* packed) {
  constexpr int64_t kRowsAtOnce = 8;
  for (int64_t k = 0; k < depth; k += kRowsAtOnce) {
    const int64_t end = smaller<int64_t>(depth, k + kRowsAtOnce);
    for (int64_t l = 0; l < lines; l += width) {
      const int64_t here = smaller<int64_t>(lines - l, width);
      for (int64_t kk = k; kk < end; ++kk) {
        const Half* const row = from + 2 * kk * depth_stride + l;
        pack_row(row, 2 * kk + 1 < elements ? row + depth_stride : nullptr, here, width, packed + l * depth + kk * width);
      }
    }
  }
}

// Up to kLanes<float> lines, each contiguous along K, into columns [0, count) of a panel, in transposed blocks; lines past
// `lines` are zeros.
void pack_lines(const Half* from, int64_t line_stride, int64_t lines, int64_t count, int64_t elements, int64_t depth,
                int64_t width, float* packed) {
  constexpr int kLane = kLanes<float>;
  for (int64_t k = 0; k < depth; k += kLane) {
    Words rows[kLane];
    const int64_t here = elements - 2 * k;
    for (int i = 0; i < kLane; ++i) {
      rows[i] = i < lines ? load_elements(from + i * line_stride + 2 * k, here) : Words{};
    }
    transpose<std::int32_t>(rows);
    const int64_t end = smaller<int64_t>(kLane, depth - k);
    for (int64_t i = 0; i < end; ++i) store_pairs(packed + (k + i) * width, rows[i], count);
  }
}

void pack_strided_pairs(const Half* from, int64_t line_stride, int64_t depth_stride, int64_t lines, int64_t elements,
                        int64_t depth, int64_t width, float* packed) {
  for (int64_t k = 0; k < depth; ++k) {
    const bool whole = 2 * k + 1 < elements;
    for (int64_t l = 0; l < width; ++l) {
      std::uint32_t pair = 0;
      if (l < lines) {
        const Half* const at = from + l * line_stride + 2 * k * depth_stride;
        pair = *at | std::uint32_t{whole ? at[depth_stride] : Half{0}} << 16;
      }
      __builtin_memcpy(packed + k * width + l, &pair, sizeof pair);
    }
  }
}

// GemmKernels::pack, where k and depth count pairs. A factor that can be read as pairs where it lies comes as float32.
void pack_pairs(const Factor<float>& factor, int64_t line, int64_t lines, int64_t k, int64_t depth, int64_t width,
                float* packed) {
  if (factor.type == Element::float32) return pack(factor, line, lines, k, depth, width, packed);
  const int64_t line_stride = factor.line_stride, depth_stride = factor.depth_stride;
  const Half* const from = static_cast<const Half*>(factor.data) + line * line_stride + 2 * k * depth_stride;
  const int64_t elements = smaller<int64_t>(2 * depth, factor.pairs_of - 2 * k);
  if (line_stride == 1) return pack_side_by_side(from, depth_stride, lines, elements, depth, width, packed);
  for (int64_t l = 0; l < lines; l += width) {
    const int64_t here = smaller<int64_t>(lines - l, width);
    const Half* const first = from + l * line_stride;
    float* const panel = packed + l * depth;
    if (depth_stride != 1) {
      pack_strided_pairs(first, line_stride, depth_stride, here, elements, depth, width, panel);
      continue;
    }
    for (int64_t i = 0; i < width; i += kLanes<float>) {
      pack_lines(first + i * line_stride, line_stride, smaller<int64_t>(larger<int64_t>(0, here - i), kLanes<float>),
                 smaller<int64_t>(width - i, kLanes<float>), elements, depth, width, panel + i);
    }
  }
}

}  // namespace

extern const GemmKernels<float> gemm_pair_kernels{kRows,          kColumns<float>, &pack_pairs, &multiply<float, DotPairs>,
                                                  &finish<float>, nullptr,         nullptr,     &add<float>,
                                                  nullptr};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
