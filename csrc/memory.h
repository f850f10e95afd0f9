// Parallel copies and fills of plain bytes.
#pragma once

#include <cstddef>

namespace pyframe {

// Copies `bytes` bytes; the ranges must not overlap.
void copy_bytes(void* destination, const void* source, std::size_t bytes);

// Writes `count` copies of an item of `item_bytes` bytes one after the other.
void fill_items(void* destination, const void* item, std::size_t item_bytes, std::size_t count);

}  // namespace pyframe
