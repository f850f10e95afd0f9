// Dropout as the operand of an epilogue: factors that are made again from their stream where they are needed.
#pragma once

#include "pyframe/gemm.cuh"
#include "pyframe/philox.cuh"

namespace pf {

// The factor of an element is `scale` where its word of the stream is below `threshold`, else 0: what dropout.cu
// multiplies with. If `stream` is not null, seed and first offset are read there, so that a graph that is replayed draws
// from other streams. The result's rows have a multiple of 4 elements, so that neighbours share a block of four words.
template <class C>
struct GemmDropout {
  const unsigned long long* stream;
  unsigned long long seed, offset, threshold;
  C scale;

  template <int V>
  __device__ __forceinline__ Pack<C, V> take(const GemmPlace& at) const {
    static_assert(V == 2 || V % 4 == 0, "neighbours are in whole blocks, or in half of one");
    const unsigned long long key = stream ? stream[0] : seed, first = stream ? offset + stream[1] : offset;
    Pack<C, V> pack;
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      const Words words = philox(key, first, static_cast<unsigned long long>(at.index + i) / 4);
      const bool upper = V == 2 && (at.index & 2) != 0;
#pragma unroll
      for (int k = 0; k < 4 && k < V; ++k) {
        const unsigned word = upper ? words.values[(k + 2) % 4] : words.values[k];
        pack.values[i + k] = word < threshold ? scale : C(0);
      }
    }
    return pack;
  }
};

}  // namespace pf
