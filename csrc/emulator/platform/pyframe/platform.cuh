// What kernels use of CUDA, for the emulator: the twin of kernels/platform/pyframe/platform.cuh.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static const
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// The emulator could neither poison nor check it.
#define __shared__ instead_of___shared___use_pf_shared_or_pf_dynamic_shared

#define threadIdx (::pf_emulator::current->index)
#define blockIdx (::pf_emulator::block_index)
#define blockDim (::pf_emulator::block_shape)
#define gridDim (::pf_emulator::grid_shape)
constexpr int warpSize = 32;

#include "warp.h"

#include "memory.h"

#include "arithmetic.h"

#include "matrix.h"
