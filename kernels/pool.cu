// Maximum and average pooling over up to three dimensions, forward and backward.
//
// A thread makes one value: forward it looks at its window, backward at the windows that have its pixel, so that nothing
// is added by two threads and the order of sums is fixed. All counts fit 32 bits; divisions by lengths are the cost.
#include "pyframe/rows.cuh"

namespace {

// A pooling along each dimension; unused ones have length 1. A stride of 0 stands for adaptive windows: window i goes
// from ⌊i · size / out⌋ to ⌈(i + 1) · size / out⌉.
struct Geometry {
  int size[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
};

struct Place {
  unsigned plane;
  int at[3];
};

__device__ __forceinline__ Place place(unsigned i, const int (&lengths)[3]) {
  Place found;
#pragma unroll
  for (int d = 2; d >= 0; --d) {
    const unsigned rest = i / static_cast<unsigned>(lengths[d]);
    found.at[d] = static_cast<int>(i - rest * static_cast<unsigned>(lengths[d]));
    i = rest;
  }
  found.plane = i;
  return found;
}

__device__ __forceinline__ unsigned thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

// The taps of a window that are inside the image: from first[d] to last[d] - 1.
struct Window {
  int start[3], first[3], last[3];
  __device__ __forceinline__ Window(const Place& p, const Geometry& g) {
#pragma unroll
    for (int d = 0; d < 3; ++d) {
      if (!g.stride[d]) {
        const long long from = static_cast<long long>(p.at[d]) * g.size[d];
        start[d] = static_cast<int>(from / g.out[d]);
        first[d] = 0;
        last[d] = static_cast<int>((from + g.size[d] + g.out[d] - 1) / g.out[d]) - start[d];
        continue;
      }
      start[d] = p.at[d] * g.stride[d] - g.padding[d];
      first[d] = start[d] < 0 ? (-start[d] + g.dilation[d] - 1) / g.dilation[d] : 0;
      last[d] = min(g.kernel[d], start[d] < g.size[d] ? (g.size[d] - 1 - start[d]) / g.dilation[d] + 1 : 0);
    }
  }
};

// The windows that a pixel may be in: from first[d] to last[d] - 1.
struct Windows {
  int first[3], last[3];
  __device__ __forceinline__ Windows(const Place& p, const Geometry& g) {
#pragma unroll
    for (int d = 0; d < 3; ++d) {
      if (!g.stride[d]) {
        const long long from = static_cast<long long>(p.at[d]) * g.out[d];
        first[d] = static_cast<int>(from / g.size[d]);
        last[d] = static_cast<int>((from + g.out[d] - 1) / g.size[d]) + 1;
        continue;
      }
      const int reach = p.at[d] + g.padding[d], low = reach - g.dilation[d] * (g.kernel[d] - 1);
      first[d] = low > 0 ? (low + g.stride[d] - 1) / g.stride[d] : 0;
      last[d] = min(g.out[d], reach / g.stride[d] + 1);
    }
  }
};

// Calls visit(o, i) for each window that a pixel of a plane may be in: its place, and its index in the output.
template <class Visit>
__device__ __forceinline__ void for_windows(const Place& p, const Geometry& g, Visit visit) {
  const Windows w(p, g);
  const long long plane = static_cast<long long>(p.plane) * g.out[0] * g.out[1] * g.out[2];
  for (int a = w.first[0]; a < w.last[0]; ++a) {
    for (int b = w.first[1]; b < w.last[1]; ++b) {
      for (int c = w.first[2]; c < w.last[2]; ++c) {
        const int o[3] = {a, b, c};
        visit(o, plane + (a * g.out[1] + b) * g.out[2] + c);
      }
    }
  }
}

// What the average over window `o` is divided by; `divisor` of 0 means the number of pixels, with or without padding.
__device__ __forceinline__ int divisor_of(const int (&o)[3], const Geometry& g, int with_padding, int divisor) {
  if (divisor) return divisor;
  int count = 1;
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    int start = o[d] * g.stride[d] - g.padding[d], stop = min(start + g.kernel[d], g.size[d] + g.padding[d]);
    if (!with_padding) {
      start = max(start, 0);
      stop = min(stop, g.size[d]);
    }
    count *= stop - start;
  }
  return count;
}

}  // namespace

#define PF_GEOMETRY                                                                                                    \
  int s0, int s1, int s2, int o0, int o1, int o2, int k0, int k1, int k2, int t0, int t1, int t2, int p0, int p1, int p2, \
      int d0, int d1, int d2
#define PF_GIVEN                                                                                      \
  {                                                                                                   \
    {s0, s1, s2}, {o0, o1, o2}, {k0, k1, k2}, {t0, t1, t2}, {p0, p1, p2}, { d0, d1, d2 }               \
  }

