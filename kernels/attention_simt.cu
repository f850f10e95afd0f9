// Attention of float and double, forward and backward, without tensor cores: blocks of scores as in attention.cu.
//
// A block of 16 × 16 threads has B rows and goes over the other side in steps of B; each thread has the scores of
// B / 16 rows and as many columns. Features pass through shared memory in slices, so that their number costs none.
#include "pyframe/attention.cuh"

namespace {

constexpr int kSide = 16, kThreads = kSide * kSide;

template <class T, int D, int B>
struct Room {
  static constexpr int kVector = 16 / sizeof(T);  // values of an access
  static constexpr int kSlice = 16;               // features of a slice
  static constexpr int kDepth = 64 / sizeof(T);   // rows of a slice of what weights are multiplied with
  // A vector more in each row: rows that are read together begin in different banks.
  T x[B][kSlice + kVector], y[B][kSlice + kVector], weights[B][B + kVector], rows[kDepth][D];
};

// The sum, or the largest, over the 16 threads that share rows.
template <class T, class Combine>
__device__ __forceinline__ T over_row(T value, Combine combine) {
#pragma unroll
  for (int bit = 1; bit < kSide; bit *= 2) value = combine(value, __shfl_xor_sync(pf::kAllLanes, value, bit));
  return value;
}
struct Larger {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; }
};

template <class T, int B>
__device__ __forceinline__ void load_slice(T (&slice)[B][16 + 16 / sizeof(T)], const T* rows, long long stride,
                                           int count, int column, int width) {
  for (int i = threadIdx.x; i < B * 16; i += kThreads) {
    const int row = i / 16, at = column + i % 16;
    slice[row][i % 16] = row < count && at < width ? rows[row * stride + at] : T(0);
  }
}

// s[i][j] = Σ x · y for rows ty + 16 i of x and tx + 16 j of y; rows beyond the counts are zeros. Begins with a
// barrier.
template <class T, int D, int B, int R>
__device__ __forceinline__ void products(Room<T, D, B>& room, T (&s)[R][R], const T* x, long long x_stride, int x_count,
                                         const T* y, long long y_stride, int y_count, int width) {
  constexpr int V = Room<T, D, B>::kVector, SLICE = Room<T, D, B>::kSlice;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < R; ++j) s[i][j] = 0;
  }
  for (int column = 0; column < width; column += SLICE) {
    __syncthreads();
    load_slice(room.x, x, x_stride, x_count, column, width);
    load_slice(room.y, y, y_stride, y_count, column, width);
    __syncthreads();
#pragma unroll
    for (int e = 0; e < SLICE; e += V) {
      pf::Pack<T, V> a[R], b[R];
#pragma unroll
      for (int i = 0; i < R; ++i) {
        a[i] = pf::load<V>(&room.x[ty + kSide * i][e]);
        b[i] = pf::load<V>(&room.y[tx + kSide * i][e]);
      }
#pragma unroll
      for (int v = 0; v < V; ++v) {
#pragma unroll
        for (int i = 0; i < R; ++i) {
#pragma unroll
          for (int j = 0; j < R; ++j) s[i][j] += a[i].values[v] * b[j].values[v];
        }
      }
    }
  }
}

// sums[i][c] += Σ weights[row][k] · rows[k][column] for rows ty + 16 i and columns c % V + V · (tx + 16 · (c / V)).
// Starts with a barrier; `weights` was written by the same threads before it.
template <class T, int D, int B, int R>
__device__ __forceinline__ void add_weighted(Room<T, D, B>& room, T (&sums)[R][D / kSide], const T* rows,
                                             long long stride, int count, int width) {
  constexpr int V = Room<T, D, B>::kVector, DEPTH = Room<T, D, B>::kDepth;
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
  for (int first = 0; first < B && first < count; first += DEPTH) {
    __syncthreads();
    for (int i = threadIdx.x; i < DEPTH * D; i += kThreads) {
      const int row = first + i / D, column = i % D;
      room.rows[i / D][column] = row < count && column < width ? rows[row * stride + column] : T(0);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DEPTH; k += V) {
      pf::Pack<T, V> w[R];
#pragma unroll
      for (int i = 0; i < R; ++i) w[i] = pf::load<V>(&room.weights[ty + kSide * i][first + k]);
#pragma unroll
      for (int c = 0; c < D / kSide; c += V) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const auto b = pf::load<V>(&room.rows[k + v][V * tx + kSide * c]);
#pragma unroll
          for (int i = 0; i < R; ++i) {
#pragma unroll
            for (int j = 0; j < V; ++j) sums[i][c + j] += w[i].values[v] * b.values[j];
          }
        }
      }
    }
  }
}

