// Attention of half types on tensor cores, forward: softmax(q kᵀ · scale + mask) v in blocks of queries and keys.
//
// After T. Dao, "FlashAttention-2", arXiv:2307.08691. A warp keeps its queries' output in registers and goes over the
// keys; a running maximum and sum take the place of the matrix of scores. Scores and sums are float32, the weights are
// rounded to T for their product with v.
#include "pyframe/attention.cuh"

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr float kSlack = 8;

}  // namespace

// A block has 64 · TILES queries, 16 · TILES to a warp, and goes over the keys in steps of KEYS. Operands are
// [n0, n1, n2, rows, columns] with strides; up to D columns. PLAIN: no mask, no dropout, and all
// rows can be read and written 16 bytes at a time.
template <class T, int D, int TILES, int KEYS, bool PLAIN>
__global__ void __launch_bounds__(kThreads, 2)
    attention_forward(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                      const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                      T* __restrict__ y, float* __restrict__ log_mass,
                      long long q0, long long q1, long long q2, long long q_row, long long k0, long long k1,
                      long long k2, long long k_row, long long v0, long long v1, long long v2, long long v_row,
                      long long y0, long long y1, long long y2, long long y_row, long long m0, long long m1,
                      long long m2, long long m_row, long long m_column, int n1, int n2, int queries, int keys,
                      int width, int value_width, float scale, int causal, int mask_kind, int dropout,
                      unsigned threshold, float kept_scale, unsigned long long seed, unsigned long long offset,
                      int vector) {
  constexpr int ROWS = 16 * TILES * kWarps, COLUMNS = KEYS / 8;
  const int blocks = (queries + ROWS - 1) / ROWS, head_number = static_cast<int>(blockIdx.x) / blocks;
  // The last queries of a causal head have the most keys: they begin first.
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * ROWS;
  const pf::HeadIndex head(head_number, n1, n2);
  q += head.at(q0, q1, q2) + first * q_row;
  k += head.at(k0, k1, k2);
  v += head.at(v0, v1, v2);
  y += head.at(y0, y1, y2) + first * y_row;
  pf::Mask<float> mask{mask_data, m_row, m_column, mask_kind};
  mask.move(head.at(m0, m1, m2));
  const pf::WeightDropout drop(stream, seed, offset, head_number, queries, keys, threshold);

  T* const room = pf::dynamic_shared<T>();
  const pf::Tile<T, D> q_tile{room};
  const auto k_tile = [&](int stage) { return pf::Tile<T, D>{room + (ROWS + 2 * stage * KEYS) * D}; };
  const auto v_tile = [&](int stage) { return pf::Tile<T, D>{room + (ROWS + (2 * stage + 1) * KEYS) * D}; };
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp * 16 * TILES;              // of the block
  const int lane_row = first + warp_row + lane / 4;    // the lane's rows: this one, and 8, 16, … further on
  const int last = first + warp_row + 16 * TILES - 1;  // the warp's last row
  const bool idle = first + warp_row >= queries;
  const int end = causal ? min(keys, first + ROWS) : keys;

  float out[TILES][D / 8][4] = {};
  float top[TILES][2], mass[TILES][2] = {};  // of powers of 2
#pragma unroll
  for (int t = 0; t < TILES; ++t) top[t][0] = top[t][1] = -pf::infinity();
  // The scale is left to the exponent where that keeps the order of the scores.
  const float power = scale * pf::kLog2e;
  const bool late = PLAIN && power > 0;
  const float factor = late ? power : 1.0f;

  const auto load = [&](int key, int stage) {
    k_tile(stage).template load<KEYS, kThreads, PLAIN>(k + key * k_row, k_row, keys - key, width, vector & 2);
    v_tile(stage).template load<KEYS, kThreads, PLAIN>(v + key * v_row, v_row, keys - key, value_width, vector & 4);
    pf::copy_async_commit();
  };
  q_tile.template load<ROWS, kThreads, PLAIN>(q, q_row, queries - first, width, vector & 1);
  load(0, 0);
  for (int key = 0, stage = 0; key < end; key += KEYS, stage ^= 1) {
    pf::copy_async_wait<0>();
    __syncthreads();  // this stage has landed, and nobody reads the other one any more
    if (key + KEYS < end) load(key + KEYS, stage ^ 1);
    if (idle || (causal && key > last)) continue;

    float s[TILES][COLUMNS][4] = {};
    pf::add_products(s, q_tile, warp_row, k_tile(stage));
    if (!late) {
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) s[t][n][i] *= power;
        }
      }
    }
    if (!PLAIN && mask_kind) {
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = lane_row + 16 * t + i / 2 * 8, column = key + 8 * n + lane % 4 * 2 + i % 2;
            if (row < queries && column < keys) s[t][n][i] += mask.at(row, column) * pf::kLog2e;
          }
        }
      }
    }
    if (key + KEYS > keys || (causal && key + KEYS - 1 > first + warp_row)) {
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = lane_row + 16 * t + i / 2 * 8, column = key + 8 * n + lane % 4 * 2 + i % 2;
            if (column >= keys || (causal && column > row)) s[t][n][i] = -pf::infinity();
          }
        }
      }
    }
    // The exponents are relative to the highest score of some earlier step; a weight of up to 2^kSlack is as exact as
    // one up to 1, and the output is rescaled rarely.
    float high[TILES][2];
    bool grows = false;
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float most = s[t][0][2 * half];
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) most = fmaxf(most, fmaxf(s[t][n][2 * half], s[t][n][2 * half + 1]));
        high[t][half] = pf::quad_max(most) * factor;
        grows |= high[t][half] > top[t][half] + kSlack;
      }
    }
    if (__any_sync(pf::kAllLanes, grows)) {
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float higher = fmaxf(top[t][half], high[t][half]);
          const float fade = higher == -pf::infinity() ? 1.0f : pf::fast_exp2(top[t][half] - higher);
          top[t][half] = higher;
          mass[t][half] *= fade;
#pragma unroll
          for (int n = 0; n < D / 8; ++n) {
            out[t][n][2 * half] *= fade;
            out[t][n][2 * half + 1] *= fade;
          }
        }
      }
    }
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float shift = top[t][half] == -pf::infinity() ? 0.0f : top[t][half];  // no key yet: all weights are 0
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            s[t][n][i] = pf::fast_exp2(s[t][n][i] * factor - shift);
            mass[t][half] += s[t][n][i];
          }
        }
      }
    }
    if (!PLAIN && dropout) {
#pragma unroll
      for (int t = 0; t < TILES; ++t) {
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const unsigned long long row = lane_row + 16 * t + 8 * half;
            bool one, two;
            drop.pair(row * keys + key + 8 * n + lane % 4 * 2, one, two);
            if (!one) s[t][n][2 * half] = 0;
            if (!two) s[t][n][2 * half + 1] = 0;
          }
        }
      }
    }
    pf::add_weighted(out, s, v_tile(stage));
  }
  if (idle) return;
#pragma unroll
  for (int t = 0; t < TILES; ++t) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = pf::quad_sum(mass[t][half]);
      const int row = lane_row + 16 * t + 8 * half;
      const float share = total == 0 ? 0.0f : kept_scale / total;  // a row without any key gives 0
      if (lane % 4 == 0 && row < queries) {
        const float log_total = total == 0 ? 0.0f : top[t][half] * pf::kLn2 + logf(total);
        log_mass[static_cast<long long>(head_number) * queries + row] = log_total;
      }
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
        out[t][n][2 * half] *= share;
        out[t][n][2 * half + 1] *= share;
      }
    }
  }
  pf::store_rows<PLAIN>(out, q_tile, warp_row, y, y_row, queries - first, value_width, vector & 8);
}
