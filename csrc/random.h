// Random numbers of Philox4x32-10 streams, and dropout. What the streams hold is in pyframe/philox.py.
#pragma once

#include <cstdint>

#include "isa_tables.h"

namespace pyframe {

struct Stream {
  std::uint64_t seed, offset;
};

// Counters whose words are made at a time: they stay in the first cache level.
constexpr std::int64_t kPhiloxBlock = 256;

// Each fills values number `begin` to `end` of an array (`out` is the array's start); `begin` is a multiple of four
// times kPhiloxBlock.
template <class T>
struct RandomKernels {
  void (*uniform)(Stream stream, std::int64_t begin, std::int64_t end, T* out);
  void (*normal)(Stream stream, std::int64_t begin, std::int64_t end, T* out);
  // y = x · scale where the word is below the threshold, else x · 0.
  void (*dropout)(Stream stream, std::int64_t begin, std::int64_t end, std::uint32_t threshold, T scale, const T* x,
                  T* y, bool past_cache);
};

struct RandomTable {
  void (*words)(Stream stream, std::int64_t begin, std::int64_t end, std::uint32_t* out);
  void (*mask)(Stream stream, std::int64_t begin, std::int64_t end, std::uint32_t threshold, std::uint8_t* out);
  RandomKernels<float> f32;
  RandomKernels<double> f64;
};
PYFRAME_ISA_TABLE(RandomTable, random_table, random_kernels)

}  // namespace pyframe
