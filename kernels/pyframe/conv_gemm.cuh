// Convolutions and their gradients as products of matrices (implicit GEMM: S. Chetlur et al., "cuDNN: Efficient
// primitives for deep learning", 2014), on the main loops of gemm_loop.cuh and gemm_simt.cuh.
#pragma once

#include "pyframe/chunks.cuh"
#include "pyframe/conv_loaders.cuh"

namespace pf {

// ---------------------------------------------------------------- the two main loops, behind one face

// Where the value of a row is written in an array in C order; `image` is negative where it is not.
struct Written {
  int image, pixel;
};

// The counterpart of for_rows: neighbouring lanes get neighbours of a column, f(written, column, values) with one value
// each. `place` says where a row is written; a lane asks for its own ones once. Needs no more memory.
template <class Grid, class PlaceOf, class F>
__device__ __forceinline__ void for_columns(const Accumulators<Grid>& d, unsigned char* memory, PlaceOf place, F f) {
  // 4 more floats to a line: the stores of a warp, in eight lines, reach all 32 banks.
  constexpr int kLine = Grid::kWarpM + 4, kTimes = Grid::kWarpM / 32;
  static_assert(kTimes >= 1 && 8 * kLine <= 16 * (Grid::kWarpN + 8), "the memory of for_rows is enough");
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const lines = reinterpret_cast<float*>(memory) + static_cast<int>(threadIdx.x) / 32 * 16 * (Grid::kWarpN + 8);
  Written written[kTimes][1];
#pragma unroll
  for (int t = 0; t < kTimes; ++t) written[t][0] = place(Grid::row() + t * 32 + lane);
#pragma unroll
  for (int j = 0; j < Grid::kTilesN; ++j) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < Grid::kTilesM; ++i) {
      float* const at = lines + lane % 4 * 2 * kLine + i * 16 + lane / 4;
      at[0] = d.values[i][j][0];
      at[kLine] = d.values[i][j][1];
      at[8] = d.values[i][j][2];
      at[kLine + 8] = d.values[i][j][3];
    }
    __syncwarp();
#pragma unroll 1
    for (int c = 0; c < 8; ++c) {
#pragma unroll
      for (int t = 0; t < kTimes; ++t) {
        const float value[1] = {lines[c * kLine + t * 32 + lane]};
        f(written[t], Grid::column() + j * 8 + c, value);
      }
    }
  }
}

// Tensor cores. K_INNER: values along k lie next to each other, in both operands; BYTES: what may be copied at once.
template <class T_, int M, int N, int WARPS_M, int WARPS_N, int STAGES, bool K_INNER, int BYTES>
class MmaEngine {
 public:
  using T = T_;
  using C = float;
  using Grid = WarpGrid<M, N, WARPS_M, WARPS_N>;
  using TileA = SharedTile<T, M, 64 / sizeof(T), K_INNER>;
  using TileB = SharedTile<T, N, 64 / sizeof(T), K_INNER>;
  using SpotA = MmaSpot<TileA, Grid::kThreads, BYTES>;
  using SpotB = MmaSpot<TileB, Grid::kThreads, BYTES>;
  static constexpr int kM = M, kN = N, kThreads = Grid::kThreads, kV = 16 / sizeof(T), kDepth = TileA::kDepth;
  static_assert(kRowsBytes<Grid> <= Pipeline<TileA, TileB, STAGES>::kBytes, "results go through the pipeline's memory");

  template <class LoaderA, class LoaderB>
  __device__ __forceinline__ void run(LoaderA& a, LoaderB& b, int first, int last) {
    sums_.clear();
    if (first < last) gemm_loop<Grid, STAGES>(sums_, a, b, first, last, dynamic_shared<unsigned char>());
  }
  template <class F>
  __device__ __forceinline__ void rows(F f) const {
    for_rows<Grid, kV>(sums_, dynamic_shared<unsigned char>(), f);
  }
  template <class PlaceOf, class F>
  __device__ __forceinline__ void columns(PlaceOf place, F f) const {
    for_columns<Grid>(sums_, dynamic_shared<unsigned char>(), place, f);
  }

 private:
  Accumulators<Grid> sums_;
};

// The ordinary units.
template <class T_, int M, int N, int ROWS, int COLUMNS, int STAGES, bool K_INNER, int BYTES>
class SimtEngine {
 public:
  using T = T_;
  using C = T;
  using Gemm = SimtGemm<T, M, N, ROWS, COLUMNS, STAGES>;
  using SpotA = SimtSpot<T, M, Gemm::kThreads, K_INNER, BYTES>;
  using SpotB = SimtSpot<T, N, Gemm::kThreads, K_INNER, BYTES>;
  static constexpr int kM = M, kN = N, kThreads = Gemm::kThreads, kV = Gemm::kPack, kDepth = Gemm::kDepth;

