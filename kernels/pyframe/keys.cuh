// Values as keys and positions, whose order is the stable order of the values.
//
// A value becomes an unsigned key that is in order where values are (NaN the largest, -0 equal to 0; turned over where
// the largest comes first), and key and position together an item. No two items of a row are equal, so any way of
// sorting gives the stable order. Keys of fewer than 32 bits lie in the upper ones, where radix passes look.
#pragma once

#include "pyframe/device.cuh"

namespace pf {

constexpr unsigned kNowhere = 0xffffffffu;  // the position of an item that only fills up a tile; the key is as large

// Key and position of values of up to 32 bits, in one number.
struct Narrow32 {
  static constexpr int kKeyBits = 32;
  unsigned long long bits;
  __device__ __forceinline__ static Narrow32 of(unsigned key, unsigned position) {
    return {static_cast<unsigned long long>(key) << 32 | position};
  }
  __device__ __forceinline__ static Narrow32 filler() { return of(0xffffffffu, kNowhere); }
  __device__ __forceinline__ unsigned long long key() const { return bits >> 32; }
  __device__ __forceinline__ unsigned position() const { return static_cast<unsigned>(bits); }
  __device__ __forceinline__ bool has_largest_key() const { return key() == 0xffffffffu; }
  __device__ __forceinline__ bool operator<(Narrow32 other) const { return bits < other.bits; }
};

// The same of 64 bits.
struct alignas(16) Wide64 {
  static constexpr int kKeyBits = 64;
  unsigned long long bits, where;
  __device__ __forceinline__ static Wide64 of(unsigned long long key, unsigned position) { return {key, position}; }
  __device__ __forceinline__ static Wide64 filler() { return of(~0ull, kNowhere); }
  __device__ __forceinline__ unsigned long long key() const { return bits; }
  __device__ __forceinline__ unsigned position() const { return static_cast<unsigned>(where); }
  __device__ __forceinline__ bool has_largest_key() const { return bits == ~0ull; }
  __device__ __forceinline__ bool operator<(Wide64 other) const {
    return bits < other.bits || (bits == other.bits && where < other.where);
  }
};

// Of a half type from its bits; `infinity` has all bits of the exponent.
__device__ __forceinline__ unsigned half_key(unsigned bits, unsigned infinity) {
  const unsigned size = bits & 0x7fffu;
  if (size > infinity) return 0xffffffffu;
  const unsigned ordered = size == 0 ? 0x8000u : bits >> 15 ? ~bits : bits | 0x8000u;
  return ordered << 16;
}

__device__ __forceinline__ unsigned key_of(signed char value) {
  return (static_cast<unsigned>(value) ^ 0x80u) << 24;
}
__device__ __forceinline__ unsigned key_of(unsigned char value) { return static_cast<unsigned>(value) << 24; }
__device__ __forceinline__ unsigned key_of(short value) { return (static_cast<unsigned>(value) ^ 0x8000u) << 16; }
__device__ __forceinline__ unsigned key_of(int value) { return static_cast<unsigned>(value) ^ 0x80000000u; }
__device__ __forceinline__ unsigned long long key_of(long long value) {
  return static_cast<unsigned long long>(value) ^ 0x8000000000000000ull;
}
__device__ __forceinline__ unsigned key_of(float16 value) { return half_key(value.bits, 0x7c00u); }
__device__ __forceinline__ unsigned key_of(bfloat16 value) { return half_key(value.bits, 0x7f80u); }
__device__ __forceinline__ unsigned key_of(float value) {
  if (value != value) return 0xffffffffu;
  const unsigned bits = value == 0 ? 0 : __float_as_uint(value);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ unsigned long long key_of(double value) {
  if (value != value) return ~0ull;
  const auto bits = value == 0 ? 0ull : static_cast<unsigned long long>(__double_as_longlong(value));
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// Items for values of U's size.
template <int BYTES>
struct ItemOf {
  using type = Narrow32;
};
template <>
struct ItemOf<8> {
  using type = Wide64;
};
template <class U>
using Item = typename ItemOf<sizeof(U)>::type;

template <class T>
__device__ __forceinline__ Item<T> item_of(T value, int position, int descending) {
  const auto key = key_of(value);
  return Item<T>::of(descending ? ~key : key, static_cast<unsigned>(position));
}

// Where an item of a rank in its row goes: to values and indices, if the rank is one of `count` from `first` on.
// Values are moved as units U of their size; `values` may be null.
template <class U>
struct Results {
  const U* x;
  U* values;
  long long* indices;
  int n, first, count;
  __device__ __forceinline__ void take(long long row, int rank, unsigned position) const {
    if (rank < first || rank >= first + count) return;
    const long long at = row * count + (rank - first);
    if (values) values[at] = x[row * n + position];
    if (indices) indices[at] = position;
  }
};

}  // namespace pf
