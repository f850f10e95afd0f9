// Which instruction sets the kernels may use on this machine.
#pragma once

#include <string>
#include <vector>

namespace pyframe {

// Levels that kernels are compiled for, each including the ones before it on the same architecture. "baseline" is what
// every processor of the architecture has (SSE2 on x86-64); on ARM the next and only other level is "neon".
enum class Isa { baseline, avx2, avx512, avx512_bf16, neon };

const char* isa_name(Isa isa);

// The levels this processor and operating system support, the lowest first.
const std::vector<Isa>& supported_isas();

// The level to use: the highest supported one, or the one PYFRAME_ISA names. Throws std::invalid_argument where that
// is not one of supported_isas().
Isa active_isa();

}  // namespace pyframe