template <class T, int D, int B, int R>
__device__ __forceinline__ void keep_weights(Room<T, D, B>& room, const T (&weights)[R][R]) {
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < R; ++i) {
#pragma unroll
    for (int j = 0; j < R; ++j) room.weights[ty + kSide * i][tx + kSide * j] = weights[i][j];
  }
}

template <class T, int R, int COLUMNS>
__device__ __forceinline__ void store_sums(const T (&sums)[R][COLUMNS], const T (&factors)[R], T* rows,
                                           long long stride, int count, int width) {
  constexpr int V = 16 / sizeof(T);
  const int tx = threadIdx.x % kSide, ty = threadIdx.x / kSide;
#pragma unroll
  for (int i = 0; i < R; ++i) {
    if (ty + kSide * i >= count) continue;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) {
      const int column = c % V + V * (tx + kSide * (c / V));
      if (column < width) rows[(ty + kSide * i) * stride + column] = sums[i][c] * factors[i];
    }
  }
}

}  // namespace

// For arguments see attention_forward.
template <class T, int D, int B>
__global__ void __launch_bounds__(kThreads, 1)
    attention_forward_simt(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                           const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                           T* __restrict__ y, T* __restrict__ log_mass,
                           long long q0, long long q1, long long q2, long long q_row, long long k0, long long k1,
                           long long k2, long long k_row, long long v0, long long v1, long long v2, long long v_row,
                           long long y0, long long y1, long long y2, long long y_row, long long m0, long long m1,
                           long long m2, long long m_row, long long m_column, int n1, int n2, int queries, int keys,
                           int width, int value_width, double scale, int causal, int mask_kind, int dropout,
                           unsigned threshold, double kept_scale, unsigned long long seed,
                           unsigned long long offset) {
  constexpr int R = B / kSide;
  const int blocks = (queries + B - 1) / B, head_number = static_cast<int>(blockIdx.x) / blocks;
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * B;
  const pf::HeadIndex head(head_number, n1, n2);
  q += head.at(q0, q1, q2) + first * q_row;
  k += head.at(k0, k1, k2);
  v += head.at(v0, v1, v2);
  y += head.at(y0, y1, y2) + first * y_row;
  pf::Mask<T> mask{mask_data, m_row, m_column, mask_kind};
  mask.move(head.at(m0, m1, m2));
  const pf::WeightDropout drop(stream, seed, offset, head_number, queries, keys, threshold);
  auto& room = pf::shared<Room<T, D, B>>();
  const int tx = threadIdx.x % kSide, row_of = first + threadIdx.x / kSide;
  const int end = causal ? min(keys, first + B) : keys;

  T out[R][D / kSide] = {}, top[R], mass[R] = {};
#pragma unroll
  for (int i = 0; i < R; ++i) top[i] = -T(pf::infinity());
  for (int key = 0; key < end; key += B) {
    T s[R][R];
    products(room, s, q, q_row, queries - first, k + key * k_row, k_row, keys - key, width);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int row = row_of + kSide * i;
      T high = top[i];
#pragma unroll
      for (int j = 0; j < R; ++j) {
        const int column = key + tx + kSide * j;
        s[i][j] *= T(scale);
        if (mask_kind && row < queries && column < keys) s[i][j] += mask.at(row, column);
        if (column >= keys || (causal && column > row)) s[i][j] = -T(pf::infinity());
        high = Larger()(high, s[i][j]);
      }
      high = over_row(high, Larger());
      const T shift = high == -T(pf::infinity()) ? T(0) : high;  // no key yet: all weights are 0
      const T fade = exp(top[i] - shift);
      T sum = 0;
#pragma unroll
      for (int j = 0; j < R; ++j) {
        s[i][j] = exp(s[i][j] - shift);
        sum += s[i][j];
        if (dropout && !drop.keeps(static_cast<unsigned long long>(row) * keys + key + tx + kSide * j)) s[i][j] = 0;
      }
      top[i] = high;
      mass[i] = mass[i] * fade + over_row(sum, pf::Sum());
#pragma unroll
      for (int c = 0; c < D / kSide; ++c) out[i][c] *= fade;
    }
    keep_weights(room, s);
    add_weighted(room, out, v + key * v_row, v_row, keys - key, value_width);
  }
  T shares[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const bool empty = mass[i] == 0;  // a row without any key gives 0
    shares[i] = empty ? T(0) : T(kept_scale) / mass[i];
    const int row = row_of + kSide * i;
    if (tx == 0 && row < queries) {
      log_mass[static_cast<long long>(head_number) * queries + row] = empty ? T(0) : top[i] + log(mass[i]);
    }
  }
  store_sums(out, shares, y, y_row, queries - first, value_width);
}

