// A product by tensor copies, mbarriers and wgmma, without and with one mistake each: y = a · b for a [64, 192] and b
// [128, 192], transposed. Thread 0 loads, 128 to 255 multiply; two stages, three steps. Before them comes a product of
// zeros that threads have written.
#include "pyframe/hopper.cuh"

#include "pyframe/device.cuh"

enum Bug {
  none,
  no_wait_for_the_copies,
  wrong_phase,
  phase_does_not_alternate,
  no_wait_for_the_products,
  stage_given_back_too_early,
  no_wait_for_an_empty_stage,
  too_few_bytes,
  too_many_bytes,
  too_many_arrivals,
  no_fence_of_the_initialisation,
  no_barrier_after_the_initialisation,
  no_initialisation,
  no_fence_of_the_accumulators,
  no_commit,
  accumulators_changed,
  accumulators_read,
  one_warp_multiplies_something_else,
  wrong_swizzle,
  wrong_stride,
  wrong_stage,
  wrong_layout,
  misplaced_stage,
  no_proxy_fence,
  copies_outlive_the_block,
};

constexpr int kStage = (64 + 128) * 128, kStages = 2, kSteps = 3;

template <Bug BUG>
__global__ void product(const __grid_constant__ pf::tensor_map a, const __grid_constant__ pf::tensor_map b, float* y) {
  unsigned char* const stages = pf::dynamic_shared_1024<unsigned char>() + (BUG == misplaced_stage ? 128 : 0);
  auto& full = pf::shared<pf::mbarrier[kStages]>();
  struct Empty {
    pf::mbarrier values[kStages];
  };
  auto& empty = pf::shared<Empty>().values;
  if (threadIdx.x == 0 && BUG != no_initialisation) {
    for (int i = 0; i < kStages; ++i) {
      pf::mbarrier_init(full + i, 1);
      pf::mbarrier_init(empty + i, BUG == too_many_arrivals ? 5 : 4);
    }
    if (BUG != no_fence_of_the_initialisation) pf::mbarrier_init_fence();
  }
  unsigned char* const zeros = stages + kStages * kStage;
  for (int i = threadIdx.x; i < kStage / 16; i += 256) {
    pf::store(reinterpret_cast<float*>(zeros) + 4 * i, pf::Pack<float, 4>{});
  }
  if (BUG != no_proxy_fence) pf::fence_async_proxy();
  if (BUG != no_barrier_after_the_initialisation) __syncthreads();
  if (threadIdx.x < 128) {
    if (threadIdx.x != 0) return;
    for (int step = 0; step < kSteps + (BUG == copies_outlive_the_block); ++step) {
      const int stage = step % kStages;
      if (BUG != no_wait_for_an_empty_stage) pf::mbarrier_wait(empty + stage, step / kStages % 2 ^ 1);
      constexpr int kExpected = BUG == too_few_bytes ? kStage / 3 : BUG == too_many_bytes ? kStage + 16 : kStage;
      pf::mbarrier_arrive_expect(full + stage, kExpected);
      pf::tensor_load(stages + stage * kStage, a, full + stage, 64 * step, 0, 0, 0);
      pf::tensor_load(stages + stage * kStage + 8192, b, full + stage, 64 * step, 0, 0, 0);
    }
    return;
  }
  float d[64], read = 0;
  const unsigned long long zero = pf::matrix_descriptor(zeros, 16, 1024);
  if (BUG != no_fence_of_the_accumulators) pf::wgmma_fence();
  pf::wgmma<false, 128, 0, 0>(d, zero, zero + 8192 / 16, false);
  for (int step = 0; step < kSteps; ++step) {
    const int stage = step % kStages;
    const int right = step / kStages % 2;
    const int parity = BUG == wrong_phase ? right ^ 1 : BUG == phase_does_not_alternate ? 0 : right;
    if (BUG != no_wait_for_the_copies) pf::mbarrier_wait(full + stage, parity);
    unsigned char* const here = stages + (BUG == wrong_stage ? 1 - stage : stage) * kStage;
    unsigned long long at_a = pf::matrix_descriptor(here, 16, BUG == wrong_stride ? 512 : 1024);
    unsigned long long at_b = pf::matrix_descriptor(here + 8192, 16, 1024);
    if (BUG == wrong_swizzle) at_a ^= 3ull << 62;  // 64 bytes instead of 128
    if (BUG == one_warp_multiplies_something_else && threadIdx.x / 32 == 5 && threadIdx.x % 2) at_a += 2;
    if (BUG != no_fence_of_the_accumulators) pf::wgmma_fence();
    for (int i = 0; i < 4; ++i) pf::wgmma<false, 128, BUG == wrong_layout, 0>(d, at_a + 2 * i, at_b + 2 * i, true);
    if (BUG == accumulators_changed) d[3] = 0;
    if (BUG == accumulators_read) read = d[3];
    if (BUG != no_commit) pf::wgmma_commit();
    if (BUG == stage_given_back_too_early && threadIdx.x % 32 == 0) pf::mbarrier_arrive(empty + stage);
    if (BUG != no_wait_for_the_products) pf::wgmma_wait<0>();
    if (BUG != stage_given_back_too_early && threadIdx.x % 32 == 0) pf::mbarrier_arrive(empty + stage);
  }
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  for (int i = 0; i < 64; ++i) {
    y[(16 * warp + lane / 4 + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i] + read;
  }
}
