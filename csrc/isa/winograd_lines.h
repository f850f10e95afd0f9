// Minimal filtering of lines: kOuts neighbouring sums of kTaps products each, kStep apart in the source, from as many
// products as they see source values, kReach. With the vectors d of source values and g of weights, the sums are
//   Aᵀ [(G g) ⊙ (Bᵀ d)],
// where `source` applies Bᵀ, `weight` G and `result` Aᵀ. Evaluated at 0, 1, -1, ∞ and so on (Toom and Cook, Winograd).
// The gradient of the weights from that of the sums, e, is Gᵀ [(A e) ⊙ (Bᵀ d)]: `spread` applies A, `gather` Gᵀ.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

struct One {  // saves nothing: for kernels of one line
  static constexpr int kTaps = 1, kStep = 1, kOuts = 1, kReach = 1;
  template <class T, class V>
  static PYFRAME_INLINE void source(const V* d, V* m) { m[0] = d[0]; }
  template <class T, class V>
  static PYFRAME_INLINE void weight(const V* g, V* m) { m[0] = g[0]; }
  template <class T, class V>
  static PYFRAME_INLINE void result(const V* m, V* y) { y[0] = m[0]; }
};

struct Two {  // 3 products instead of 4
  static constexpr int kTaps = 2, kStep = 1, kOuts = 2, kReach = 3;
  template <class T, class V>
  static PYFRAME_INLINE void source(const V* d, V* m) {
    m[0] = d[0] - d[1], m[1] = d[1], m[2] = d[1] - d[2];
  }
  template <class T, class V>
  static PYFRAME_INLINE void weight(const V* g, V* m) {
    m[0] = g[0], m[1] = g[0] + g[1], m[2] = g[1];
  }
  template <class T, class V>
  static PYFRAME_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + m[1], y[1] = m[1] - m[2];
  }
};

struct Three {  // 4 products instead of 6
  static constexpr int kTaps = 3, kStep = 1, kOuts = 2, kReach = 4;
  template <class T, class V>
  static PYFRAME_INLINE void source(const V* d, V* m) {
    m[0] = d[0] - d[2], m[1] = d[1] + d[2], m[2] = d[2] - d[1], m[3] = d[1] - d[3];
  }
  template <class T, class V>
  static PYFRAME_INLINE void weight(const V* g, V* m) {
    const V outer = g[0] + g[2];
    m[0] = g[0], m[1] = T(0.5) * (outer + g[1]), m[2] = T(0.5) * (outer - g[1]), m[3] = g[2];
  }
  template <class T, class V>
  static PYFRAME_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
  }
  template <class T, class V>
  static PYFRAME_INLINE void spread(const V* e, V* m) {
    m[0] = e[0], m[1] = e[0] + e[1], m[2] = e[0] - e[1], m[3] = -e[1];
  }
  template <class T, class V>
  static PYFRAME_INLINE void gather(const V* m, V* g) {
    const V outer = T(0.5) * (m[1] + m[2]);
    g[0] = m[0] + outer, g[1] = T(0.5) * (m[1] - m[2]), g[2] = outer + m[3];
  }
};

struct ThreeApart {  // 5 products instead of 6: those of the outer taps, two taps at stride 1, are saved
  static constexpr int kTaps = 3, kStep = 2, kOuts = 2, kReach = 5;
  template <class T, class V>
  static PYFRAME_INLINE void source(const V* d, V* m) {
    m[0] = d[0] - d[2], m[1] = d[2], m[2] = d[2] - d[4], m[3] = d[1], m[4] = d[3];
  }
  template <class T, class V>
  static PYFRAME_INLINE void weight(const V* g, V* m) {
    m[0] = g[0], m[1] = g[0] + g[2], m[2] = g[2], m[3] = m[4] = g[1];
  }
  template <class T, class V>
  static PYFRAME_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + m[1] + m[3], y[1] = m[1] - m[2] + m[4];
  }
  template <class T, class V>
  static PYFRAME_INLINE void spread(const V* e, V* m) {
    m[0] = m[3] = e[0], m[1] = e[0] + e[1], m[2] = -e[1], m[4] = e[1];
  }
  template <class T, class V>
  static PYFRAME_INLINE void gather(const V* m, V* g) {
    g[0] = m[0] + m[1], g[1] = m[3] + m[4], g[2] = m[1] + m[2];
  }
};

// 6 products instead of 10, evaluated at 0, ±3/4, ±4/3, ∞: rounding errors are half as large as with ±1 and ±2. The
// gradient of the weights would lose as many bits again, in sums as long as an image.
struct Five {
  static constexpr int kTaps = 5, kStep = 1, kOuts = 2, kReach = 6;
  static constexpr double kA = 3.0 / 4, kB = 4.0 / 3, kA2 = kA * kA, kB2 = kB * kB;
  template <class T, class V>
  static PYFRAME_INLINE void source(const V* d, V* m) {
    const V even_a = d[4] - T(kB2) * d[2], odd_a = T(kA) * (d[3] - T(kB2) * d[1]);
    const V even_b = d[4] - T(kA2) * d[2], odd_b = T(kB) * (d[3] - T(kA2) * d[1]);
    m[0] = d[0] - T(kA2 + kB2) * d[2] + d[4];
    m[1] = even_a + odd_a, m[2] = even_a - odd_a;
    m[3] = even_b + odd_b, m[4] = even_b - odd_b;
    m[5] = d[1] - T(kA2 + kB2) * d[3] + d[5];
  }
  template <class T, class V>
  static PYFRAME_INLINE void weight(const V* g, V* m) {
    constexpr double a = 1 / (2 * kA2 * (kA2 - kB2)), b = 1 / (2 * kB2 * (kB2 - kA2));
    const V even_a = T(a) * (g[0] + T(kA2) * (g[2] + T(kA2) * g[4])), odd_a = T(a * kA) * (g[1] + T(kA2) * g[3]);
    const V even_b = T(b) * (g[0] + T(kB2) * (g[2] + T(kB2) * g[4])), odd_b = T(b * kB) * (g[1] + T(kB2) * g[3]);
    m[0] = g[0];
    m[1] = even_a + odd_a, m[2] = even_a - odd_a;
    m[3] = even_b + odd_b, m[4] = even_b - odd_b;
    m[5] = g[4];
  }
  template <class T, class V>
  static PYFRAME_INLINE void result(const V* m, V* y) {
    y[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    y[1] = T(kA) * (m[1] - m[2]) + T(kB) * (m[3] - m[4]) + m[5];
  }
};

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
