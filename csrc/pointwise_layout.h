// How the pointwise machine walks over its operands: dimensions in the order of the output's memory, merged where all
// operands allow it, and what is not contiguous gathered into buffers and scattered from them.
#pragma once

#include <cstdint>

#include "pointwise.h"

namespace pyframe {

enum class Access : std::uint8_t {
  single,      // one element for all
  direct,      // kernels read or write the array itself
  contiguous,  // adjacent elements, converted or copied
  strided,     // anything else
};

struct Layout {
  int dims = 0, operands = 0;
  std::int64_t size = 1;
  std::int64_t shape[kMostDims];
  std::int64_t strides[kMostOperands][kMostDims];
  char* data[kMostOperands];
  bool aligned[kMostOperands];
  Access access[kMostOperands];
};

// With `keep_order` the elements stay in row-major order, because their index matters.
Layout make_layout(const Call& call, int operands, const int* bytes, bool keep_order);

// Elements [start, start + count) of an operand, in the layout's order, to and from adjacent memory.
void gather(const Layout& layout, int operand, int bytes, std::int64_t start, std::int64_t count, char* to);
void scatter(const Layout& layout, int operand, int bytes, std::int64_t start, std::int64_t count, const char* from);

}  // namespace pyframe
