// Gradients of attention of half types on tensor cores, after T. Dao, "FlashAttention-2", arXiv:2307.08691.
//
// Two passes form the scores again, one per block of queries and one per block of keys, where a single pass would have
// to add to the queries' gradients from many blocks at once, in an order that changes from run to run.
#include "pyframe/attention.cuh"

namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;

}  // namespace

// d(scores) = p (f · g vᵀ - delta), with p = exp(scores - log_mass), f the factors of dropout and delta = Σ g · y;
// the gradient of q is d(scores) · k · scale. Writes delta for the other pass.
template <class T, int D, int TILES, int KEYS, bool PLAIN>
__global__ void __launch_bounds__(kThreads, 2)
    attention_queries(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                      const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                      const T* __restrict__ y, const T* __restrict__ g,
                      const float* __restrict__ log_mass, T* __restrict__ gq, float* __restrict__ delta,
                      long long q0, long long q1, long long q2, long long q_row, long long k0, long long k1,
                      long long k2, long long k_row, long long v0, long long v1, long long v2, long long v_row,
                      long long y0, long long y1, long long y2, long long y_row, long long g0, long long g1,
                      long long g2, long long g_row, long long gq0, long long gq1, long long gq2, long long gq_row,
                      long long m0, long long m1, long long m2, long long m_row, long long m_column, int n1, int n2,
                      int queries, int keys, int width, int value_width, float scale, int causal, int mask_kind,
                      int dropout, unsigned threshold, float kept_scale, unsigned long long seed,
                      unsigned long long offset, int vector) {
  constexpr int ROWS = 16 * TILES * kWarps, COLUMNS = KEYS / 8;
  constexpr int UNROLL = D == 128 && TILES == 2 ? 1 : 0;  // else it needs two registers more than there are
  const int blocks = (queries + ROWS - 1) / ROWS, head_number = static_cast<int>(blockIdx.x) / blocks;
  // The last queries of a causal head have the most keys: they begin first.
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * ROWS;
  const pf::HeadIndex head(head_number, n1, n2);
  q += head.at(q0, q1, q2) + first * q_row;
  k += head.at(k0, k1, k2);
  v += head.at(v0, v1, v2);
  y += head.at(y0, y1, y2);
  g += head.at(g0, g1, g2);
  gq += head.at(gq0, gq1, gq2) + first * gq_row;
  log_mass += static_cast<long long>(head_number) * queries;
  delta += static_cast<long long>(head_number) * queries;
  pf::Mask<float> mask{mask_data, m_row, m_column, mask_kind};
  mask.move(head.at(m0, m1, m2));
  const pf::WeightDropout drop(stream, seed, offset, head_number, queries, keys, threshold);

  T* const room = pf::dynamic_shared<T>();
  const pf::Tile<T, D> q_tile{room}, g_tile{room + ROWS * D};
  const auto k_tile = [&](int stage) { return pf::Tile<T, D>{room + (2 * ROWS + 2 * stage * KEYS) * D}; };
  const auto v_tile = [&](int stage) { return pf::Tile<T, D>{room + (2 * ROWS + (2 * stage + 1) * KEYS) * D}; };
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp * 16 * TILES;              // of the block
  const int lane_row = first + warp_row + lane / 4;    // the lane's rows: this one, and 8, 16, … further on
  const int last = first + warp_row + 16 * TILES - 1;  // the warp's last row
  const bool idle = first + warp_row >= queries;
  const int end = causal ? min(keys, first + ROWS) : keys;

  const auto load = [&](int key, int stage) {
    k_tile(stage).template load<KEYS, kThreads, PLAIN>(k + key * k_row, k_row, keys - key, width, vector & 2);
    v_tile(stage).template load<KEYS, kThreads, PLAIN>(v + key * v_row, v_row, keys - key, value_width, vector & 4);
    pf::copy_async_commit();
  };
  q_tile.template load<ROWS, kThreads, PLAIN>(q, q_row, queries - first, width, vector & 1);
  g_tile.template load<ROWS, kThreads, PLAIN>(g + first * g_row, g_row, queries - first, value_width, vector & 16);
  load(0, 0);

  // log_mass and delta of the warp's rows: read in each step, as there is no register to spare.
  float* const log_masses = reinterpret_cast<float*>(room + (2 * ROWS + 4 * KEYS) * D) + warp_row + lane / 4;
  float* const deltas = log_masses + ROWS;
#pragma unroll
  for (int r = 0; r < 16 * TILES; r += 8) {
    const int row = lane_row + r;
    float sum = 0;
    if (row < queries) {
      sum = pf::quad_product(y + row * y_row, g + row * g_row, value_width, PLAIN || (vector & 24) == 24);
    }
    sum = pf::quad_sum(sum);
    if (lane % 4 == 0) {
      log_masses[r] = row < queries ? log_mass[row] * pf::kLog2e : 0.0f;
      deltas[r] = sum;
      if (row < queries) delta[row] = sum;
    }
  }

  float out[TILES][D / 8][4] = {};
  for (int key = 0, stage = 0; key < end; key += KEYS, stage ^= 1) {
    pf::copy_async_wait<0>();
    __syncthreads();  // this stage has landed, and nobody reads the other one any more
    if (key + KEYS < end) load(key + KEYS, stage ^ 1);
    if (idle || (causal && key > last)) continue;
    float s[TILES][COLUMNS][4] = {};
    pf::add_products<UNROLL>(s, q_tile, warp_row, k_tile(stage));
    const float power = scale * pf::kLog2e;
    const bool edge = key + KEYS > keys || (causal && key + KEYS - 1 > first + warp_row);
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
#pragma unroll
      for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int row = lane_row + 16 * t + i / 2 * 8, column = key + 8 * n + lane % 4 * 2 + i % 2;
          float exponent = s[t][n][i] * power - log_masses[16 * t + i / 2 * 8];
          if (!PLAIN && mask_kind && row < queries && column < keys) exponent += mask.at(row, column) * pf::kLog2e;
          s[t][n][i] = pf::fast_exp2(exponent);
          if (edge && (column >= keys || (causal && column > row))) s[t][n][i] = 0;
        }
      }
    }
    float d[TILES][COLUMNS][4] = {};
    pf::add_products<UNROLL>(d, g_tile, warp_row, v_tile(stage));