  template <class LoaderA, class LoaderB>
  __device__ __forceinline__ void run(LoaderA& a, LoaderB& b, int first, int last) {
    auto* const stages = dynamic_shared<SimtStage<Gemm>>();
    simt_loop<Gemm>(sums_, stages, first, last, [&](int stage, int step) {
      a.load(stages[stage].a, step);
      b.load(stages[stage].b, step);
    });
  }
  template <class F>
  __device__ __forceinline__ void rows(F f) const { for_sums<Gemm>(sums_, f); }
  template <class PlaceOf, class F>
  __device__ __forceinline__ void columns(PlaceOf place, F f) const {
#pragma unroll
    for (int i = 0; i < ROWS; i += kV) {
      Written written[kV];
#pragma unroll
      for (int e = 0; e < kV; ++e) written[e] = place(simt_row<Gemm>() + i * 4 + e);
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) {
        T values[kV];
#pragma unroll
        for (int e = 0; e < kV; ++e) values[e] = sums_[i + e][j];
        f(written, simt_column<Gemm>() + j / kV * (8 * kV) + j % kV, values);
      }
    }
  }

 private:
  SimtSums<Gemm> sums_;
};

// ---------------------------------------------------------------- forward, and gradient of the input

// scale[channel] · value + shift[channel] + residual, not below `low` or above `high`, with any of the arrays null:
// a bias, or a batch normalisation in inference, and what follows it in a residual block. Called with V neighbours and
// their place.
template <class T>
struct ConvFinish {
  using C = compute_t<T>;
  T* out;
  const C *scale, *shift;
  const T* residual;
  C low, high;
  bool channels_last, vector;

  template <int V>
  __device__ __forceinline__ void operator()(const GemmPlace& at, const C (&sums)[V]) const {
    Pack<T, V> pack, added;
    if (residual && vector && at.count == V) {
      added = load<V>(residual + at.index);
    } else if (residual) {
#pragma unroll
      for (int e = 0; e < V; ++e) added.values[e] = residual[at.index + (e < at.count ? e : 0)];
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const int channel = channels_last ? at.column + (e < at.count ? e : 0) : at.row;
      C value = sums[e];
      if (scale) value *= scale[channel];
      if (shift) value += shift[channel];
      if (residual) value += widen(added.values[e]);
      value = value < low ? low : value > high ? high : value;  // NaN stays
      pack.values[e] = narrow<T>(value);
    }
    put(out, at, pack, vector);
  }
};

// What a launch of conv_gather is told. `channels` of a group are read, `outs` made.
struct GatherWork {
  int images, groups, channels, outs;
  bool transposed, channels_last, vector;
};