// The largest value of each window (NaN if there is one) and its index in the flat image: the first of equal ones.
template <class T>
__global__ void __launch_bounds__(256)
    max_pool(const T* __restrict__ x, T* __restrict__ y, long long* __restrict__ indices, unsigned total, PF_GEOMETRY) {
  using C = pf::compute_t<T>;
  const Geometry g PF_GIVEN;
  const unsigned i = thread_number();
  if (i >= total) return;
  const Place p = place(i, g.out);
  const Window w(p, g);
  const T* const image = x + static_cast<long long>(p.plane) * g.size[0] * g.size[1] * g.size[2];
  C best = 0;
  int where = -1;
  for (int a = w.first[0]; a < w.last[0]; ++a) {
    for (int b = w.first[1]; b < w.last[1]; ++b) {
      const int row =
          ((w.start[0] + a * g.dilation[0]) * g.size[1] + w.start[1] + b * g.dilation[1]) * g.size[2] + w.start[2];
      for (int c = w.first[2]; c < w.last[2]; ++c) {
        const int at = row + c * g.dilation[2];
        const C value = pf::widen(image[at]);
        if (where < 0 || value > best || value != value) {
          best = value;
          where = at;
        }
      }
    }
  }
  y[i] = pf::narrow<T>(best);
  indices[i] = where;
}

// Without the 2, the compiler takes 40 registers on sm_90 and spills one.
template <class T>
__global__ void __launch_bounds__(256, 2)
    max_pool_backward(const T* __restrict__ grad, const long long* __restrict__ indices, T* __restrict__ gx,
                      unsigned total, PF_GEOMETRY) {
  using C = pf::compute_t<T>;
  const Geometry g PF_GIVEN;
  const unsigned i = thread_number();
  if (i >= total) return;
  const Place p = place(i, g.size);
  const int pixel = (p.at[0] * g.size[1] + p.at[1]) * g.size[2] + p.at[2];
  C sum = 0;
  for_windows(p, g, [&](const int (&)[3], long long at) {
    if (indices[at] == pixel) sum += pf::widen(grad[at]);
  });
  gx[i] = pf::narrow<T>(sum);
}

template <class T>
__global__ void __launch_bounds__(256, 2)
    average_pool(const T* __restrict__ x, T* __restrict__ y, unsigned total, int with_padding, int divisor,
                 PF_GEOMETRY) {
  using C = pf::compute_t<T>;
  const Geometry g PF_GIVEN;
  const unsigned i = thread_number();
  if (i >= total) return;
  const Place p = place(i, g.out);
  const Window w(p, g);
  const T* const image = x + static_cast<long long>(p.plane) * g.size[0] * g.size[1] * g.size[2];
  C sum = 0;
  for (int a = w.first[0]; a < w.last[0]; ++a) {
    for (int b = w.first[1]; b < w.last[1]; ++b) {
      const T* const row = image + ((w.start[0] + a) * g.size[1] + w.start[1] + b) * g.size[2] + w.start[2];
      for (int c = w.first[2]; c < w.last[2]; ++c) sum += pf::widen(row[c]);
    }
  }
  y[i] = pf::narrow<T>(sum / C(divisor_of(p.at, g, with_padding, divisor)));
}

template <class T>
__global__ void __launch_bounds__(256, 2)
    average_pool_backward(const T* __restrict__ grad, T* __restrict__ gx, unsigned total, int with_padding, int divisor,
                          PF_GEOMETRY) {
  using C = pf::compute_t<T>;
  const Geometry g PF_GIVEN;
  const unsigned i = thread_number();
  if (i >= total) return;
  C sum = 0;
  for_windows(place(i, g.size), g, [&](const int (&o)[3], long long at) {
    sum += pf::widen(grad[at]) / C(divisor_of(o, g, with_padding, divisor));
  });
  gx[i] = pf::narrow<T>(sum);
}

// The mean of each plane, where one window is the whole image: a warp per plane, block (32, planes).
template <class T>
__global__ void __launch_bounds__(256)
    global_average(const T* __restrict__ x, T* __restrict__ y, long long planes, int pixels, double factor,
                   int vector) {
  using C = pf::compute_t<T>;
  const long long plane = pf::row_here<32>();
  if (plane >= planes) return;
  const T* const in = x + plane * pixels;
  C sum = 0;
  pf::for_columns<32, pf::kPack<T>>(vector, pixels, [&](int j, auto width) {
    const auto pack = pf::load<decltype(width)::value>(in + j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) sum += pf::widen(pack.values[k]);
  });
  sum = pf::warp_reduce(sum, pf::Sum());
  if (threadIdx.x == 0) y[plane] = pf::narrow<T>(sum * C(factor));
}
