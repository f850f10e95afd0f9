// The twin of kernels/platform/pyframe/hopper.cuh; what happens is in csrc/emulator/asynchronous.h.
#pragma once

#include <string>

#include "asynchronous.h"
#include "pyframe/platform.cuh"

namespace pf {

template <class T>
PF_OWN T* dynamic_shared_1024() { return dynamic_shared<T>(); }

// ---------------------------------------------------------------- mbarriers

struct alignas(8) mbarrier {
  unsigned long long state;
};

#define mbarrier_init(...) mbarrier_init_at(PF_SITE("mbarrier_init"), __VA_ARGS__)
#define mbarrier_arrive(...) mbarrier_arrive_at(PF_SITE("mbarrier_arrive"), __VA_ARGS__)
#define mbarrier_arrive_expect(...) mbarrier_arrive_at(PF_SITE("mbarrier_arrive_expect"), __VA_ARGS__)
#define mbarrier_wait(...) mbarrier_wait_at(PF_SITE("mbarrier_wait"), __VA_ARGS__)

PF_OWN void mbarrier_init_at(const char* site, mbarrier* barrier, unsigned arrivals) {
  ::pf_emulator::start_phases(barrier, arrivals, site);
}
PF_OWN void mbarrier_init_fence() { ::pf_emulator::fence_phases(); }
PF_OWN void mbarrier_arrive_at(const char* site, mbarrier* barrier, unsigned bytes = 0) {
  ::pf_emulator::arrive(barrier, bytes, site);
}
PF_OWN void mbarrier_wait_at(const char* site, mbarrier* barrier, unsigned parity) {
  ::pf_emulator::wait_for_phase(barrier, parity, site);
}

PF_OWN void fence_async_proxy() { ::pf_emulator::proxy_fence(); }

// ---------------------------------------------------------------- tensor copies

struct tensor_map {
  unsigned char bytes[128];
};

#define tensor_load(...) tensor_load_at(PF_SITE("tensor_load"), __VA_ARGS__)

PF_OWN void prefetch_tensor_map(const tensor_map&) {}
PF_OWN void tensor_load_at(const char* site, void* target, const tensor_map& map, mbarrier* barrier, int x, int y,
                           int z, int w) {
  const int at[4] = {x, y, z, w};
  ::pf_emulator::load_box(target, map.bytes, barrier, at, 4, site);
}

// ---------------------------------------------------------------- warpgroups

template <int REGISTERS>
PF_OWN void raise_registers() {
  static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24 && REGISTERS <= 256, "setmaxnreg takes multiples of 8");
}
template <int REGISTERS>
PF_OWN void lower_registers() { raise_registers<REGISTERS>(); }

PF_OWN unsigned long long matrix_descriptor(const void* start, unsigned leading, unsigned stride) {
  return ::pf_emulator::matrix_descriptor(start, leading, stride, 128);
}

#define wgmma_wait wgmma_wait_at<__LINE__>::wait
template <int LINE>
struct wgmma_wait_at {
  template <int MOST_PENDING>
  PF_OWN static void wait() {
    static const std::string site = "wgmma_wait at line " + std::to_string(LINE);
    ::pf_emulator::wait_for_products(MOST_PENDING, site.c_str());
  }
};
PF_OWN void wgmma_fence() { ::pf_emulator::fence_products(); }
PF_OWN void wgmma_commit() { ::pf_emulator::commit_products(); }
PF_OWN void hold(float&) {}

#define wgmma wgmma_at<__LINE__>::product
template <int LINE>
struct wgmma_at {
  template <bool BRAIN, int N, int ACROSS_A, int ACROSS_B>
  PF_OWN static void product(float (&d)[N / 2], unsigned long long a, unsigned long long b, bool accumulate) {
    static_assert(N == 128 || N == 192 || N == 256, "the products that are written out");
    static const std::string site = "wgmma at line " + std::to_string(LINE);
    const ::pf_emulator::Product product{a, b, N, ACROSS_A != 0, ACROSS_B != 0, accumulate, BRAIN};
    ::pf_emulator::multiply(d, product, site.c_str());
  }
};

}  // namespace pf
