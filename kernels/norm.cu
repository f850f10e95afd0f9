// Layer, group and RMS normalisation over the rows of a matrix, forward and backward: a warp or a block per row.
//
// The mean is subtracted before squares are added, so that a large mean costs no digits; a row of up to some 10000
// values is read from memory once and from the cache after that. The gradients of weight and bias are sums over rows:
// channel_sums.cu.
#include "pyframe/rows.cuh"

namespace {

__device__ __forceinline__ float reciprocal_root(float x) { return 1.0f / sqrt(x); }
__device__ __forceinline__ double reciprocal_root(double x) { return rsqrt(x); }

// Where the weight of column j is: at j itself, or where rows are groups of channels, at the channel.
struct Affine {
  int positions;  // positions of a channel; 0 where each column has its own weight
  int first;      // the row's first channel
  __device__ __forceinline__ Affine(long long row, int columns, int positions_, int groups)
      : positions(positions_), first(0) {
    if (positions) first = static_cast<int>(static_cast<unsigned>(row) % static_cast<unsigned>(groups)) * (columns / positions);
  }
  __device__ __forceinline__ int at(int j) const { return positions ? first + j / positions : j; }
  // From one column of a pack to the next: a pack never reaches into the next channel.
  __device__ __forceinline__ int step() const { return positions ? 0 : 1; }
};

}  // namespace

// `mean` is null for RMS normalisation; `share` is 1 / columns: a division of doubles is a call, whose registers are
// spilled. Block: (GROUP, rows of a block).
template <class T, int GROUP>
__global__ void __launch_bounds__(256, 4)
    row_norm(const T* __restrict__ x, const pf::compute_t<T>* __restrict__ weight,
             const pf::compute_t<T>* __restrict__ bias, T* __restrict__ y, pf::compute_t<T>* __restrict__ mean,
             pf::compute_t<T>* __restrict__ rstd, long long rows, int columns, int positions, int groups, double share,
             double eps, int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;  // a whole warp: there is no barrier where a block has several rows
  const T* const in = x + row * columns;
  T* const out = y + row * columns;
  C center = 0;
  if (mean) {
    C sum = 0;
    pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
      const auto pack = pf::load<decltype(width)::value>(in + j);
#pragma unroll
      for (int k = 0; k < decltype(width)::value; ++k) sum += pf::widen(pack.values[k]);
    });
    center = pf::group_reduce<GROUP>(sum, pf::Sum()) * C(share);
  }
  C squares = 0, rest = 0;
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    const auto pack = pf::load<decltype(width)::value>(in + j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) {
      const C d = pf::widen(pack.values[k]) - center;
      squares += d * d;
      rest += d;
    }
  });
  // What rounding the mean left over: subtracted apart, it keeps the digits of rows whose mean is large.
  if (mean) rest = pf::group_reduce<GROUP>(rest, pf::Sum()) * C(share);
  else rest = 0;
  const C scale = reciprocal_root(pf::group_reduce<GROUP>(squares, pf::Sum()) * C(share) - rest * rest + C(eps));
  if (threadIdx.x == 0) {
    if (mean) mean[row] = center + rest;
    rstd[row] = scale;
  }
  const Affine affine(row, columns, positions, groups);
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    auto pack = pf::load<decltype(width)::value>(in + j);
    const int at = affine.at(j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) {
      C value = (pf::widen(pack.values[k]) - center - rest) * scale;
      if (weight) value *= weight[at + k * affine.step()];
      if (bias) value += bias[at + k * affine.step()];
      pack.values[k] = pf::narrow<T>(value);
    }
    pf::store(out + j, pack);
  });
}

// With z = (x - mean) · rstd and h = g · weight: gx = rstd · (h - mean(h) - z · mean(h · z)); without mean(h) for RMS
// normalisation (`mean` null).
template <class T, int GROUP>
__global__ void __launch_bounds__(256, 4)
    row_norm_backward(const T* __restrict__ grad, const T* __restrict__ x, const pf::compute_t<T>* __restrict__ mean,
                      const pf::compute_t<T>* __restrict__ rstd, const pf::compute_t<T>* __restrict__ weight,
                      T* __restrict__ gx, long long rows, int columns, int positions, int groups, double share,
                      int vector) {
  using C = pf::compute_t<T>;
  constexpr int V = pf::kPack<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;
  const T* const g = grad + row * columns;
  const T* const in = x + row * columns;
  const C center = mean ? mean[row] : C(0), scale = rstd[row];
  const Affine affine(row, columns, positions, groups);
  C sum_h = 0, sum_hz = 0;
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    const auto gs = pf::load<decltype(width)::value>(g + j);
    const auto xs = pf::load<decltype(width)::value>(in + j);
    const int at = affine.at(j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) {
      C h = pf::widen(gs.values[k]);
      if (weight) h *= weight[at + k * affine.step()];
      sum_h += h;
      sum_hz += h * ((pf::widen(xs.values[k]) - center) * scale);
    }
  });
  const C along_1 = mean ? pf::group_reduce<GROUP>(sum_h, pf::Sum()) * C(share) : C(0);
  const C along_z = pf::group_reduce<GROUP>(sum_hz, pf::Sum()) * C(share);
  pf::for_columns<GROUP, V>(vector, columns, [&](int j, auto width) {
    auto gs = pf::load<decltype(width)::value>(g + j);
    const auto xs = pf::load<decltype(width)::value>(in + j);
    const int at = affine.at(j);
#pragma unroll
    for (int k = 0; k < decltype(width)::value; ++k) {
      C h = pf::widen(gs.values[k]);
      if (weight) h *= weight[at + k * affine.step()];
      const C z = (pf::widen(xs.values[k]) - center) * scale;
      gs.values[k] = pf::narrow<T>((h - along_1 - z * along_z) * scale);
    }
    pf::store(gx + row * columns + j, gs);
  });
}
