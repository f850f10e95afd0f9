#include "memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "thread_pool.h"

namespace pyframe {
namespace {

// The least a thread should get: below it, waking the pool costs more than it saves.
constexpr std::int64_t kGrainBytes = 128 << 10;

// Fills [begin, end) with copies of `item`; for the sizes of scalars the compiler turns this into vector stores.
template <class Item>
void fill_scalars(void* destination, const void* item, std::int64_t begin, std::int64_t end) {
  Item value;
  std::memcpy(&value, item, sizeof value);
  // NumPy aligns scalars, but a caller's view may not be aligned: memcpy of one item is a plain store.
  char* out = static_cast<char*>(destination);
  for (std::int64_t i = begin; i < end; ++i) std::memcpy(out + i * sizeof(Item), &value, sizeof value);
}

}  // namespace

void copy_bytes(void* destination, const void* source, std::size_t bytes) {
  char* const out = static_cast<char*>(destination);
  const char* const in = static_cast<const char*>(source);
  parallel_for(0, static_cast<std::int64_t>(bytes), kGrainBytes, [=](std::int64_t begin, std::int64_t end) {
    std::memcpy(out + begin, in + begin, static_cast<std::size_t>(end - begin));
  });
}

void fill_items(void* destination, const void* item, std::size_t item_bytes, std::size_t count) {
  if (item_bytes == 0) return;
  const char* const pattern = static_cast<const char*>(item);
  const bool one_byte = std::all_of(pattern, pattern + item_bytes, [=](char c) { return c == pattern[0]; });
  const std::int64_t width = one_byte ? 1 : static_cast<std::int64_t>(item_bytes);
  const std::int64_t items = static_cast<std::int64_t>(one_byte ? count * item_bytes : count);
  const std::int64_t grain = std::max<std::int64_t>(1, kGrainBytes / width);
  parallel_for(0, items, grain, [=](std::int64_t begin, std::int64_t end) {
    char* const out = static_cast<char*>(destination);
    switch (width) {
      case 1: std::memset(out + begin, pattern[0], static_cast<std::size_t>(end - begin)); break;
      case 2: fill_scalars<std::uint16_t>(out, item, begin, end); break;
      case 4: fill_scalars<std::uint32_t>(out, item, begin, end); break;
      case 8: fill_scalars<std::uint64_t>(out, item, begin, end); break;
      default:
        for (std::int64_t i = begin; i < end; ++i) {
          std::memcpy(out + i * width, item, static_cast<std::size_t>(width));
        }
    }
  });
}

}  // namespace pyframe
