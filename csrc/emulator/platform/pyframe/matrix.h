// cp.async, ldmatrix and mma.sync, as the PTX ISA defines them ("Matrix Fragments for mma.m16n8k16", "ldmatrix").
#pragma once

#include "arithmetic.h"

namespace pf {

// ---------------------------------------------------------------- asynchronous copies

#define copy_async_4(...) copy_async_at<4>(PF_SITE("copy_async_4"), __VA_ARGS__)
#define copy_async_8(...) copy_async_at<8>(PF_SITE("copy_async_8"), __VA_ARGS__)
#define copy_async_16(...) copy_async_at<16>(PF_SITE("copy_async_16"), __VA_ARGS__)

template <unsigned BYTES>
PF_OWN void copy_async_at(const char* site, void* target, const void* source, unsigned used = BYTES) {
  ::pf_emulator::copy_async(target, source, BYTES, used, site);
}
PF_OWN void copy_async_commit() { ::pf_emulator::copy_commit(); }
template <int MOST_PENDING>
PF_OWN void copy_async_wait() { ::pf_emulator::copy_wait(MOST_PENDING); }
PF_OWN void copy_async_wait_all() { ::pf_emulator::copy_wait_all(); }

// ---------------------------------------------------------------- ldmatrix

#define load_matrices(...) load_matrices_at(PF_SITE("load_matrices"), __VA_ARGS__)
#define load_matrices_transposed(...) load_matrices_transposed_at(PF_SITE("load_matrices_transposed"), __VA_ARGS__)

template <bool TRANSPOSED, int N>
PF_OWN void load_matrices_of(const char* site, unsigned (&registers)[N], const void* row) {
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
  using ::pf_emulator::Slot;
  const unsigned lane = ::pf_emulator::lane();
  unsigned short values[8] = {};
  if (lane < 8u * N) {
    if (!::pf_emulator::is_shared(row)) ::pf_emulator::fail("%s: a row that is not in shared memory", site);
    if (reinterpret_cast<std::uintptr_t>(row) % 16) {
      ::pf_emulator::fail("%s: a misaligned row: its address is no multiple of 16", site);
    }
    ::pf_emulator::touch(row, 16, ::pf_emulator::Kind::read, site);
    std::memcpy(values, row, 16);
  }
  const Slot* const rows = ::pf_emulator::exchange(0xffffffffu, values, sizeof values, site);
  for (unsigned matrix = 0; matrix < N; ++matrix) {
    unsigned short pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const unsigned r = TRANSPOSED ? lane % 4 * 2 + i : lane / 4, c = TRANSPOSED ? lane / 4 : lane % 4 * 2 + i;
      std::memcpy(&pair[i], rows[8 * matrix + r].bytes + 2 * c, 2);
    }
    std::memcpy(&registers[matrix], pair, 4);
  }
}
template <int N>
PF_OWN void load_matrices_at(const char* site, unsigned (&registers)[N], const void* row) {
  load_matrices_of<false>(site, registers, row);
}
template <int N>
PF_OWN void load_matrices_transposed_at(const char* site, unsigned (&registers)[N], const void* row) {
  load_matrices_of<true>(site, registers, row);
}

// ---------------------------------------------------------------- mma.sync

#define mma_f16_16x8x16(...) mma_at<::pf_emulator::Half>(PF_SITE("mma_f16_16x8x16"), __VA_ARGS__)
#define mma_bf16_16x8x16(...) mma_at<::pf_emulator::Brain>(PF_SITE("mma_bf16_16x8x16"), __VA_ARGS__)
#define mma_tf32_16x8x8(...) mma_at<::pf_emulator::Tensor32>(PF_SITE("mma_tf32_16x8x8"), __VA_ARGS__)

}  // namespace pf

namespace pf_emulator {

// The element of A at `row`, `k` and of B at `k`, `column`: which lane holds it, and where in its registers.
struct Holder {
  unsigned lane, index;
};

template <bool BRAIN>
struct Pairs {
  static constexpr unsigned k = 16;
  PF_OWN static Holder a(unsigned row, unsigned k) {
    return {row % 8 * 4 + k % 8 / 2, (k % 2) + (row / 8) * 2 + (k / 8) * 4};
  }
  PF_OWN static Holder b(unsigned k, unsigned column) { return {column * 4 + k % 8 / 2, (k % 2) + (k / 8) * 2}; }
  PF_OWN static float value(const unsigned char* registers, unsigned index) {
    unsigned short bits;
    std::memcpy(&bits, registers + 2 * index, 2);
    return BRAIN ? __uint_as_float(static_cast<unsigned>(bits) << 16) : ::pf::half_bits_to_float(bits);
  }
};
using Half = Pairs<false>;
using Brain = Pairs<true>;

struct Tensor32 {
  static constexpr unsigned k = 8;
  PF_OWN static Holder a(unsigned row, unsigned k) { return {row % 8 * 4 + k % 4, row / 8 + (k / 4) * 2}; }
  PF_OWN static Holder b(unsigned k, unsigned column) { return {column * 4 + k % 4, k / 4}; }
  PF_OWN static float value(const unsigned char* registers, unsigned index) {
    unsigned bits;
    std::memcpy(&bits, registers + 4 * index, 4);
    return __uint_as_float(bits & 0xffffe000u);  // the hardware ignores the other bits
  }
};

}  // namespace pf_emulator

namespace pf {

// d += a · b. Products are exact; they are added in double precision and rounded once, where hardware rounds each of a
// few partial sums.
template <class Layout>
PF_OWN void mma_at(const char* site, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  unsigned mine[6];
  std::memcpy(mine, a, 16);
  std::memcpy(mine + 4, b, 8);
  const ::pf_emulator::Slot* const lanes = ::pf_emulator::exchange(0xffffffffu, mine, sizeof mine, site);
  const unsigned lane = ::pf_emulator::lane();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    double sum = d[i];
    for (unsigned k = 0; k < Layout::k; ++k) {
      const ::pf_emulator::Holder x = Layout::a(row, k), y = Layout::b(k, column);
      const double left = Layout::value(lanes[x.lane].bytes, x.index);
      sum += left * Layout::value(lanes[y.lane].bytes + 16, y.index);
    }
    d[i] = static_cast<float>(sum);
  }
}

// The tf32 value nearest to `value`; of two equally near ones the larger magnitude.
PF_OWN unsigned to_tf32(float value) {
  const unsigned bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

}  // namespace pf
