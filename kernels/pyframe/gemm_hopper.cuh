// Products of matrices of half types on Hopper: tensor copies, mbarriers and wgmma (sm_90a only).
//
// A block is three warpgroups. One thread of the first fills a ring of stages by tensor copies; the other two multiply,
// each the 64 rows of a tile of 128 × N that are its own. A stage has two mbarriers: `full` counts the bytes that have
// come, `empty` the warps that are done with it. Blocks stay and take tile after tile, so that the first stages of the
// next tile are on their way while the results of this one are written.
//
// A stage takes 64 values along k: 128 bytes, the span of the widest swizzle. With N = 256 it is 48 KB for 4.2 million
// multiplications, 1024 cycles of the tensor cores; four stages fit.
#pragma once

#include "pyframe/gemm.cuh"
#include "pyframe/hopper.cuh"

namespace pf {

template <class T>
constexpr bool kIsBrain = false;
template <>
constexpr bool kIsBrain<bfloat16> = true;

template <class T_, int N, int STAGES, bool A_K_INNER, bool B_K_INNER>
struct HopperGemm {
  using T = T_;
  static constexpr bool kBrain = kIsBrain<T>;
  static constexpr int kM = 128, kN = N, kK = 64, kStages = STAGES, kThreads = 384;
  static constexpr bool kAInner = A_K_INNER, kBInner = B_K_INNER;
  static constexpr int kBytesA = kM * kK * 2, kBytesB = kN * kK * 2, kStageBytes = kBytesA + kBytesB;
  // 132 tiles of 128 × 256 at a time are 16 rows of them by 8: 2048 rows of a and 2112 columns of b.
  static constexpr unsigned kDown = 16;
  // Where k is not the contiguous dimension, a box is 64 values of the other one by kK lines.
  static constexpr int kBox = 64 * kK * 2;

  struct Storage {
    unsigned char stages[STAGES][kStageBytes];
    mbarrier full[STAGES], empty[STAGES];
  };
  static_assert(sizeof(Storage) <= 227 * 1024, "more shared memory than a block may have");
  static_assert(kM * kK * 2 % 1024 == 0 && kStageBytes % 1024 == 0, "operands start where the swizzle does");
};

// The place in the ring: phases of a stage alternate between the parities.
template <int STAGES>
struct RingPlace {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance() {
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    parity ^= stage == 0;
  }
};

struct HopperWork {
  int m, n, k, inner;
  unsigned tiles;
  unsigned batched;  // bits: whether a has the inner, the outer dimension of the batch; b the inner, the outer one
};

template <class Gemm>
__device__ __forceinline__ void load_stages(const tensor_map& a, const tensor_map& b, const HopperWork& work,
                                            typename Gemm::Storage& storage) {
  RingPlace<Gemm::kStages> at;
  for (unsigned number = blockIdx.x; number < work.tiles; number += gridDim.x) {
    const GemmTile tile = locate_tile<Gemm::kM, Gemm::kN, Gemm::kDown>(number, work.m, work.n, work.inner);
    const int inner_a = work.batched & 1 ? tile.inner : 0, outer_a = work.batched & 2 ? tile.outer : 0;
    const int inner_b = work.batched & 4 ? tile.inner : 0, outer_b = work.batched & 8 ? tile.outer : 0;
#pragma unroll 1
    for (int k = 0; k < work.k; k += Gemm::kK) {
      unsigned char* const stage = storage.stages[at.stage];
      mbarrier* const full = storage.full + at.stage;
      mbarrier_wait(storage.empty + at.stage, at.parity ^ 1u);  // at first all are
      mbarrier_arrive_expect(full, Gemm::kStageBytes);
      if constexpr (Gemm::kAInner) {
        tensor_load(stage, a, full, k, tile.row, inner_a, outer_a);
      } else {
#pragma unroll
        for (int i = 0; i < Gemm::kM / 64; ++i) {
          tensor_load(stage + i * Gemm::kBox, a, full, tile.row + 64 * i, k, inner_a, outer_a);
        }
      }
      if constexpr (Gemm::kBInner) {
        tensor_load(stage + Gemm::kBytesA, b, full, k, tile.column, inner_b, outer_b);
      } else {
#pragma unroll
        for (int i = 0; i < Gemm::kN / 64; ++i) {
          tensor_load(stage + Gemm::kBytesA + i * Gemm::kBox, b, full, tile.column + 64 * i, k, inner_b, outer_b);
        }
      }
      at.advance();
    }
  }
}

// Four lanes in a row have four pairs each; afterwards lane q has pair q of each of them.
__device__ __forceinline__ void transpose_pairs(float (&v)[8]) {
  const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool high = (lane & bit) != 0;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      if (p & bit) continue;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float &low = v[2 * p + e], &other = v[2 * (p + bit) + e];
        const float received = __shfl_xor_sync(kAllLanes, high ? low : other, bit);
        low = high ? received : low;
        other = high ? other : received;
      }
    }
  }
}

