// Small kernels, each with (BUG) and without one mistake that hardware would punish, or worse, would not.
#include "pyframe/device.cuh"

// Every thread reads what its neighbour has written.
template <bool BUG>
__global__ void missing_barrier(float* y) {
  auto& values = pf::shared<float[64]>();
  values[threadIdx.x] = 0;
  __syncthreads();
  values[threadIdx.x] = threadIdx.x;
  if (!BUG) __syncthreads();
  y[threadIdx.x] = values[63 - threadIdx.x];
}

// The barrier at the end of a loop's body: without it the next round overwrites what others still read.
template <bool BUG>
__global__ void missing_second_barrier(float* y) {
  auto& values = pf::shared<float[64]>();
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    values[threadIdx.x] = round + threadIdx.x;
    __syncthreads();
    sum += values[63 - threadIdx.x];
    if (!BUG) __syncthreads();
  }
  y[threadIdx.x] = sum;
}

template <bool BUG>
__global__ void missing_syncwarp(float* y) {
  auto& values = pf::shared<float[32]>();
  values[threadIdx.x] = 0;
  __syncwarp();
  values[threadIdx.x] = threadIdx.x;
  if (!BUG) __syncwarp();
  y[threadIdx.x] = values[31 - threadIdx.x];
}

template <bool BUG>
__global__ void off_by_one_load(const float* x, float* y, int n) {
  const int i = threadIdx.x;
  if (i < n) y[i] = i + 1 < n || BUG ? x[i + 1] : 0.0f;
}

template <bool BUG>
__global__ void load_before_the_start(const float* x, float* y, int n) {
  const int i = threadIdx.x;
  if (i < n) y[i] = i > 0 || BUG ? x[i - 1] : 0.0f;
}

template <bool BUG>
__global__ void off_by_one_store(float* y, int n) {
  const int i = threadIdx.x;
  if (BUG ? i <= n : i < n) y[i] = 1;
}

template <bool BUG>
__global__ void width_no_power_of_two(float* y) {
  y[threadIdx.x] = __shfl_down_sync(pf::kAllLanes, float(threadIdx.x), 4, BUG ? 12 : 8);
}

// Sums over a warp; with the width 16 each half sums for itself.
template <bool BUG>
__global__ void wrong_width(const float* x, float* y) {
  float sum = x[threadIdx.x];
  for (int d = 16; d; d /= 2) sum += __shfl_down_sync(pf::kAllLanes, sum, d, BUG ? 16 : 32);
  if (threadIdx.x == 0) y[0] = sum;
}

template <bool BUG>
__global__ void wrong_mask(float* y) {
  y[threadIdx.x] = __shfl_xor_sync(BUG ? 0xffffu : pf::kAllLanes, float(threadIdx.x), 1);
}

// Half a warp exchanges values; with a distance of 16 the other half is asked.
template <bool BUG>
__global__ void lane_outside_the_mask(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffu, float(threadIdx.x), BUG ? 16 : 8);
}

template <bool BUG>
__global__ void exited_lane(float* y) {
  if (threadIdx.x == 31 && BUG) return;
  y[threadIdx.x] = __shfl_xor_sync(pf::kAllLanes, float(threadIdx.x), 1);
}

template <bool BUG>
__global__ void barrier_in_a_branch(float* y) {
  if (!BUG || threadIdx.x < 32) {
    __syncthreads();
  }
  y[threadIdx.x] = 1;
}

