// Winograd's transforms for 3×3 kernels, for one instruction set level.
//
// With the matrices Bᵀ = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1], G = [1 0 0; ½ ½ ½; ½ -½ ½; 0 0 1] and
// Aᵀ = [1 1 1 0; 0 1 -1 -1], a 2×2 tile of outputs is Aᵀ [(G w Gᵀ) ⊙ (Bᵀ d B)] A for the 4×4 source values d.
#include "conv_table.h"

#include "isa/conv_tile.h"
#include "isa/gemm_pack.h"
#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T>
void source(const T* from, int64_t width, int64_t columns, T* to, int64_t plane) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) {
    Vec<T> d[4][4], rows[4][4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) d[i / 4][i % 4] = load(from + i * width + c);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      rows[0][j] = d[0][j] - d[2][j];
      rows[1][j] = d[1][j] + d[2][j];
      rows[2][j] = d[2][j] - d[1][j];
      rows[3][j] = d[1][j] - d[3][j];
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      T* const at = to + 4 * i * plane + c;
      store<T>(at, rows[i][0] - rows[i][2]);
      store<T>(at + plane, rows[i][1] + rows[i][2]);
      store<T>(at + 2 * plane, rows[i][2] - rows[i][1]);
      store<T>(at + 3 * plane, rows[i][1] - rows[i][3]);
    }
  }
}

// The same for tiles side by side with channels in the lanes: value (i, j) of tile t at from[i * row + (2t + j) lanes].
template <class T>
void source_lanes(const T* from, int64_t row, int64_t count, T* to, int64_t plane, int64_t step) {
  constexpr int kLane = kLanes<T>;
  for (int64_t t = 0; t < count; ++t, from += 2 * kLane, to += step) {
    Vec<T> rows[4][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const T* const at = from + j * kLane;
      const Vec<T> d0 = load(at), d1 = load(at + row), d2 = load(at + 2 * row), d3 = load(at + 3 * row);
      rows[0][j] = d0 - d2, rows[1][j] = d1 + d2, rows[2][j] = d2 - d1, rows[3][j] = d1 - d3;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      T* const at = to + 4 * i * plane;
      store<T>(at, rows[i][0] - rows[i][2]);
      store<T>(at + plane, rows[i][1] + rows[i][2]);
      store<T>(at + 2 * plane, rows[i][2] - rows[i][1]);
      store<T>(at + 3 * plane, rows[i][1] - rows[i][3]);
    }
  }
}

// G applied to three numbers.
#define PYFRAME_SPREAD(a, b, c, out)       \
  {                                        \
    const auto outer = (a) + (c), m = (b); \
    out[0] = (a);                          \
    out[1] = half * (outer + m);           \
    out[2] = half * (outer - m);           \
    out[3] = (c);                          \
  }

template <class T>
void weight(const T* from, int64_t depth, T* to, int64_t plane) {
  typedef T Row __attribute__((vector_size(8 * sizeof(T))));
  const T half = T(0.5);
  for (int64_t k = 0; k < depth; ++k, from += 9 * kTileRows, to += kTileRows) {
    Row g[9], columns[3][4];
#pragma GCC unroll 9
    for (int i = 0; i < 9; ++i) {
      g[i] = Row{};
      __builtin_memcpy(&g[i], from + i * kTileRows, kTileRows * sizeof(T));
    }
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) PYFRAME_SPREAD(g[j], g[3 + j], g[6 + j], columns[j])
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      Row out[4];
      PYFRAME_SPREAD(columns[0][i], columns[1][i], columns[2][i], out)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) __builtin_memcpy(to + (4 * i + j) * plane, &out[j], kTileRows * sizeof(T));
    }
  }
}

template <class T>
void weight_lanes(const T* from, const int32_t* order, int64_t depth, int64_t width, T* to, int64_t plane) {
  const T half = T(0.5);
  for (int64_t k = 0; k < depth; ++k, from += 9 * width, to += width) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      Vec<T> g[9], columns[3][4];
#pragma GCC unroll 9
      for (int i = 0; i < 9; ++i) g[i] = load(from + order[i] * width + c);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) PYFRAME_SPREAD(g[j], g[3 + j], g[6 + j], columns[j])
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        Vec<T> out[4];
        PYFRAME_SPREAD(columns[0][i], columns[1][i], columns[2][i], out)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store<T>(to + (4 * i + j) * plane + c, out[j]);
      }
    }
  }
}

template <class T>
void result(const T* from, int64_t plane, int64_t columns, T* to, int64_t row) {
  constexpr int kLane = kLanes<T>;
  for (int64_t c = 0; c < columns; c += kLane) {
    Vec<T> rows[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const T* const at = from + j * plane + c;
      const Vec<T> m0 = load(at), m1 = load(at + 4 * plane), m2 = load(at + 8 * plane), m3 = load(at + 12 * plane);
      rows[0][j] = m0 + m1 + m2;
      rows[1][j] = m1 - m2 - m3;
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      const Vec<T> left = rows[i][0] + rows[i][1] + rows[i][2], right = rows[i][1] - rows[i][2] - rows[i][3];
      T* const out = to + i * row + 2 * c;
      store<T>(out, zip<T, false>(left, right));
      store<T>(out + kLane, zip<T, true>(left, right));
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

template <class T>
void gradient_lanes(const T* from, int64_t row, int64_t count, T* to, int64_t plane, int64_t step) {
  constexpr int kLane = kLanes<T>;
  for (int64_t t = 0; t < count; ++t, from += 2 * kLane, to += step) {
    Vec<T> rows[4][2];
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Vec<T> a = load(from + j * kLane), b = load(from + row + j * kLane);
      rows[0][j] = a, rows[1][j] = a + b, rows[2][j] = a - b, rows[3][j] = -b;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      T* const at = to + 4 * i * plane;
      store<T>(at, rows[i][0]);
      store<T>(at + plane, rows[i][0] + rows[i][1]);
      store<T>(at + 2 * plane, rows[i][0] - rows[i][1]);
      store<T>(at + 3 * plane, -rows[i][1]);
    }
  }
}

// The transpose of G applied to four numbers.
#define PYFRAME_GATHER(a, b, c, d, out)   \
  {                                       \
    out[0] = (a) + half * ((b) + (c));    \
    out[1] = half * ((b) - (c));          \
    out[2] = half * ((b) + (c)) + (d);    \
  }

template <class T>
void weight_gradient(const T* from, int64_t plane, int64_t depth, int64_t width, T* to) {
  const T half = T(0.5);
  for (int64_t k = 0; k < depth; ++k, from += width, to += 9 * width) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      Vec<T> columns[4][3];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const T* const at = from + j * plane + c;
        PYFRAME_GATHER(load(at), load(at + 4 * plane), load(at + 8 * plane), load(at + 12 * plane), columns[j])
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) {
        Vec<T> out[3];
        PYFRAME_GATHER(columns[0][i], columns[1][i], columns[2][i], columns[3][i], out)
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) store<T>(to + (3 * i + j) * width + c, out[j]);
      }
    }
  }
}

template <class T>
constexpr WinogradKernels<T> kernels_for{&source<T>, &source_lanes<T>, &weight<T>,         &weight_lanes<T>,
                                         &result<T>, &result_lanes<T>, &gradient_lanes<T>, &weight_gradient<T>};

}  // namespace

extern const WinogradTable winograd_table{kernels_for<float>, kernels_for<double>};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
