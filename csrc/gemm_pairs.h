// Products of bfloat16 factors as products of pairs of elements along K; for gemm.cpp.
#pragma once

#include <cstdint>

#include "gemm_table.h"

namespace pyframe {

// A factor of bfloat16 elements as one of pairs. Where pairs lie in memory as such, they may be read there.
inline Factor<float> paired(const Factor<float>& f, std::int64_t k) {
  Factor<float> pairs = f;
  pairs.pairs_of = k;
  if (f.depth_stride == 1 && f.line_stride % 2 == 0 && k % 2 == 0 && reinterpret_cast<std::uintptr_t>(f.data) % 4 == 0) {
    pairs.type = Element::float32;
    pairs.line_stride = f.line_stride / 2;
  }
  return pairs;
}

// Whether a product can be computed on pairs; alpha and all that follows are as for float32.
inline bool fits_pairs(const Gemm<float>& p) {
  const auto fits = [](const Factor<float>& f) { return f.type == Element::bfloat16 && !f.pack && !f.pairs_of; };
  return fits(p.left) && fits(p.right) && p.k > 0 && p.k_begin == 0 && pair_kernels();
}

inline Gemm<float> paired(const Gemm<float>& p) {
  Gemm<float> pairs = p;
  pairs.left = paired(p.left, p.k), pairs.right = paired(p.right, p.k);
  pairs.k = (p.k + 1) / 2;
  return pairs;
}

}  // namespace pyframe
