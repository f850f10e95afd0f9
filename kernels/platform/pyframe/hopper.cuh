// What only Hopper has (sm_90a): mbarriers, tensor copies (TMA), wgmma, registers by warpgroup. The emulator has a file
// of the same name in its place. Facts: PTX ISA 8.0 and later, "Asynchronous Warpgroup Level Matrix Instructions",
// "cp.async.bulk.tensor", "mbarrier".
#pragma once

#include "pyframe/platform.cuh"

namespace pf {

// The dynamic shared memory of the launch at a multiple of 1024 bytes, after which the 128-byte swizzle repeats.
template <class T>
__device__ __forceinline__ T* dynamic_shared_1024() {
  extern __shared__ __align__(1024) unsigned char pf_dynamic_storage_1024[];
  return reinterpret_cast<T*>(pf_dynamic_storage_1024);
}

// ---------------------------------------------------------------- mbarriers

// Phases that end when a number of arrivals, and all bytes that they announced, have come.
struct alignas(8) mbarrier {
  unsigned long long state;
};

__device__ __forceinline__ void mbarrier_init(mbarrier* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After the initialisations of a thread, before a barrier of the block: for the copy engine.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(mbarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// An arrival; the phase ends no sooner than copies have brought `bytes`.
__device__ __forceinline__ void mbarrier_arrive_expect(mbarrier* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}
// Waits for the end of the phase of this parity; phases count from 0. Of a new barrier, that of parity 1 is over.
__device__ __forceinline__ void mbarrier_wait(mbarrier* barrier, unsigned parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra over;\n"
      "bra again;\n"
      "over:\n"
      "}\n" ::"r"(shared_address(barrier)),
      "r"(parity)
      : "memory");
}

// Makes what the thread wrote to shared memory visible to tensor copies and wgmma.
__device__ __forceinline__ void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---------------------------------------------------------------- tensor copies

// A CUtensorMap, as a parameter: `const __grid_constant__ pf::tensor_map`.
struct alignas(64) tensor_map {
  unsigned char bytes[128];
};

__device__ __forceinline__ void prefetch_tensor_map(const tensor_map& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Starts copying the box at (x, y, z, w), in elements, to shared memory; what lies outside of the tensor becomes zeros.
// The barrier is told of all bytes of the box.
__device__ __forceinline__ void tensor_load(void* target, const tensor_map& map, mbarrier* barrier, int x, int y, int z,
                                            int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
      :
      : "r"(shared_address(target)), "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

// ---------------------------------------------------------------- warpgroups

// Registers per thread of the calling warpgroup, all of whose warps call it; a multiple of 8.
template <int REGISTERS>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

// Where an operand of wgmma starts, in the layout of the 128-byte swizzle: pieces of 8 rows of 128 bytes. k contiguous:
// `stride` bytes to the next 8 rows. Otherwise: `leading` to the next 64 rows, `stride` to the next 8 of k. Adding 1
// advances it by 16 bytes.
__device__ __forceinline__ unsigned long long matrix_descriptor(const void* start, unsigned leading, unsigned stride) {
  return (shared_address(start) & 0x3ffffu) >> 4 | static_cast<unsigned long long>(leading >> 4) << 16 |
         static_cast<unsigned long long>(stride >> 4) << 32 | 1ull << 62;
}

// Before a warpgroup's first product, and wherever its accumulators were used otherwise.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until all but MOST_PENDING groups of products have landed; only then may the accumulators be used.
template <int MOST_PENDING>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(MOST_PENDING) : "memory");
}
// Keeps the compiler from moving uses of an accumulator across this place.
__device__ __forceinline__ void hold(float& value) { asm volatile("" : "+f"(value)::"memory"); }

#define PF_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define PF_D8(i) PF_D4(i), PF_D4(i + 4)
#define PF_D32(i) PF_D8(i), PF_D8(i + 8), PF_D8(i + 16), PF_D8(i + 24)
#define PF_R0 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
  "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, " \
  "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, " \
  "%62, %63"
#define PF_R64 \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, " \
  "%84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define PF_R96 \
  "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
  "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define PF_WGMMA(columns, type, list, a, b, add, across_a, across_b, ...)                                              \
  asm volatile(                                                                                                        \
      "{\n"                                                                                                            \
      ".reg .pred add;\n"                                                                                              \
      "setp.ne.b32 add, " add ", 0;\n"                                                                                 \
      "wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type "." type " {" list "}, " a ", " b                    \
      ", add, 1, 1, " across_a ", " across_b ";\n"                                                                     \
      "}\n"                                                                                                            \
      : __VA_ARGS__                                                                                                    \
      : "l"(at_a), "l"(at_b), "r"(static_cast<int>(accumulate)), "n"(ACROSS_A), "n"(ACROSS_B))

// d = a · b, or d += a · b: 64 × 16 by 16 × N values of bfloat16 (BRAIN) or float16 in shared memory. Thread t of the
// warpgroup gets rows 16 (t / 32) + (t % 32) / 4 and that plus 8: d[4 j], d[4 j + 1] and d[4 j + 2], d[4 j + 3] are
// columns 8 j + 2 (t % 4) and the next of these rows. ACROSS: 1 where k is not the contiguous dimension of an operand.
template <bool BRAIN, int N, int ACROSS_A, int ACROSS_B>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], unsigned long long at_a, unsigned long long at_b,
                                      bool accumulate) {
  static_assert(N == 128 || N == 192 || N == 256, "the products that are written out");
  if constexpr (N == 128 && BRAIN) {
    PF_WGMMA("128", "bf16", PF_R0, "%64", "%65", "%66", "%67", "%68", PF_D32(0), PF_D32(32));
  } else if constexpr (N == 128 && !BRAIN) {
    PF_WGMMA("128", "f16", PF_R0, "%64", "%65", "%66", "%67", "%68", PF_D32(0), PF_D32(32));
  } else if constexpr (N == 192 && BRAIN) {
    PF_WGMMA("192", "bf16", PF_R0 ", " PF_R64, "%96", "%97", "%98", "%99", "%100", PF_D32(0), PF_D32(32), PF_D32(64));
  } else if constexpr (N == 192 && !BRAIN) {
    PF_WGMMA("192", "f16", PF_R0 ", " PF_R64, "%96", "%97", "%98", "%99", "%100", PF_D32(0), PF_D32(32), PF_D32(64));
  } else if constexpr (N == 256 && BRAIN) {
    PF_WGMMA("256", "bf16", PF_R0 ", " PF_R64 ", " PF_R96, "%128", "%129", "%130", "%131", "%132",
             PF_D32(0), PF_D32(32), PF_D32(64), PF_D32(96));
  } else if constexpr (N == 256 && !BRAIN) {
    PF_WGMMA("256", "f16", PF_R0 ", " PF_R64 ", " PF_R96, "%128", "%129", "%130", "%131", "%132",
             PF_D32(0), PF_D32(32), PF_D32(64), PF_D32(96));
  }
}

#undef PF_WGMMA
#undef PF_R0
#undef PF_R64
#undef PF_R96
#undef PF_D32
#undef PF_D8
#undef PF_D4

}  // namespace pf
