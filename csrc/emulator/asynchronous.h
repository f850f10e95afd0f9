// Hopper's asynchronous parts in the emulator: mbarriers, tensor copies (TMA) and wgmma.
//
// What they bring lands late: a tensor copy at a random moment before its mbarrier's phase can complete, the results of
// wgmma at the wait for them. Until then the places hold NaN, and an access to them is reported. A phase orders
// accesses only for the threads that arrived and waited.
#pragma once

#include <cstdint>

namespace pf_emulator {

// ---------------------------------------------------------------- barriers.cpp

void start_phases(const void* barrier, unsigned count, const char* site);
void fence_phases();  // makes the barriers that this thread initialised known to the copy engine
// One arrival; the phase also waits for `bytes` more of tensor copies.
void arrive(const void* barrier, unsigned bytes, const char* site);
// Returns when the phase of this parity is complete, as mbarrier.try_wait.parity in a loop does.
void wait_for_phase(const void* barrier, unsigned parity, const char* site);

// ---------------------------------------------------------------- checks.cpp

void proxy_fence();  // fence.proxy.async

// ---------------------------------------------------------------- tensor_copies.cpp

// The emulator's own form of a CUtensorMap; packed by backend/tensor_map.py.
struct TensorMap {
  std::uint64_t address;
  std::uint32_t rank, element;  // of at most five dimensions, bytes of an element
  std::uint64_t dims[5], strides[4];  // in elements, the contiguous one first; in bytes, from the second on
  std::uint32_t box[5];
  std::uint32_t swizzle;  // bytes of its span: 0, 32, 64 or 128
};

void load_box(void* target, const void* map, const void* barrier, const int* at, unsigned rank, const char* site);

// ---------------------------------------------------------------- warpgroup.cpp

constexpr unsigned kWarpgroup = 128;

struct Product {
  std::uint64_t a, b;  // matrix descriptors
  unsigned n;          // columns; 64 rows, 16 of k
  bool a_across, b_across;  // not k is contiguous, but the other dimension
  bool accumulate, brain;
};

std::uint64_t matrix_descriptor(const void* start, unsigned leading, unsigned stride, unsigned swizzle);
void fence_products();
void multiply(float* d, const Product& product, const char* site);
void commit_products();
void wait_for_products(unsigned most_pending, const char* site);

}  // namespace pf_emulator
