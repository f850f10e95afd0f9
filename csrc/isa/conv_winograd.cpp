// The transforms of minimal filtering for one instruction set level.
#include "conv_table.h"

#include "isa/conv_tile.h"
#include "isa/gemm_pack.h"
#include "isa/lanes.h"
#include "isa/vec.h"
#include "isa/winograd_lines.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// Lanes [low, high) of a vector in memory, zeros in the others, whose memory is left alone.
template <class T>
PYFRAME_INLINE Vec<T> load_between(const T* from, int64_t low, int64_t high) {
  constexpr int kLane = kLanes<T>;
#if defined(__AVX512F__)
  const auto ones = [](int64_t n) __attribute__((always_inline)) { return (1u << (n < 0 ? 0 : n > kLane ? kLane : n)) - 1; };
  const unsigned lanes = ones(high) & ~ones(low);
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_epi32(static_cast<__mmask16>(lanes), from);
  else return (Vec<T>)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(lanes), from);
#else
  if (low <= 0 && high >= kLane) return load(from);
  Vec<T> v{};
  for (int64_t i = larger<int64_t>(low, 0); i < smaller<int64_t>(high, kLane); ++i) v[i] = from[i];
  return v;
#endif
}

// Every second group of Gap elements of two vectors, from group First on, and two vectors of such groups in turn.
template <class T, int First, int Gap, int... I>
PYFRAME_INLINE Vec<T> part_groups(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
  return __builtin_shuffle(a, b, Mask<T>{((2 * (I / Gap) + First) * Gap + I % Gap)...});
}
template <class T, int Half, int Gap, int... I>
PYFRAME_INLINE Vec<T> join_groups(Vec<T> a, Vec<T> b, std::integer_sequence<int, I...>) {
  constexpr int n = kLanes<T>, h = Half * n;
  return __builtin_shuffle(a, b, Mask<T>{((I + h) / Gap % 2 * n + (I + h) / Gap / 2 * Gap + I % Gap)...});
}

// Every Step-th element from each of the first `Reach` on, elements [low, high) being there.
template <class T, int Step, int Reach, int Gap>
PYFRAME_INLINE void spread(const T* from, int64_t low, int64_t high, Vec<T>* to) {
  static_assert(Step == 2 || (Step == 4 && Gap == 1), "elements are parted in halves");
  constexpr int kLane = kLanes<T>;
#pragma GCC unroll 4
  for (int j = 0; j < Reach; j += Step) {
    Vec<T> v[Step];
#pragma GCC unroll 4
    for (int i = 0; i < Step; ++i) {
      const int at = j * Gap + i * kLane;
      v[i] = load_between(from + at, low - at, high - at);
    }
    if constexpr (Step == 4) {
      const Vec<T> even[2] = {alternate<T, 0>(v[0], v[1]), alternate<T, 0>(v[2], v[3])};
      const Vec<T> odd[2] = {alternate<T, 1>(v[0], v[1]), alternate<T, 1>(v[2], v[3])};
      to[j] = alternate<T, 0>(even[0], even[1]);
      if (j + 1 < Reach) to[j + 1] = alternate<T, 0>(odd[0], odd[1]);
      if (j + 2 < Reach) to[j + 2] = alternate<T, 1>(even[0], even[1]);
      if (j + 3 < Reach) to[j + 3] = alternate<T, 1>(odd[0], odd[1]);
    } else {
      to[j] = part_groups<T, 0, Gap>(v[0], v[1], LaneList<T>{});
      if (j + 1 < Reach) to[j + 1] = part_groups<T, 1, Gap>(v[0], v[1], LaneList<T>{});
    }
  }
}

// Two-dimensional forms are products of one along y and one along x.
template <class T, class Y, class X, int Gap>
void read(const T* from, const TileRun* runs, int64_t count, int64_t first, int64_t size, T* to, int64_t width) {
  constexpr int kLane = kLanes<T>, kStep = X::kOuts * X::kStep;
  for (; count; --count, ++runs) {
    for (int64_t t = 0; t < runs->count; t += kLane) {
      const int64_t x = runs->x + t * kStep;
      T* at = to + runs->column + t;
      for (int i = 0; i < Y::kReach; ++i) {
        const int64_t row = runs->rows[first + i];
        Vec<T> v[X::kReach]{};
        if (row != kNoRow) spread<T, kStep, X::kReach, Gap>(from + row + x, -x, size - x, v);
#pragma GCC unroll 8
        for (int j = 0; j < X::kReach; ++j, at += width) store<T>(at, v[j]);
      }
    }
  }
}

template <class T, class Y, class X>
void source(const T* from, int64_t width, int64_t columns, T* to, int64_t plane) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vec<T> rows[Y::kReach][X::kReach];
#pragma GCC unroll 8
    for (int j = 0; j < X::kReach; ++j) {
      Vec<T> d[Y::kReach], m[Y::kReach];
#pragma GCC unroll 8
      for (int i = 0; i < Y::kReach; ++i) d[i] = load(from + (i * X::kReach + j) * width + c);
      Y::template source<T>(d, m);
#pragma GCC unroll 8
      for (int i = 0; i < Y::kReach; ++i) rows[i][j] = m[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < Y::kReach; ++i) {
      Vec<T> m[X::kReach];
      X::template source<T>(rows[i], m);
#pragma GCC unroll 8
      for (int j = 0; j < X::kReach; ++j) store<T>(to + (i * X::kReach + j) * plane + c, m[j]);
    }
  }
}

