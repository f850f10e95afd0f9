// Words of Philox4x32-10 streams, several counters at a time. What the streams hold is in pyframe/philox.py.
#pragma once

#include "isa/vec.h"
#include "random.h"

namespace pyframe {
namespace PYFRAME_ISA {

using Words = Vec<std::uint64_t>;  // a 32-bit word in the low half of each lane

// The product of the low halves.
PYFRAME_INLINE Words multiply_low(Words a, std::uint32_t b) {
  const Words m = splat<std::uint64_t>(b);
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)m);
#elif defined(__AVX2__)
  return (Words)_mm256_mul_epu32((__m256i)a, (__m256i)m);
#elif defined(__SSE2__)
  return (Words)_mm_mul_epu32((__m128i)a, (__m128i)m);
#else
  return (a & 0xffffffff) * m;
#endif
}

// Lanes of a and b in turn: the first and the second half of a0 b0 a1 b1 ...
template <class T>
PYFRAME_INLINE void interleave(Vec<T> a, Vec<T> b, Vec<T>& first, Vec<T>& second) {
  constexpr int L = kLanes<T>;
  Mask<T> low, high;
  for (int i = 0; i < L; ++i) {
    low[i] = i / 2 + (i % 2 ? L : 0);
    high[i] = L / 2 + i / 2 + (i % 2 ? L : 0);
  }
  first = __builtin_shuffle(a, b, low);
  second = __builtin_shuffle(a, b, high);
}

// Counters are made in steps of this many: two vectors at a time hide the latency of the multiplications.
constexpr std::int64_t kPhiloxStep = 2 * kLanes<std::uint64_t>;

// The words of `counters` (a multiple of kPhiloxStep) counters from `first` on. High halves of lanes hold rubbish on
// the way: a product takes the low halves only.
PYFRAME_INLINE void philox(Stream stream, std::int64_t first, std::int64_t counters, std::uint32_t* out) {
  constexpr int L = kLanes<std::uint64_t>;
  Words index;
  for (int i = 0; i < L; ++i) index[i] = static_cast<std::uint64_t>(first + i);
  const std::uint32_t low_key = static_cast<std::uint32_t>(stream.seed);
  const std::uint32_t high_key = static_cast<std::uint32_t>(stream.seed >> 32);
  for (std::int64_t j = 0; j < counters; j += kPhiloxStep) {
    Words c0[2], c1[2], c2[2], c3[2];
    for (int u = 0; u < 2; ++u) {
      c0[u] = index;
      c1[u] = index >> 32;
      c2[u] = splat<std::uint64_t>(stream.offset & 0xffffffff);
      c3[u] = splat<std::uint64_t>(stream.offset >> 32);
      index += splat<std::uint64_t>(L);
    }
    std::uint32_t k0 = low_key, k1 = high_key;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Words key0 = splat<std::uint64_t>(k0), key1 = splat<std::uint64_t>(k1);
      for (int u = 0; u < 2; ++u) {
        const Words p0 = multiply_low(c0[u], 0xD2511F53u), p1 = multiply_low(c2[u], 0xCD9E8D57u);
        c0[u] = (p1 >> 32) ^ c1[u] ^ key0;
        c1[u] = p1;
        c2[u] = (p0 >> 32) ^ c3[u] ^ key1;
        c3[u] = p0;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int u = 0; u < 2; ++u) {
      const Words low = (c0[u] & 0xffffffff) | (c1[u] << 32), high = (c2[u] & 0xffffffff) | (c3[u] << 32);
      Words a, b;
      interleave<std::uint64_t>(low, high, a, b);
      store<std::uint64_t>(reinterpret_cast<std::uint64_t*>(out + 4 * (j + u * L)), a);
      store<std::uint64_t>(reinterpret_cast<std::uint64_t*>(out + 4 * (j + u * L)) + L, b);
    }
  }
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