// A block makes M destination positions of N channels; blocks along y are the phases, along z the groups.
template <class Engine, class Epilogue>
__device__ __forceinline__ void conv_gather(const typename Engine::T* x, const typename Engine::T* w,
                                            const GatherWork& work, const ConvGeometry& g, const Epilogue& epilogue) {
  using C = typename Engine::C;
  using SpotA = typename Engine::SpotA;
  constexpr int V = Engine::kV;
  const int across = (work.outs + Engine::kN - 1) / Engine::kN, group = static_cast<int>(blockIdx.z);
  const int row = static_cast<int>(blockIdx.x) / across * Engine::kM;
  const int column = static_cast<int>(blockIdx.x) % across * Engine::kN;
  const Phase phase(g, static_cast<int>(blockIdx.y), work.transposed);
  const int each = phase.count[0] * phase.count[1] * phase.count[2], rows = work.images * each;
  if (row >= rows) return;
  const int filter = g.kernel[0] * g.kernel[1] * g.kernel[2] * work.channels, made = work.groups * work.outs;

  TapWalk<SpotA> walk(phase, work.channels, 0);
  PatchLoader<SpotA> patches(x + group * work.channels, work.groups * work.channels, g, phase, walk, row, rows);
  FilterLoader<typename Engine::SpotB, TapWalk<SpotA>> filters(
      w + static_cast<long long>(group) * work.outs * filter, work.channels, g, phase, walk, column, work.outs);
  Engine engine;
  engine.run(patches, filters, 0, (phase.taps() * work.channels + Engine::kDepth - 1) / Engine::kDepth);

  const int pixels = g.out[0] * g.out[1] * g.out[2];
  const bool scattered = gridDim.y > 1;
  const auto written = [&](int r) -> Written {
    const int m = row + r;
    if (m >= rows) return {-1, 0};
    const Place p = place(static_cast<unsigned>(m), phase.count[0], phase.count[1], phase.count[2]);
    int pixel = 0;
#pragma unroll
    for (int d = 0; d < 3; ++d) pixel = pixel * g.out[d] + phase.made_first[d] + p.at[d] * phase.made_step[d];
    return {static_cast<int>(p.rest), pixel};
  };
  if (work.channels_last) {
    engine.rows([&](int r, int c, const C(&values)[V]) {
      int pixel = row + r;
      const int channel = group * work.outs + column + c, rest = work.outs - column - c;
      if (pixel >= rows || rest <= 0) return;
      if (scattered) {
        const Written at = written(r);
        pixel = at.image * pixels + at.pixel;
      }
      epilogue(GemmPlace{0, group, pixel, channel, rest < V ? rest : V, static_cast<long long>(pixel) * made + channel},
               values);
    });
    return;
  }
  const bool packs = work.vector && !scattered;  // then V positions are in one image
  engine.columns(written, [&](const auto& at, int c, const auto& values) {
    constexpr int kCount = sizeof(values) / sizeof(C);
    if (column + c >= work.outs) return;
    const int channel = group * work.outs + column + c;
    const auto index = [&](int e) {
      return (static_cast<long long>(at[e].image) * made + channel) * pixels + at[e].pixel;
    };
    if (kCount > 1 && packs) {
      if (at[0].image >= 0) epilogue(GemmPlace{at[0].image, group, channel, at[0].pixel, kCount, index(0)}, values);
      return;
    }
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const C one[1] = {values[e]};
      if (at[e].image >= 0) epilogue(GemmPlace{at[e].image, group, channel, at[e].pixel, 1, index(e)}, one);
    }
  });
}

// ---------------------------------------------------------------- gradient of the weight

// What a launch of conv_weight is told: `steps` of the main loop per split.
struct WeightWork {
  int positions, groups, channels, outs, steps;
};

// part[split, o, tap, c] = Σ over the split's positions of grad[position, o] · x[position at the tap, c]. A block makes
// M × N of them; blocks along y are the splits, along z the groups.
template <class Engine>
__device__ __forceinline__ void conv_weight(const typename Engine::T* grad, const typename Engine::T* x,
                                            typename Engine::C* part, const WeightWork& work, const ConvGeometry& g,
                                            const Divisor (&out)[3]) {
  using C = typename Engine::C;
  constexpr int V = Engine::kV, kWrite = 16 / sizeof(C);
  const int columns = g.kernel[0] * g.kernel[1] * g.kernel[2] * work.channels;
  const int across = (columns + Engine::kN - 1) / Engine::kN, group = static_cast<int>(blockIdx.z);
  const int row = static_cast<int>(blockIdx.x) / across * Engine::kM;
  const int column = static_cast<int>(blockIdx.x) % across * Engine::kN;
  const int all = (work.positions + Engine::kDepth - 1) / Engine::kDepth;
  const int first = min(static_cast<int>(blockIdx.y) * work.steps, all), last = min(first + work.steps, all);

  GradientLoader<typename Engine::SpotA> gradients(grad + group * work.outs, work.groups * work.outs, row, work.outs,
                                                   work.positions);
  TapLoader<typename Engine::SpotB> taps(x + group * work.channels, work.groups * work.channels, g, out, work.channels,
                                         column, work.positions);
  Engine engine;
  engine.run(gradients, taps, first, last);

  part += static_cast<long long>(blockIdx.y) * work.groups * work.outs * columns;
  engine.rows([&](int r, int c, const C(&values)[V]) {
    if (row + r >= work.outs) return;
    C* const target = part + static_cast<long long>(group * work.outs + row + r) * columns + column + c;
#pragma unroll
    for (int e = 0; e < V; e += kWrite) {
      if (columns % kWrite == 0 && column + c + e < columns) {
        Pack<C, kWrite> pack;
#pragma unroll
        for (int k = 0; k < kWrite; ++k) pack.values[k] = values[e + k];
        store(target + e, pack);
      } else {
#pragma unroll
        for (int k = 0; k < kWrite; ++k) {
          if (column + c + e + k < columns) target[e + k] = values[e + k];
        }
      }
    }
  });
}

}  // namespace pf
