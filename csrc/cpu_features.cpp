#include "cpu_features.h"

#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <stdexcept>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace pyframe {
namespace {

#if defined(__x86_64__) || defined(__i386__)

struct Registers {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros where the processor does not have the leaf.
Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
  Registers r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return Registers{};
  return r;
}

bool has(std::uint32_t value, std::initializer_list<int> bits) {
  for (int bit : bits) {
    if (!(value >> bit & 1)) return false;
  }
  return true;
}

// The register state the operating system saves; reading it needs the OSXSAVE bit.
std::uint64_t saved_state() {
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

std::vector<Isa> detect() {
  std::vector<Isa> isas{Isa::baseline};
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
  // FMA, SSE4.1, SSE4.2, MOVBE, POPCNT, XSAVE, OSXSAVE, AVX, F16C
  if (!has(basic.ecx, {12, 19, 20, 22, 23, 26, 27, 28, 29})) return isas;
  const std::uint64_t state = saved_state();
  if ((state & 0x6) != 0x6) return isas;                   // XMM and YMM registers
  if (!has(extended.ebx, {3, 5, 8})) return isas;          // BMI1, AVX2, BMI2
  isas.push_back(Isa::avx2);
  if ((state & 0xe6) != 0xe6) return isas;                 // and mask and ZMM registers
  if (!has(extended.ebx, {16, 17, 28, 30, 31})) return isas;  // AVX-512 F, DQ, CD, BW, VL
  isas.push_back(Isa::avx512);
  if (extended.eax >= 1 && has(cpuid(7, 1).eax, {5})) isas.push_back(Isa::avx512_bf16);
  return isas;
}

#elif defined(__aarch64__)

// Advanced SIMD is part of the architecture.
std::vector<Isa> detect() { return {Isa::baseline, Isa::neon}; }

#else

std::vector<Isa> detect() { return {Isa::baseline}; }

#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::baseline: return "baseline";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::neon: return "neon";
  }
  return "unknown";
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa active_isa() {
  static const Isa active = [] {
    const char* wanted = std::getenv("PYFRAME_ISA");
    if (!wanted || !*wanted) return supported_isas().back();
    std::string names;
    for (Isa isa : supported_isas()) {
      if (isa_name(isa) == std::string(wanted)) return isa;
      names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    }
    throw std::invalid_argument("PYFRAME_ISA=" + std::string(wanted) + " is not available here; this machine has " +
                                names);
  }();
  return active;
}

}  // namespace pyframe