#pragma unroll
    for (int t = 0; t < TILES; ++t) {
#pragma unroll
      for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          bool kept[2] = {true, true};
          if (!PLAIN && dropout) {
            const unsigned long long row = lane_row + 16 * t + 8 * half;
            drop.pair(row * keys + key + 8 * n + lane % 4 * 2, kept[0], kept[1]);
          }
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float value = d[t][n][2 * half + i];
            if (!PLAIN) value *= kept[i] ? kept_scale : 0.0f;
            s[t][n][2 * half + i] *= value - deltas[16 * t + 8 * half];
          }
        }
      }
    }
    pf::add_weighted(out, s, k_tile(stage));
  }
  if (idle) return;
  pf::scale_sums(out, scale);
  pf::store_rows<PLAIN>(out, q_tile, warp_row, gq, gq_row, queries - first, width, vector & 32);
}

// The gradients of k, d(scores)ᵀ · q · scale, and of v, (f · p)ᵀ · g, for 64 keys, 16 to a warp; scores are formed
// transposed. Goes over the queries of all heads that share the keys, in steps of QUERIES. PARTS blocks share the
// features, where registers do not suffice.
template <class T, int D, int PARTS, int QUERIES, bool PLAIN>
__global__ void __launch_bounds__(kThreads, 2)
    attention_keys(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                   const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                   const T* __restrict__ g, const float* __restrict__ log_mass,
                   const float* __restrict__ delta, T* __restrict__ gk, T* __restrict__ gv, long long q0,
                   long long q1, long long q2, long long q_row, long long k0, long long k1, long long k2,
                   long long k_row, long long v0, long long v1, long long v2, long long v_row, long long g0,
                   long long g1, long long g2, long long g_row, long long gk0, long long gk1, long long gk2,
                   long long gk_row, long long gv0, long long gv1, long long gv2, long long gv_row, long long m0,
                   long long m1, long long m2, long long m_row, long long m_column, int n0, int n1, int n2,
                   int summed, int shared_by, int queries, int keys, int width, int value_width, float scale,
                   int causal, int mask_kind, int dropout, unsigned threshold, float kept_scale,
                   unsigned long long seed, unsigned long long offset, int vector) {
  constexpr int ROWS = 16 * kWarps, COLUMNS = QUERIES / 8, WIDE = D / PARTS;
  const int blocks = (keys + ROWS - 1) / ROWS, block = static_cast<int>(blockIdx.x) / PARTS;
  const int part = static_cast<int>(blockIdx.x) % PARTS, outer = block / blocks, first = block % blocks * ROWS;
  const pf::HeadIndex own(pf::shared_head(outer, 0, n0, n1, n2, summed), n1, n2);
  k += own.at(k0, k1, k2) + first * k_row;
  v += own.at(v0, v1, v2) + first * v_row;
  gk += own.at(gk0, gk1, gk2) + first * gk_row;
  gv += own.at(gv0, gv1, gv2) + first * gv_row;

  T* const room = pf::dynamic_shared<T>();
  const pf::Tile<T, D> k_tile{room}, v_tile{room + ROWS * D};
  const auto q_tile = [&](int stage) { return pf::Tile<T, D>{room + (2 * ROWS + 2 * stage * QUERIES) * D}; };
  const auto g_tile = [&](int stage) { return pf::Tile<T, D>{room + (2 * ROWS + (2 * stage + 1) * QUERIES) * D}; };
  // log_mass and delta of a stage's queries
  float* const numbers = reinterpret_cast<float*>(room + (2 * ROWS + 4 * QUERIES) * D);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp * 16, lane_row = first + warp_row + lane / 4;
  const bool idle = first + warp_row >= keys;

  // Steps over the queries of one head after the other; those before the first key see none of the keys.
  const int begin = causal ? first / QUERIES * QUERIES : 0;
  const int steps = begin < queries ? (queries - begin + QUERIES - 1) / QUERIES : 0;
  const auto load = [&](int inner, int query, int stage) {
    const int number = pf::shared_head(outer, inner, n0, n1, n2, summed);
    const pf::HeadIndex head(number, n1, n2);
    const T* const rows = q + head.at(q0, q1, q2) + query * q_row;
    q_tile(stage).template load<QUERIES, kThreads, PLAIN>(rows, q_row, queries - query, width, vector & 1);
    const T* const cotangents = g + head.at(g0, g1, g2) + query * g_row;
    g_tile(stage).template load<QUERIES, kThreads, PLAIN>(cotangents, g_row, queries - query, value_width, vector & 8);
    for (int i = threadIdx.x; i < 2 * QUERIES; i += kThreads) {
      const bool there = query + i % QUERIES < queries;
      const long long at = static_cast<long long>(number) * queries + (there ? query + i % QUERIES : 0);
      pf::copy_async_4(numbers + 2 * stage * QUERIES + i, (i < QUERIES ? log_mass : delta) + at, there ? 4 : 0);
    }
    pf::copy_async_commit();
  };
  k_tile.template load<ROWS, kThreads, PLAIN>(k, k_row, keys - first, width, vector & 2);
  v_tile.template load<ROWS, kThreads, PLAIN>(v, v_row, keys - first, value_width, vector & 4);
  if (steps) load(0, begin, 0);

  float k_sums[1][WIDE / 8][4] = {}, v_sums[1][WIDE / 8][4] = {};
  int stage = 0;
  for (int inner = 0; inner < shared_by; ++inner) {
    for (int query = begin; query < queries; query += QUERIES, stage ^= 1) {
      pf::copy_async_wait<0>();
      __syncthreads();  // this stage has landed, and nobody reads the other one any more
      if (query + QUERIES < queries) load(inner, query + QUERIES, stage ^ 1);
      else if (inner + 1 < shared_by) load(inner + 1, begin, stage ^ 1);
      if (idle || (causal && query + QUERIES - 1 < first + warp_row)) continue;
      const int number = PLAIN ? 0 : pf::shared_head(outer, inner, n0, n1, n2, summed);
      pf::Mask<float> mask{mask_data, m_row, m_column, mask_kind};
      if (!PLAIN) mask.move(pf::HeadIndex(number, n1, n2).at(m0, m1, m2));
      const pf::WeightDropout drop(stream, seed, offset, number, queries, keys, threshold);
      const float* const log_masses = numbers + 2 * stage * QUERIES + lane % 4 * 2;
      const float* const deltas = log_masses + QUERIES;

      float s[1][COLUMNS][4] = {};
      pf::add_products(s, k_tile, warp_row, q_tile(stage));
      const bool edge = causal && query < first + warp_row + 15;
#pragma unroll
      for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int key = lane_row + i / 2 * 8, column = query + 8 * n + lane % 4 * 2 + i % 2;
          float exponent = s[0][n][i] * (scale * pf::kLog2e) - log_masses[8 * n + i % 2] * pf::kLog2e;
          if (!PLAIN && mask_kind && key < keys && column < queries) exponent += mask.at(column, key) * pf::kLog2e;
          s[0][n][i] = pf::fast_exp2(exponent);
          if (edge && key > column) s[0][n][i] = 0;
        }
      }
      if (!PLAIN && dropout) {
        float kept[1][COLUMNS][4];
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const unsigned long long key = lane_row + i / 2 * 8, column = query + 8 * n + lane % 4 * 2 + i % 2;
            // The sign of a weight says from here on that it is dropped.
            if (!drop.keeps(column * keys + key)) s[0][n][i] = -s[0][n][i];
            kept[0][n][i] = s[0][n][i] < 0 ? 0.0f : s[0][n][i] * kept_scale;
          }
        }
        pf::add_weighted(v_sums, kept, g_tile(stage), part * WIDE / 16);
      } else {
        pf::add_weighted(v_sums, s, g_tile(stage), part * WIDE / 16);
      }
      float d[1][COLUMNS][4] = {};
      pf::add_products(d, v_tile, warp_row, g_tile(stage));
#pragma unroll
      for (int n = 0; n < COLUMNS; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& p = s[0][n][i];
          float value = d[0][n][i];
          if (!PLAIN && dropout) {
            value *= p < 0 ? 0.0f : kept_scale;
            p = fabsf(p);
          }
          p *= value - deltas[8 * n + i % 2];
        }
      }
      pf::add_weighted(k_sums, s, q_tile(stage), part * WIDE / 16);
    }
  }
  pf::copy_async_wait_all();  // where no query sees the keys, theirs
  __syncthreads();
  if (idle) return;
  pf::scale_sums(k_sums, scale);
  const int column = part * WIDE;
  pf::store_rows<PLAIN>(k_sums, k_tile, warp_row, gk + column, gk_row, keys - first, width - column, vector & 16);
  pf::store_rows<PLAIN>(v_sums, v_tile, warp_row, gv + column, gv_row, keys - first, value_width - column, vector & 32);
}