template <bool BUG>
__global__ void two_barriers(float* y) {
  if (BUG && threadIdx.x >= 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  y[threadIdx.x] = 1;
}

template <bool BUG>
__global__ void warp_function_and_barrier(float* y) {
  if (!BUG || threadIdx.x % 32) __syncwarp();
  __syncthreads();
  y[threadIdx.x] = 1;
}

template <bool BUG>
__global__ void misaligned_vector(const float* x, float* y) {
  const auto pack = pf::load<4>(x + (BUG ? 1 : 4));
  pf::store(y, pack);
}

template <bool BUG>
__global__ void uninitialised_shared(float* y) {
  auto& values = pf::shared<float[64]>();
  if (!BUG || threadIdx.x != 5) values[threadIdx.x] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = values[threadIdx.x ^ 1];
}

template <bool BUG>
__global__ void shared_overrun(float* y) {
  float* const values = pf::dynamic_shared<float>();
  values[threadIdx.x + (BUG ? 1 : 0)] = threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = values[threadIdx.x];
}

template <bool BUG>
__global__ void index_outside_of_an_array(float* y, int n) {
  auto& values = pf::shared<float[64]>();
  values[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = values[(threadIdx.x + n) % (BUG ? 65 : 64)];
}

template <bool BUG>
__global__ void blocks_write_the_same(float* y) {
  if (threadIdx.x == 0) y[BUG ? blockIdx.x / 2 : blockIdx.x] = 1;
}

template <bool BUG>
__global__ void block_reads_another_block_s(float* y, float* z) {
  y[blockIdx.x * 32 + threadIdx.x] = 1;
  __syncthreads();
  const int block = BUG ? (blockIdx.x + 1) % gridDim.x : blockIdx.x;
  z[blockIdx.x * 32 + threadIdx.x] = y[block * 32 + 31 - threadIdx.x];
}

// The last block adds up what all have written; without the fence it may see old values.
template <bool BUG>
__global__ void missing_fence(float* parts, unsigned* count, float* y) {
  if (threadIdx.x != 0) return;
  parts[blockIdx.x] = blockIdx.x;
  if (!BUG) __threadfence();
  if (atomicAdd(count, 1u) != gridDim.x - 1) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += parts[i];
  y[0] = sum;
}

template <bool BUG>
__global__ void order_of_atomics(float* y) {
  if (BUG) {
    atomicAdd(y, 1.0f / (1 + threadIdx.x + blockDim.x * blockIdx.x));
  } else {
    atomicAdd(reinterpret_cast<unsigned*>(y), 1u + threadIdx.x);
  }
}

// Packs the values above zero; places handed out by a counter depend on who comes first.
template <bool BUG>
__global__ void place_from_a_counter(const float* x, float* y, unsigned* count) {
  if (x[threadIdx.x] > 0) y[BUG ? atomicAdd(count, 1u) : threadIdx.x] = x[threadIdx.x];
}

template <bool BUG>
__global__ void read_before_the_copy(const float* x, float* y) {
  float* const values = pf::dynamic_shared<float>();
  pf::copy_async_16(values + 4 * threadIdx.x, x + 4 * threadIdx.x);
  pf::copy_async_commit();
  if (!BUG) pf::copy_async_wait<0>();
  __syncthreads();
  y[threadIdx.x] = values[threadIdx.x];
  if (BUG) pf::copy_async_wait<0>();
}

// Two groups of copies; waiting until one is left means the older one.
template <bool BUG>
__global__ void wait_for_the_wrong_group(const float* x, float* y) {
  float* const values = pf::dynamic_shared<float>();
  pf::copy_async_4(values + threadIdx.x, x + threadIdx.x);
  pf::copy_async_commit();
  pf::copy_async_4(values + 32 + threadIdx.x, x + 32 + threadIdx.x);
  pf::copy_async_commit();
  pf::copy_async_wait<1>();
  y[threadIdx.x] = values[threadIdx.x + (BUG ? 32 : 0)];
  pf::copy_async_wait_all();
}

template <bool BUG>
__global__ void copy_without_a_wait(const float* x, float* y) {
  float* const values = pf::dynamic_shared<float>();
  pf::copy_async_4(values + threadIdx.x, x + threadIdx.x);
  if (!BUG) pf::copy_async_wait_all();
  y[threadIdx.x] = 1;
}

// The first load of the next tile overwrites what other warps still read.
template <bool BUG>
__global__ void copy_over_what_is_read(const float* x, float* y) {
  float* const values = pf::dynamic_shared<float>();
  float sum = 0;
  for (int tile = 0; tile < 2; ++tile) {
    pf::copy_async_4(values + threadIdx.x, x + 64 * tile + threadIdx.x);
    pf::copy_async_wait_all();
    __syncthreads();
    sum += values[63 - threadIdx.x];
    if (!BUG) __syncthreads();
  }
  y[threadIdx.x] = sum;
}

template <bool BUG>
__global__ void misaligned_matrix_row(float* y) {
  auto* const tile = pf::dynamic_shared<unsigned short>();
  for (int i = threadIdx.x; i < 80; i += 32) tile[i] = i;
  __syncwarp();
  unsigned registers[1];
  pf::load_matrices(registers, tile + 8 * (threadIdx.x % 8) + (BUG ? 4 : 0));
  y[threadIdx.x] = registers[0];
}

template <bool BUG>
__global__ void short_index(const float* x, float* y, int row, int stride) {
  const auto start = BUG ? row * stride : static_cast<long long>(row) * stride;
  y[threadIdx.x] = start > 0 ? 1.0f : x[threadIdx.x];
}

template <bool BUG>
__global__ void null_pointer(const float* bias, float* y) {
  y[threadIdx.x] = BUG || bias ? bias[threadIdx.x] : 0.0f;
}

template <bool BUG>
__global__ void large_frame(float* y, int n) {
  volatile float values[BUG ? 40000 : 400];
  for (int i = 0; i < n; ++i) values[i] = i;
  y[threadIdx.x] = values[n - 1];
}

template <bool BUG>
__global__ void division_by_zero(int* y, int n) { y[threadIdx.x] = 7 / (BUG ? n : n + 1); }

template <bool BUG>
__global__ void shift_by_all_bits(unsigned* y, int n) { y[threadIdx.x] = 1u << (BUG ? n : n % 32); }

// A grid that covers n / 32 blocks, rounded down, leaves the rest as it was.
template <bool BUG>
__global__ void covers(float* y, int n) {
  const int i = blockIdx.x * 32 + threadIdx.x;
  if (i < n) y[i] = 1;
}

// More static shared memory than a block may have.
template <bool BUG>
__global__ void much_static_shared(float* y) {
  auto& values = pf::shared<float[BUG ? 12300 : 12200]>();
  values[threadIdx.x] = 1;
  y[threadIdx.x] = values[threadIdx.x];
}
