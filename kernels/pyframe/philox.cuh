// Words of Philox4x32-10 streams (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). What the
// streams hold is in pyframe/philox.py: the same bits as on the CPU.
#pragma once

#include "pyframe/platform.cuh"

namespace pf {

struct Words {
  unsigned values[4];
};

// Words 4·block … 4·block+3 of the stream (seed, offset).
__device__ __forceinline__ Words philox(unsigned long long seed, unsigned long long offset, unsigned long long block) {
  unsigned c0 = static_cast<unsigned>(block), c1 = static_cast<unsigned>(block >> 32);
  unsigned c2 = static_cast<unsigned>(offset), c3 = static_cast<unsigned>(offset >> 32);
  unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<unsigned>(p1);
    c3 = static_cast<unsigned>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace pf
