// Arrays with elements put around them.
#pragma once

#include <cstdint>

namespace pyframe {

// What is put around: one value, or elements of the input (the numbers of pyframe/ops/padding.py).
enum class Border : int { constant, reflect, replicate, circular };

// `in` has this shape, `out` before[d] elements more at the begin of dimension d and after[d] more at its end; both are
// contiguous, of items of 1, 2, 4 or 8 bytes. Negative widths, for a constant only, cut elements off. `value` is one
// item.
void pad(char* out, const char* in, int dims, const std::int64_t* shape, const std::int64_t* before,
         const std::int64_t* after, std::int64_t item, Border border, const char* value);

}  // namespace pyframe