// For arguments see attention_queries.
template <class T, int D, int B>
__global__ void __launch_bounds__(kThreads, 1)
    attention_queries_simt(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                           const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                           const T* __restrict__ y, const T* __restrict__ g,
                           const T* __restrict__ log_mass, T* __restrict__ gq, T* __restrict__ delta, long long q0,
                           long long q1, long long q2, long long q_row, long long k0, long long k1, long long k2,
                           long long k_row, long long v0, long long v1, long long v2, long long v_row, long long y0,
                           long long y1, long long y2, long long y_row, long long g0, long long g1, long long g2,
                           long long g_row, long long gq0, long long gq1, long long gq2, long long gq_row,
                           long long m0, long long m1, long long m2, long long m_row, long long m_column, int n1,
                           int n2, int queries, int keys, int width, int value_width, double scale, int causal,
                           int mask_kind, int dropout, unsigned threshold, double kept_scale,
                           unsigned long long seed, unsigned long long offset) {
  constexpr int R = B / kSide;
  const int blocks = (queries + B - 1) / B, head_number = static_cast<int>(blockIdx.x) / blocks;
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x) % blocks) * B;
  const pf::HeadIndex head(head_number, n1, n2);
  q += head.at(q0, q1, q2) + first * q_row;
  k += head.at(k0, k1, k2);
  v += head.at(v0, v1, v2);
  y += head.at(y0, y1, y2);
  g += head.at(g0, g1, g2);
  gq += head.at(gq0, gq1, gq2) + first * gq_row;
  log_mass += static_cast<long long>(head_number) * queries;
  delta += static_cast<long long>(head_number) * queries;
  pf::Mask<T> mask{mask_data, m_row, m_column, mask_kind};
  mask.move(head.at(m0, m1, m2));
  const pf::WeightDropout drop(stream, seed, offset, head_number, queries, keys, threshold);
  auto& room = pf::shared<Room<T, D, B>>();
  const int tx = threadIdx.x % kSide, row_of = first + threadIdx.x / kSide;
  const int end = causal ? min(keys, first + B) : keys;

  T out[R][D / kSide] = {}, log_masses[R], deltas[R], scales[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const int row = row_of + kSide * i;
    T sum = 0;
    for (int e = tx; row < queries && e < value_width; e += kSide) sum += y[row * y_row + e] * g[row * g_row + e];
    deltas[i] = over_row(sum, pf::Sum());
    log_masses[i] = row < queries ? log_mass[row] : T(0);
    scales[i] = T(scale);
    if (tx == 0 && row < queries) delta[row] = deltas[i];
  }
  for (int key = 0; key < end; key += B) {
    T s[R][R], d[R][R];
    products(room, s, q, q_row, queries - first, k + key * k_row, k_row, keys - key, width);
    products(room, d, g + first * g_row, g_row, queries - first, v + key * v_row, v_row, keys - key, value_width);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const int row = row_of + kSide * i;
#pragma unroll
      for (int j = 0; j < R; ++j) {
        const int column = key + tx + kSide * j;
        T exponent = s[i][j] * T(scale) - log_masses[i];
        if (mask_kind && row < queries && column < keys) exponent += mask.at(row, column);
        const bool hidden = column >= keys || (causal && column > row);
        if (dropout) d[i][j] *= drop.keeps(static_cast<unsigned long long>(row) * keys + column) ? T(kept_scale) : T(0);
        d[i][j] = hidden ? T(0) : exp(exponent) * (d[i][j] - deltas[i]);
      }
    }
    keep_weights(room, d);
    add_weighted(room, out, k + key * k_row, k_row, keys - key, width);
  }
  store_sums(out, scales, gq, gq_row, queries - first, width);
}

