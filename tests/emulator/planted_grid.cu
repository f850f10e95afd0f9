// Blocks that hand values on to each other, step by step, with one mistake each in how they wait.
#include "pyframe/device.cuh"
#include "pyframe/grid.cuh"

enum Bug {
  none,
  no_wait,
  no_arrival,
  early_exit,
  too_many_expected,
  counter_not_cleared,
  no_barrier_before_the_arrival,
  no_barrier_behind_the_wait,
  one_copy,
  no_fence,
};

// values: two copies that take turns. In each step a block adds its number to what the next one had.
template <Bug BUG>
__global__ void relay(float* values, unsigned* counter, int steps) {
  const unsigned blocks = gridDim.x, block = blockIdx.x, i = threadIdx.x, size = blocks * blockDim.x;
  if (BUG == counter_not_cleared && block == 0 && i == 0) atomicAdd(counter, 2u);
  for (int n = 0; n < steps; ++n) {
    if (BUG == early_exit && block == 2 && n == 2) return;
    const float* const from = values + (BUG == one_copy ? 0 : n % 2 * size);
    float* const to = values + (BUG == one_copy ? 0 : (n + 1) % 2 * size);
    const float next = from[(block + 1) % blocks * blockDim.x + blockDim.x - 1 - i];
    to[block * blockDim.x + i] = next + block;
    if (BUG != no_barrier_before_the_arrival) __syncthreads();
    if (i == 0) {
      if (BUG == no_fence) {
        atomicAdd(counter, 1u);
      } else if (BUG != no_arrival || block != 1 || n != 1) {
        pf::grid_arrive(counter);
      }
      if (BUG != no_wait || n != 1) pf::grid_wait(counter, (n + 1) * blocks + (BUG == too_many_expected));
    }
    if (BUG != no_barrier_behind_the_wait) __syncthreads();
  }
}
