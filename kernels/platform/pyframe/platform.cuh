// What kernels use beyond CUDA C++ itself. The emulator has a file of the same name in its place, so that no kernel
// needs an #ifdef; all inline PTX is here.
#pragma once

namespace pf {

// A block's shared memory of type T: the one way in which kernels get it, because the emulator fills it with NaN and
// checks its bounds.
template <class T>
__device__ __forceinline__ T& shared() {
  __shared__ __align__(16) unsigned char storage[sizeof(T)];
  return *reinterpret_cast<T*>(storage);
}

// The dynamic shared memory of the launch.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char pf_dynamic_storage[];
  return reinterpret_cast<T*>(pf_dynamic_storage);
}

// IEEE half precision in 16 bits, rounded to nearest even.
__device__ __forceinline__ float half_bits_to_float(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

__device__ __forceinline__ unsigned short float_to_half_bits(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

}  // namespace pf