// For arguments see attention_keys.
template <class T, int D, int B>
__global__ void __launch_bounds__(kThreads, 1)
    attention_keys_simt(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v,
                        const void* __restrict__ mask_data, const unsigned long long* __restrict__ stream,
                        const T* __restrict__ g, const T* __restrict__ log_mass,
                        const T* __restrict__ delta, T* __restrict__ gk, T* __restrict__ gv, long long q0,
                        long long q1, long long q2, long long q_row, long long k0, long long k1, long long k2,
                        long long k_row, long long v0, long long v1, long long v2, long long v_row, long long g0,
                        long long g1, long long g2, long long g_row, long long gk0, long long gk1, long long gk2,
                        long long gk_row, long long gv0, long long gv1, long long gv2, long long gv_row, long long m0,
                        long long m1, long long m2, long long m_row, long long m_column, int n0, int n1, int n2,
                        int summed, int shared_by, int queries, int keys, int width, int value_width, double scale,
                        int causal, int mask_kind, int dropout, unsigned threshold, double kept_scale,
                        unsigned long long seed, unsigned long long offset) {
  constexpr int R = B / kSide;
  const int blocks = (keys + B - 1) / B, outer = static_cast<int>(blockIdx.x) / blocks;
  const int first = static_cast<int>(blockIdx.x) % blocks * B;
  const pf::HeadIndex own(pf::shared_head(outer, 0, n0, n1, n2, summed), n1, n2);
  k += own.at(k0, k1, k2) + first * k_row;
  v += own.at(v0, v1, v2) + first * v_row;
  gk += own.at(gk0, gk1, gk2) + first * gk_row;
  gv += own.at(gv0, gv1, gv2) + first * gv_row;
  auto& room = pf::shared<Room<T, D, B>>();
  const int tx = threadIdx.x % kSide, row_of = first + threadIdx.x / kSide;
  const int begin = causal ? first / B * B : 0;  // queries before see none of the keys

  T k_sums[R][D / kSide] = {}, v_sums[R][D / kSide] = {};
  for (int inner = 0; inner < shared_by; ++inner) {
    const int number = pf::shared_head(outer, inner, n0, n1, n2, summed);
    const pf::HeadIndex head(number, n1, n2);
    const long long row_at = static_cast<long long>(number) * queries;
    pf::Mask<T> mask{mask_data, m_row, m_column, mask_kind};
    mask.move(head.at(m0, m1, m2));
    const pf::WeightDropout drop(stream, seed, offset, number, queries, keys, threshold);
    for (int query = begin; query < queries; query += B) {
      const T* const q_rows = q + head.at(q0, q1, q2) + query * q_row;
      const T* const g_rows = g + head.at(g0, g1, g2) + query * g_row;
      T s[R][R], d[R][R];
      products(room, s, k, k_row, keys - first, q_rows, q_row, queries - query, width);
      products(room, d, v, v_row, keys - first, g_rows, g_row, queries - query, value_width);
#pragma unroll
      for (int j = 0; j < R; ++j) {
        const int column = query + tx + kSide * j;
        const T column_log_mass = column < queries ? log_mass[row_at + column] : T(0);
        const T column_delta = column < queries ? delta[row_at + column] : T(0);
#pragma unroll
        for (int i = 0; i < R; ++i) {
          const int key = row_of + kSide * i;
          T exponent = s[i][j] * T(scale) - column_log_mass;
          if (mask_kind && key < keys && column < queries) exponent += mask.at(column, key);
          const bool hidden = column >= queries || (causal && key > column);
          s[i][j] = hidden ? T(0) : exp(exponent);
          T factor = 1;
          if (dropout) factor = drop.keeps(static_cast<unsigned long long>(column) * keys + key) ? T(kept_scale) : T(0);
          d[i][j] = s[i][j] * (d[i][j] * factor - column_delta);
          s[i][j] *= factor;
        }
      }
      keep_weights(room, s);
      add_weighted(room, v_sums, g_rows, g_row, queries - query, value_width);
      __syncthreads();
      keep_weights(room, d);
      add_weighted(room, k_sums, q_rows, q_row, queries - query, width);
    }
  }
  T scales[R], ones[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    scales[i] = T(scale);
    ones[i] = T(1);
  }
  store_sums(k_sums, scales, gk, gk_row, keys - first, width);
  store_sums(v_sums, ones, gv, gv_row, keys - first, value_width);
}
