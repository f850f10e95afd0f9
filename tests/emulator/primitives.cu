// Every primitive, so that its results can be compared with its definition.
#include "pyframe/device.cuh"

// Row k of y: what shuffle number k gives each lane.
__global__ void shuffles(const int* source, int* y, int width) {
  const int lane = threadIdx.x, mine = 100 + lane;
  y[lane] = __shfl_sync(pf::kAllLanes, mine, source[lane], width);
  y[32 + lane] = __shfl_up_sync(pf::kAllLanes, mine, 3, width);
  y[64 + lane] = __shfl_down_sync(pf::kAllLanes, mine, 3, width);
  y[96 + lane] = __shfl_xor_sync(pf::kAllLanes, mine, 5, width);
}

__global__ void wide_shuffle(const double* x, double* y) {
  y[threadIdx.x] = __shfl_xor_sync(pf::kAllLanes, x[threadIdx.x], 1);
}

__global__ void votes(const int* x, unsigned* y) {
  const int lane = threadIdx.x, value = x[lane];
  y[lane] = __ballot_sync(pf::kAllLanes, value > 2);
  y[32 + lane] = __any_sync(pf::kAllLanes, value > 2);
  y[64 + lane] = __all_sync(pf::kAllLanes, value > 2);
  y[96 + lane] = __match_any_sync(pf::kAllLanes, value);
  y[128 + lane] = __reduce_add_sync(pf::kAllLanes, value);
  y[160 + lane] = __reduce_max_sync(pf::kAllLanes, value);
  y[192 + lane] = __reduce_min_sync(pf::kAllLanes, value);
  if (lane < 8) y[224 + lane] = __ballot_sync(0xffu, value > 2);
}

__global__ void barrier_votes(const int* x, int* y) {
  const int value = x[threadIdx.x];
  y[threadIdx.x] = __syncthreads_count(value > 2);
  y[64 + threadIdx.x] = __syncthreads_or(value > 100) != 0;
  y[128 + threadIdx.x] = __syncthreads_and(value >= 0) != 0;
}

// Three threads change each counter.
__global__ void atomics(unsigned* y, int* z, float* f) {
  const unsigned i = threadIdx.x % 3 + 1;
  atomicAdd(y, i);
  atomicSub(y + 1, i);
  atomicMax(y + 2, i);
  atomicMin(y + 3, i);
  atomicOr(y + 4, 1u << i);
  atomicAnd(y + 5, ~(1u << i));
  atomicXor(y + 6, i);
  atomicInc(y + 7, 4u);
  atomicDec(y + 8, 4u);
  if (threadIdx.x == 0) {
    y[9] = atomicExch(y + 10, 7u);
    y[11] = atomicCAS(y + 10, 7u, 8u);
    y[12] = atomicCAS(y + 10, 7u, 9u);
  }
  atomicMin(z, -static_cast<int>(i));
  atomicAdd(f, 1.0f);
}

__global__ void indices(int* y) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int threads = blockDim.x * blockDim.y * blockDim.z;
  y[block * threads + thread] = blockIdx.z * 100000 + blockIdx.y * 10000 + blockIdx.x * 1000 + threadIdx.z * 100 +
                                threadIdx.y * 10 + threadIdx.x;
}

__global__ void sizes(int* y) {
  y[0] = sizeof(float4), y[1] = alignof(float4), y[2] = sizeof(float3), y[3] = alignof(float3), y[4] = sizeof(double2);
  y[5] = alignof(double2), y[6] = sizeof(int2), y[7] = alignof(int2), y[8] = sizeof(uchar4), y[9] = alignof(uchar4);
  const float4 v = make_float4(1, 2, 3, 4);
  y[10] = static_cast<int>(v.x + 10 * v.y + 100 * v.z + 1000 * v.w);
}

__global__ void from_halves(const unsigned short* x, float* f16, float* bf16, int n) {
  for (int i = threadIdx.x + blockDim.x * blockIdx.x; i < n; i += blockDim.x * gridDim.x) {
    f16[i] = pf::widen(pf::float16{x[i]});
    bf16[i] = pf::widen(pf::bfloat16{x[i]});
  }
}