template <class T, class Y, class X>
void weight(const T* from, int64_t depth, T* to, int64_t plane) {
  typedef T Row __attribute__((vector_size(8 * sizeof(T))));
  constexpr int kTaps = Y::kTaps * X::kTaps;
  for (int64_t k = 0; k < depth; ++k, from += kTaps * kTileRows, to += kTileRows) {
    Row columns[Y::kReach][X::kTaps];
#pragma GCC unroll 8
    for (int j = 0; j < X::kTaps; ++j) {
      Row g[Y::kTaps], m[Y::kReach];
#pragma GCC unroll 8
      for (int i = 0; i < Y::kTaps; ++i) {
        g[i] = Row{};
        __builtin_memcpy(&g[i], from + (i * X::kTaps + j) * kTileRows, kTileRows * sizeof(T));
      }
      Y::template weight<T>(g, m);
#pragma GCC unroll 8
      for (int i = 0; i < Y::kReach; ++i) columns[i][j] = m[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < Y::kReach; ++i) {
      Row m[X::kReach];
      X::template weight<T>(columns[i], m);
#pragma GCC unroll 8
      for (int j = 0; j < X::kReach; ++j) {
        __builtin_memcpy(to + (i * X::kReach + j) * plane, &m[j], kTileRows * sizeof(T));
      }
    }
  }
}

template <class T, class Y, class X, int Gap>
void result(const T* from, int64_t plane, int64_t columns, T* to, int64_t row) {
  static_assert(X::kOuts == 2, "outputs side by side are interleaved in pairs");
  constexpr int kLane = kLanes<T>;
  for (int64_t c = 0; c < columns; c += kLane) {
    Vec<T> rows[Y::kOuts][X::kReach];
#pragma GCC unroll 8
    for (int j = 0; j < X::kReach; ++j) {
      Vec<T> m[Y::kReach], y[Y::kOuts];
#pragma GCC unroll 8
      for (int i = 0; i < Y::kReach; ++i) m[i] = load(from + (i * X::kReach + j) * plane + c);
      Y::template result<T>(m, y);
#pragma GCC unroll 2
      for (int i = 0; i < Y::kOuts; ++i) rows[i][j] = y[i];
    }
#pragma GCC unroll 2
    for (int i = 0; i < Y::kOuts; ++i) {
      Vec<T> y[2];
      X::template result<T>(rows[i], y);
      T* const out = to + i * row + 2 * c;
      store<T>(out, join_groups<T, 0, Gap>(y[0], y[1], LaneList<T>{}));
      store<T>(out + kLane, join_groups<T, 1, Gap>(y[0], y[1], LaneList<T>{}));
    }
  }
}

// What is transformed for the gradient of the weight: tiles of the source, or of the outputs' gradients.
struct OfSource {
  template <class F> static constexpr int kCount = F::kReach;
  template <class F> static constexpr int kApart = F::kOuts * F::kStep;
  template <class F, class T> static PYFRAME_INLINE void run(const Vec<T>* d, Vec<T>* m) { F::template source<T>(d, m); }
};
struct OfGradients {
  template <class F> static constexpr int kCount = F::kOuts;
  template <class F> static constexpr int kApart = F::kOuts;
  template <class F, class T> static PYFRAME_INLINE void run(const Vec<T>* e, Vec<T>* m) { F::template spread<T>(e, m); }
};

template <class Of, class T, class Y, class X>
void transform_lanes(const T* from, int64_t row, int64_t pixel, int64_t count, T* to, int64_t plane, int64_t step) {
  constexpr int kHeight = Of::template kCount<Y>, kWidth = Of::template kCount<X>;
  for (int64_t t = 0; t < count; ++t, from += Of::template kApart<X> * pixel, to += step) {
    Vec<T> rows[Y::kReach][kWidth];
#pragma GCC unroll 8
    for (int j = 0; j < kWidth; ++j) {
      Vec<T> d[kHeight], m[Y::kReach];
#pragma GCC unroll 8
      for (int i = 0; i < kHeight; ++i) d[i] = load(from + i * row + j * pixel);
      Of::template run<Y, T>(d, m);
#pragma GCC unroll 8
      for (int i = 0; i < Y::kReach; ++i) rows[i][j] = m[i];
    }
#pragma GCC unroll 8
    for (int i = 0; i < Y::kReach; ++i) {
      Vec<T> m[X::kReach];
      Of::template run<X, T>(rows[i], m);
#pragma GCC unroll 8
      for (int j = 0; j < X::kReach; ++j) store<T>(to + (i * X::kReach + j) * plane, m[j]);
    }
  }
}

template <class T, class Y, class X>
void gather_lanes(const T* from, int64_t plane, int64_t depth, int64_t width, T* to) {
  for (int64_t k = 0; k < depth; ++k, from += width, to += Y::kTaps * X::kTaps * width) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      Vec<T> rows[Y::kTaps][X::kReach];
#pragma GCC unroll 8
      for (int j = 0; j < X::kReach; ++j) {
        Vec<T> m[Y::kReach], g[Y::kTaps];
#pragma GCC unroll 8
        for (int i = 0; i < Y::kReach; ++i) m[i] = load(from + (i * X::kReach + j) * plane + c);
        Y::template gather<T>(m, g);
#pragma GCC unroll 8
        for (int i = 0; i < Y::kTaps; ++i) rows[i][j] = g[i];
      }
#pragma GCC unroll 8
      for (int i = 0; i < Y::kTaps; ++i) {
        Vec<T> g[X::kTaps];
        X::template gather<T>(rows[i], g);
#pragma GCC unroll 8
        for (int j = 0; j < X::kTaps; ++j) store<T>(to + (i * X::kTaps + j) * width + c, g[j]);
      }
    }
  }
}

