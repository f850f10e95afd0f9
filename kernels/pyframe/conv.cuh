// Positions of convolutions, and the sum over chunks that ends every weight gradient.
//
// The input gradient of a convolution reads the output's gradient as the convolution reads its input: a destination
// position has a row of source positions at one distance, and each has a tap of the weight. So both passes, and
// transposed convolutions, are one kernel; only the numbers of `Reach` differ.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

// A convolution along each of three dimensions; unused ones have length 1. `size` are the lengths of what is read,
// `out` of what is written; `tap_step` is stride / gcd(stride, dilation).
struct ConvGeometry {
  int size[3], out[3], kernel[3], stride[3], padding[3], dilation[3], tap_step[3];
};

#define PF_CONV_GEOMETRY                                                                                          \
  int s0, int s1, int s2, int o0, int o1, int o2, int k0, int k1, int k2, int t0, int t1, int t2, int p0, int p1, \
      int p2, int d0, int d1, int d2, int j0, int j1, int j2
#define PF_CONV_GIVEN                                                                                            \
  {                                                                                                              \
    {s0, s1, s2}, {o0, o1, o2}, {k0, k1, k2}, {t0, t1, t2}, {p0, p1, p2}, {d0, d1, d2}, { j0, j1, j2 }            \
  }

// Division by a number that is known at the launch; `n` is below 2^31 (see cuda_geometry.division).
struct Divisor {
  unsigned value, multiplier, shift;
  __device__ __forceinline__ unsigned of(unsigned n) const { return (__umulhi(n, multiplier) + n) >> shift; }
};

#define PF_CONV_DIVISORS unsigned m0, unsigned h0, unsigned m1, unsigned h1, unsigned m2, unsigned h2
#define PF_CONV_DIVISORS_GIVEN                                        \
  {                                                                   \
    {static_cast<unsigned>(o0), m0, h0},                              \
        {static_cast<unsigned>(o1), m1, h1}, {                        \
      static_cast<unsigned>(o2), m2, h2                               \
    }                                                                 \
  }

// Source positions at, at + step, ... of one destination position along one dimension, `count` of them, and the taps of
// the weight that they meet: tap, tap + tap_step, ...
struct Reach {
  int at, step, tap, tap_step, count;

  // Before any position is left out for being outside.
  __device__ __forceinline__ static Reach all(const ConvGeometry& g, int d, int i, bool transposed) {
    if (!transposed) return {i * g.stride[d] - g.padding[d], g.dilation[d], 0, 1, g.kernel[d]};
    const int from = i + g.padding[d];
    int tap = 0;
    while (tap < g.kernel[d] && (from - tap * g.dilation[d]) % g.stride[d]) ++tap;
    const int step = g.dilation[d] * g.tap_step[d] / g.stride[d];
    return {(from - tap * g.dilation[d]) / g.stride[d], -step, tap, g.tap_step[d],
            (g.kernel[d] - tap + g.tap_step[d] - 1) / g.tap_step[d]};
  }

  // Those inside of what is read.
  __device__ __forceinline__ static Reach inside(const ConvGeometry& g, int d, int i, bool transposed) {
    Reach r = all(g, d, i, transposed);
    const int size = g.size[d];
    int skip, stop;
    if (r.step > 0) {
      skip = r.at < 0 ? (r.step - 1 - r.at) / r.step : 0;
      stop = r.at < size ? (size - 1 - r.at) / r.step + 1 : 0;
    } else {
      skip = r.at >= size ? (r.at - size) / -r.step + 1 : 0;
      stop = r.at >= 0 ? r.at / -r.step + 1 : 0;
    }
    r.count = max(min(r.count, stop) - skip, 0);
    r.at += skip * r.step;
    r.tap += skip * r.tap_step;
    return r;
  }
};

// A number taken apart into an index per dimension, the last the fastest, and the rest.
struct Place {
  unsigned rest;
  int at[3];
};

__device__ __forceinline__ Place place(unsigned i, int n0, int n1, int n2) {
  Place found;
  const int lengths[3] = {n0, n1, n2};
#pragma unroll
  for (int d = 2; d >= 0; --d) {
    const unsigned rest = i / static_cast<unsigned>(lengths[d]);
    found.at[d] = static_cast<int>(i - rest * static_cast<unsigned>(lengths[d]));
    i = rest;
  }
  found.rest = i;
  return found;
}

}  // namespace pf