__global__ void to_halves(const float* x, unsigned short* f16, unsigned short* bf16, unsigned* tf32, int n) {
  for (int i = threadIdx.x + blockDim.x * blockIdx.x; i < n; i += blockDim.x * gridDim.x) {
    f16[i] = pf::narrow<pf::float16>(x[i]).bits;
    bf16[i] = pf::narrow<pf::bfloat16>(x[i]).bits;
    tf32[i] = pf::to_tf32(x[i]);
  }
}

// Copies of 4, 8 and 16 bytes, the last one with 5 bytes used.
__global__ void copies(const unsigned char* x, unsigned char* y) {
  auto* const bytes = pf::dynamic_shared<unsigned char>();
  pf::copy_async_4(bytes, x + 4);
  pf::copy_async_8(bytes + 8, x + 8);
  pf::copy_async_commit();
  pf::copy_async_16(bytes + 16, x + 16);
  pf::copy_async_16(bytes + 32, x + 32, 5);
  pf::copy_async_commit();
  pf::copy_async_wait<1>();
  for (int i = 0; i < 4; ++i) y[i] = bytes[i];
  for (int i = 8; i < 16; ++i) y[i] = bytes[i];
  pf::copy_async_wait<0>();
  for (int i = 16; i < 48; ++i) y[i] = bytes[i];
}

template <int N, bool TRANSPOSED>
__global__ void matrices(const unsigned short* x, unsigned* y) {
  auto* const tile = pf::dynamic_shared<unsigned short>();
  for (int i = threadIdx.x; i < 64 * N; i += 32) tile[i] = x[i];
  __syncwarp();
  unsigned registers[N];
  const unsigned short* const row = tile + 8 * (threadIdx.x % (8 * N));
  if (TRANSPOSED) {
    pf::load_matrices_transposed(registers, row);
  } else {
    pf::load_matrices(registers, row);
  }
  for (int k = 0; k < N; ++k) y[32 * k + threadIdx.x] = registers[k];
}

// 16-bit operands come from shared memory by ldmatrix, as in a kernel: a is 16×16 by rows, b is 16×8 by rows, whose
// fragments are those of its transpose.
template <bool BRAIN>
__global__ void products(const unsigned short* a, const unsigned short* b, const float* c, float* y) {
  auto* const left = pf::dynamic_shared<unsigned short>();
  auto* const right = left + 256;
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) left[i] = a[i];
  for (int i = lane; i < 128; i += 32) right[i] = b[i];
  __syncwarp();
  unsigned x[4], z[2];
  pf::load_matrices(x, left + 16 * (lane % 16) + 8 * (lane / 16));
  pf::load_matrices_transposed(z, right + 8 * (lane % 16));
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2];
  if (BRAIN) {
    pf::mma_bf16_16x8x16(d, x, z);
  } else {
    pf::mma_f16_16x8x16(d, x, z);
  }
  for (int i = 0; i < 4; ++i) y[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

__global__ void tf32_products(const float* a, const float* b, const float* c, float* y) {
  const int lane = threadIdx.x, group = lane / 4, t = lane % 4;
  const unsigned x[4] = {pf::to_tf32(a[group * 8 + t]), pf::to_tf32(a[(group + 8) * 8 + t]),
                         pf::to_tf32(a[group * 8 + t + 4]), pf::to_tf32(a[(group + 8) * 8 + t + 4])};
  const unsigned z[2] = {pf::to_tf32(b[t * 8 + group]), pf::to_tf32(b[(t + 4) * 8 + group])};
  float d[4];
  for (int i = 0; i < 4; ++i) d[i] = c[(group + i / 2 * 8) * 8 + t * 2 + i % 2];
  pf::mma_tf32_16x8x8(d, x, z);
  for (int i = 0; i < 4; ++i) y[(group + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

template <int THREADS>
__global__ void reductions(const float* x, float* y) {
  y[threadIdx.x] = pf::block_reduce<THREADS>(x[threadIdx.x], pf::Sum());
  y[THREADS + threadIdx.x] = pf::block_reduce<THREADS>(x[threadIdx.x], pf::Max());
}

// Thousands of switches between threads: what one costs.
__global__ void switches(int* y, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    __syncthreads();
    sum += i;
  }
  y[threadIdx.x] = sum;
}
