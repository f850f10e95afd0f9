// Shared memory, atomics, cached loads and vector types.
#pragma once

#include "warp.h"

namespace pf {

// A block's shared memory of type T: the one way in which kernels get it.
template <class T>
PF_OWN T& shared() {
  static const char tag = 0;
  return *static_cast<T*>(::pf_emulator::shared_memory(&tag, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}

// The dynamic shared memory of the launch.
template <class T>
PF_OWN T* dynamic_shared() { return static_cast<T*>(::pf_emulator::dynamic_shared_memory()); }

}  // namespace pf

// ---------------------------------------------------------------- atomics

namespace pf_emulator {

// Threads change only at barriers and warp functions, so plain code is atomic.
template <class T, class Change>
PF_OWN T atomically(const char* site, T* address, Change change) {
  if (reinterpret_cast<std::uintptr_t>(address) % sizeof(T)) fail("%s: a misaligned address", site);
  touch(address, sizeof(T), Kind::atomic, site);
  const T old = *address;
  *address = change(old);
  atomic_done(address);
  return old;
}

}  // namespace pf_emulator

#define PF_ATOMIC(name, types, change)                                                                           \
  template <class T, class U>                                                                                    \
  PF_OWN T name##_at(const char* site, T* address, U given) {                                                    \
    static_assert(types, #name " does not exist for this type");                                                 \
    const T value = static_cast<T>(given);                                                                       \
    return ::pf_emulator::atomically(site, address, [value]([[maybe_unused]] T old) __attribute__((no_sanitize("thread"))) -> T { \
      return static_cast<T>(change);                                                                             \
    });                                                                                                          \
  }
namespace pf_emulator {
template <class T>
constexpr bool kWord = std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8);
template <class T>
constexpr bool kFloat = std::is_same_v<T, float>;
template <class T>
constexpr bool kUnsigned = std::is_same_v<T, unsigned>;
PF_ATOMIC(add, kWord<T> || std::is_floating_point_v<T>, old + value)
PF_ATOMIC(sub, kWord<T> && sizeof(T) == 4, old - value)
PF_ATOMIC(max, kWord<T>, old < value ? value : old)
PF_ATOMIC(min, kWord<T>, value < old ? value : old)
PF_ATOMIC(exch, kWord<T> || kFloat<T>, value)
PF_ATOMIC(or_, kWord<T>, old | value)
PF_ATOMIC(and_, kWord<T>, old & value)
PF_ATOMIC(xor_, kWord<T>, old ^ value)
PF_ATOMIC(inc, kUnsigned<T>, old >= value ? 0 : old + 1)
PF_ATOMIC(dec, kUnsigned<T>, old == 0 || old > value ? value : old - 1)
template <class T, class U, class V>
PF_OWN T cas_at(const char* site, T* address, U expected, V value) {
  static_assert(kWord<T> || sizeof(T) == 2, "atomicCAS does not exist for this type");
  return atomically(site, address, [=](T old) __attribute__((no_sanitize("thread"))) -> T {
    return old == static_cast<T>(expected) ? static_cast<T>(value) : old;
  });
}
}  // namespace pf_emulator
#undef PF_ATOMIC

#define atomicAdd(...) ::pf_emulator::add_at(PF_SITE("atomicAdd"), __VA_ARGS__)
#define atomicSub(...) ::pf_emulator::sub_at(PF_SITE("atomicSub"), __VA_ARGS__)
#define atomicMax(...) ::pf_emulator::max_at(PF_SITE("atomicMax"), __VA_ARGS__)
#define atomicMin(...) ::pf_emulator::min_at(PF_SITE("atomicMin"), __VA_ARGS__)
#define atomicExch(...) ::pf_emulator::exch_at(PF_SITE("atomicExch"), __VA_ARGS__)
#define atomicOr(...) ::pf_emulator::or__at(PF_SITE("atomicOr"), __VA_ARGS__)
#define atomicAnd(...) ::pf_emulator::and__at(PF_SITE("atomicAnd"), __VA_ARGS__)
#define atomicXor(...) ::pf_emulator::xor__at(PF_SITE("atomicXor"), __VA_ARGS__)
#define atomicInc(...) ::pf_emulator::inc_at(PF_SITE("atomicInc"), __VA_ARGS__)
#define atomicDec(...) ::pf_emulator::dec_at(PF_SITE("atomicDec"), __VA_ARGS__)
#define atomicCAS(...) ::pf_emulator::cas_at(PF_SITE("atomicCAS"), __VA_ARGS__)

inline void __threadfence() { ::pf_emulator::fence(); }
inline void __threadfence_block() {}
template <class T>
T __ldg(const T* address) { return *address; }
template <class T>
T __ldcs(const T* address) { return *address; }
template <class T>
T __ldcg(const T* address) { return *address; }
template <class T>
void __stcs(T* address, T value) { *address = value; }

// ---------------------------------------------------------------- vector types

#define PF_VECTOR(name, type)                                                             \
  struct name##1 { type x; };                                                             \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                \
  struct name##3 { type x, y, z; };                                                       \
  struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                        \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }             \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
PF_VECTOR(char, signed char)
PF_VECTOR(uchar, unsigned char)
PF_VECTOR(short, short)
PF_VECTOR(ushort, unsigned short)
PF_VECTOR(int, int)
PF_VECTOR(uint, unsigned)
PF_VECTOR(longlong, long long)
PF_VECTOR(ulonglong, unsigned long long)
PF_VECTOR(float, float)
PF_VECTOR(double, double)
#undef PF_VECTOR
using dim3 = ::pf_emulator::Index3;