// F(2×2, 3×3) with channels in the lanes.
template <class T>
void weight_lanes(const T* from, const int32_t* order, int64_t depth, int64_t width, T* to, int64_t plane) {
  for (int64_t k = 0; k < depth; ++k, from += 9 * width, to += width) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      Vec<T> columns[4][3];
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        Vec<T> g[3], m[4];
#pragma GCC unroll 3
        for (int i = 0; i < 3; ++i) g[i] = load(from + order[3 * i + j] * width + c);
        Three::weight<T>(g, m);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) columns[i][j] = m[i];
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Vec<T> out[4];
        Three::weight<T>(columns[i], out);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store<T>(to + (4 * i + j) * plane + c, out[j]);
      }
    }
  }
}

template <class T>
void result_lanes(const T* from, int64_t plane, int64_t step, int64_t count, const T* bias, bool relu, T* to, int64_t row) {
  constexpr int kLane = kLanes<T>;
  const Vec<T> zero{}, more = load(bias);
  for (int64_t t = 0; t < count; ++t, from += step, to += 2 * kLane) {
    Vec<T> rows[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const T* const at = from + j * plane;
      const Vec<T> m0 = load(at), m1 = load(at + 4 * plane), m2 = load(at + 8 * plane), m3 = load(at + 12 * plane);
      rows[0][j] = m0 + m1 + m2;
      rows[1][j] = m1 - m2 - m3;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      Vec<T> left = rows[i][0] + rows[i][1] + rows[i][2] + more, right = rows[i][1] - rows[i][2] - rows[i][3] + more;
      if (relu) left = left < zero ? zero : left, right = right < zero ? zero : right;  // NaN stays
      store<T>(to + i * row, left);
      store<T>(to + i * row + kLane, right);
    }
  }
}

template <class T, class Y, class X>
constexpr WinogradAdjoint<T> adjoint{
    &transform_lanes<OfSource, T, Y, X>, &transform_lanes<OfGradients, T, Y, X>, &gather_lanes<T, Y, X>};

template <class T, class Y, class X, int Gap = 1>
constexpr WinogradForm<T> form(int64_t channels, const WinogradAdjoint<T>* adjoint) {
  return {{Y::kTaps, X::kTaps}, {Y::kStep, X::kStep}, {Y::kOuts, X::kOuts}, {Y::kReach, X::kReach}, Gap, channels,
          adjoint, &read<T, Y, X, Gap>, &source<T, Y, X>, &weight<T, Y, X>, &result<T, Y, X, Gap>};
}
template <class T>
constexpr const WinogradAdjoint<T>* dense = &adjoint<T, Three, Three>;
constexpr const WinogradAdjoint<float>* strided = &adjoint<float, ThreeApart, ThreeApart>;
// The last ones are rare in float64.
template <class T>
constexpr WinogradForm<T> forms[] = {form<T, Three, Three>(16, dense<T>)};
template <>
constexpr WinogradForm<float> forms<float>[] = {
    form<float, Three, Three>(16, dense<float>),    form<float, ThreeApart, ThreeApart>(32, strided),
    form<float, Two, Two>(32, nullptr),             form<float, One, Five>(32, nullptr),
    form<float, Three, Three, 2>(16, dense<float>), form<float, Three, Three, 4>(16, dense<float>)};
constexpr WinogradForm<float> five_lanes{{1, 5}, {1, 1}, {1, 2}, {1, 6}, 1, 24,
                                         nullptr, nullptr, &source<float, One, Five>, &weight<float, One, Five>,
                                         &result<float, One, Five, kLanes<float>>};

}  // namespace

extern const WinogradTable winograd_table{
    {forms<float>, sizeof forms<float> / sizeof(WinogradForm<float>), &five_lanes, &weight_lanes<float>, &result_lanes<float>},
    {forms<double>, 1, nullptr, nullptr, nullptr}};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
