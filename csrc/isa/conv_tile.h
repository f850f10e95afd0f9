// The register tiles of the convolution's kernels.
#pragma once

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

// The tiles: sums, one row of the right factor and a broadcast fill the registers. Eight rows divide the usual numbers
// of channels; twenty-four sums hide the latency of the multiply-adds with one load for every two of them.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 8, kTileVectors = 3;
constexpr int kGradRows = 6, kGradVectors = 4;
#elif defined(__AVX__)
constexpr int kTileRows = 6, kTileVectors = 2;
constexpr int kGradRows = 6, kGradVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
constexpr int kGradRows = 4, kGradVectors = 2;
#endif

}  // namespace
}  // namespace PYFRAME_ISA
}  // namespace pyframe
