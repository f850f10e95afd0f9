// Choosing the table of kernels of the instruction set level in use.
//
// A family of kernels is a struct of function pointers. Its source in csrc/isa/ defines one constant of that struct per
// level, in the level's namespace; PYFRAME_ISA_TABLE declares them all and defines the function that picks one.
#pragma once

#include "cpu_features.h"

#if defined(__x86_64__)
#define PYFRAME_ISA_TABLE(Table, name, pick)                  \
  namespace baseline { extern const Table name; }             \
  namespace avx2 { extern const Table name; }                 \
  namespace avx512 { extern const Table name; }               \
  inline const Table& pick() {                                \
    switch (active_isa()) {                                   \
      case Isa::avx512:                                       \
      case Isa::avx512_bf16: return avx512::name;             \
      case Isa::avx2: return avx2::name;                      \
      default: return baseline::name;                         \
    }                                                         \
  }
#elif defined(__aarch64__)
#define PYFRAME_ISA_TABLE(Table, name, pick)                  \
  namespace neon { extern const Table name; }                 \
  inline const Table& pick() { return neon::name; }
#else
#define PYFRAME_ISA_TABLE(Table, name, pick)                  \
  namespace baseline { extern const Table name; }             \
  inline const Table& pick() { return baseline::name; }
#endif