// Hands the products of a warpgroup to the epilogue, eight neighbours at a time: four lanes write 64 bytes in a row.
// Where columns are summed, there is a row of parts for the 16 rows of each warp.
template <class Gemm, class Epilogue>
__device__ __forceinline__ void write_rows(const float (&d)[Gemm::kN / 2], const GemmTile& tile, int first_row,
                                           const HopperWork& work, const Epilogue& epilogue) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int group = 0; group < Gemm::kN / 32; ++group) {
    ColumnSums<float, 8, Epilogue::kSums> columns;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = d[16 * group + i / 2 * 4 + 2 * half + i % 2];
      transpose_pairs(v);
      const int row = first_row + lane / 4 + 8 * half, column = 32 * group + lane % 4 * 8;
      if (tile.row + row < work.m && tile.column + column < work.n) {
        columns.add(epilogue, place_of(tile, row, column, work.m, work.n, work.inner, 8), v);
      }
    }
    if constexpr (Epilogue::kSums) {
      columns.template add_lanes<4>();
      if (lane < 4) {
        columns.write(epilogue.column_sums + static_cast<long long>((tile.row + first_row) / 16) * work.n,
                      tile.column + 32 * group + lane * 8, work.n);
      }
    }
  }
}

template <class Gemm, class Epilogue>
__device__ __forceinline__ void multiply_stages(const HopperWork& work, typename Gemm::Storage& storage,
                                                const Epilogue& epilogue) {
  constexpr int N = Gemm::kN;
  const int group = static_cast<int>(threadIdx.x) / 128 - 1, warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const bool first_lane = threadIdx.x % 32 == 0;
  // 16 of k are 32 bytes of a line, or 16 lines of 128 bytes.
  constexpr int kAdvanceA = (Gemm::kAInner ? 32 : 2048) / 16, kAdvanceB = (Gemm::kBInner ? 32 : 2048) / 16;
  // 64 rows of a are 8 KB in both layouts: 64 lines of 128 bytes, or a box. So only b has a next box; elsewhere the
  // hardware takes no notice of `leading`.
  const unsigned long long first_a = matrix_descriptor(storage.stages[0] + group * 8192, 16, 1024);
  const unsigned long long first_b =
      matrix_descriptor(storage.stages[0] + Gemm::kBytesA, Gemm::kBInner ? 16 : Gemm::kBox, 1024);
  RingPlace<Gemm::kStages> at;
  for (unsigned number = blockIdx.x; number < work.tiles; number += gridDim.x) {
    float d[N / 2];
    mbarrier* before = nullptr;
#pragma unroll 1  // four products at a time keep the tensor cores busy
    for (int k = 0; k < work.k; k += Gemm::kK) {
      mbarrier_wait(storage.full + at.stage, at.parity);
      const unsigned long long a = first_a + at.stage * (Gemm::kStageBytes / 16);
      const unsigned long long b = first_b + at.stage * (Gemm::kStageBytes / 16);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < Gemm::kK / 16; ++i) {
        wgmma<Gemm::kBrain, N, !Gemm::kAInner, !Gemm::kBInner>(d, a + i * kAdvanceA, b + i * kAdvanceB, k + i != 0);
      }
      wgmma_commit();
      // The tensor cores go on with this stage while the one before is given back.
      wgmma_wait<1>();
      if (before != nullptr && first_lane) mbarrier_arrive(before);
      before = storage.empty + at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    if (first_lane) mbarrier_arrive(before);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) hold(d[i]);
    const GemmTile tile = locate_tile<Gemm::kM, N, Gemm::kDown>(number, work.m, work.n, work.inner);
    write_rows<Gemm>(d, tile, group * 64 + warp * 16, work, epilogue);
  }
}

// Blocks of Gemm::kThreads threads, any number of them; sizeof(Gemm::Storage) bytes of dynamic shared memory; k > 0.
template <class Gemm, class Epilogue>
__device__ __forceinline__ void gemm_hopper(const tensor_map& a, const tensor_map& b, const HopperWork& work,
                                            const Epilogue& epilogue) {
  auto& storage = *dynamic_shared_1024<typename Gemm::Storage>();
  if (threadIdx.x == 0) {
    prefetch_tensor_map(a);
    prefetch_tensor_map(b);
    for (int i = 0; i < Gemm::kStages; ++i) {
      mbarrier_init(storage.full + i, 1);
      mbarrier_init(storage.empty + i, 8);  // the warps that multiply
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  // 65536 registers: 168 for each of 384 threads at the start, then 40 for 128 and 232 for 256.
  if (threadIdx.x < 128) {
    lower_registers<40>();
    if (threadIdx.x == 0) load_stages<Gemm>(a, b, work, storage);
  } else {
    raise_registers<232>();
    multiply_stages<Gemm>(work, storage, epilogue);
  }
}

}  // namespace pf
