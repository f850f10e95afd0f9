// Tensor copies from global to shared memory (TMA: cp.async.bulk.tensor, tiled mode, no interleaving).
#include "asynchronous.h"
#include "internal.h"

#include <algorithm>
#include <cstring>

namespace pf_emulator {
namespace {

struct Copy {
  TensorMap map;
  char* place;  // in shared memory
  const void* barrier;
  int at[5];
  unsigned engine;
};

std::vector<Copy> loads;  // of the block, not landed yet

std::uint64_t elements(const TensorMap& map) {
  std::uint64_t n = 1;
  for (unsigned d = 0; d < map.rank; ++d) n *= map.box[d];
  return n;
}

std::uint64_t row_bytes(const TensorMap& map) { return std::uint64_t{map.box[0]} * map.element; }

// Calls `row(offset in the box, address or null, bytes inside of the tensor)` for each row of the box. `skip`: how
// many bytes at its start are outside.
template <class Row>
void rows(const Copy& copy, Row row) {
  const TensorMap& map = copy.map;
  const std::uint64_t count = elements(map) / map.box[0];
  const long long first = copy.at[0], length = map.box[0], size = static_cast<long long>(map.dims[0]);
  const long long low = std::min(std::max(-first, 0ll), length), high = std::max(std::min(size - first, length), low);
  for (std::uint64_t r = 0; r < count; ++r) {
    std::uint64_t rest = r, address = map.address;
    bool inside = high > low;
    for (unsigned d = 1; d < map.rank; ++d) {
      const long long i = copy.at[d] + static_cast<long long>(rest % map.box[d]);
      rest /= map.box[d];
      inside = inside && i >= 0 && i < static_cast<long long>(map.dims[d]);
      address += static_cast<std::uint64_t>(i) * map.strides[d - 1];
    }
    address += static_cast<std::uint64_t>((first + low) * map.element);
    row(r * row_bytes(map), inside ? reinterpret_cast<char*>(address) : nullptr,
        static_cast<std::size_t>(low * map.element), static_cast<std::size_t>((high - low) * map.element));
  }
}

// Where byte `offset` of a box lies.
char* swizzled(const Copy& copy, std::uint64_t offset) {
  const std::uint64_t start = static_cast<std::uint64_t>(copy.place - shared_area().data);
  return shared_area().data + swizzle_offset(start + offset, copy.map.swizzle);
}

// Between a row of bytes and its 16-byte pieces in shared memory.
template <class Piece>
void pieces(const Copy& copy, std::uint64_t offset, std::size_t bytes, Piece piece) {
  for (std::size_t i = 0; i < bytes;) {
    const std::size_t n = std::min<std::size_t>(bytes - i, 16 - (offset + i) % 16);
    piece(swizzled(copy, offset + i), i, n);
    i += n;
  }
}

Copy checked(const void* map, void* place, const int* at, unsigned rank, const char* site) {
  Copy copy{};
  std::memcpy(&copy.map, map, sizeof copy.map);
  copy.place = static_cast<char*>(place);
  std::copy_n(at, rank, copy.at);
  const TensorMap& m = copy.map;
  if (m.rank != rank) fail("%s: %u coordinates for a tensor map of %u dimensions", site, rank, m.rank);
  if (!is_shared(place)) fail("%s: the box is not in shared memory", site);
  const std::uint64_t offset = static_cast<std::uint64_t>(copy.place - shared_area().data);
  const unsigned alignment = m.swizzle ? 8 * m.swizzle : 128;
  if (offset % alignment) fail("%s: the box does not start at a multiple of %u bytes", site, alignment);
  if (m.swizzle && row_bytes(m) != m.swizzle) {
    const auto bytes = static_cast<unsigned long long>(row_bytes(m));
    fail("%s: rows of %llu bytes, with a swizzle of %u", site, bytes, m.swizzle);
  }
  return copy;
}

void land(const Copy& copy) {
  const std::uint64_t bytes = elements(copy.map) * copy.map.element;
  std::memset(copy.place, 0, bytes);  // what is outside of the tensor
  rows(copy, [&](std::uint64_t offset, const char* source, std::size_t skip, std::size_t inside) {
    if (!source) return;
    const auto move = [&](char* to, std::size_t i, std::size_t n) { std::memcpy(to, source + i, n); };
    pieces(copy, offset + skip, inside, move);
  });
  engine_wrote(copy.place, bytes, copy.engine);
  bytes_landed(copy.barrier, bytes);
}

}  // namespace

std::uint64_t swizzle_offset(std::uint64_t offset, unsigned span) {
  const std::uint64_t mask = span ? span / 16 - 1 : 0;
  return offset ^ ((offset >> 7 & mask) << 4);
}

void tensor_copies_start_block() { loads.clear(); }

void load_box(void* target, const void* map, const void* barrier, const int* at, unsigned rank, const char* site) {
  Copy copy = checked(map, target, at, rank, site);
  copy.barrier = barrier, copy.engine = engine_of(barrier, site);
  rows(copy, [&](std::uint64_t, const char* source, std::size_t, std::size_t inside) {
    if (source) touch(source, inside, Kind::read, site);
  });
  const std::size_t bytes = elements(copy.map) * copy.map.element;
  for (const Copy& other : loads) {
    const std::size_t length = elements(other.map) * other.map.element;
    if (other.place < copy.place + bytes && copy.place < other.place + length) {
      fail("%s: another copy is still to write to the same shared memory", site);
    }
  }
  touch(target, bytes, Kind::pending, site);
  std::memset(target, kPoison, bytes);
  loads.push_back(copy);
}

bool land_one(std::uint64_t random) {
  if (loads.empty()) return false;
  const auto which = loads.begin() + static_cast<std::ptrdiff_t>(random % loads.size());
  const Copy copy = *which;
  loads.erase(which);
  land(copy);
  return true;
}

std::string tensor_copies_at_end() {
  if (loads.empty()) return "";
  return std::to_string(loads.size()) + " tensor copies are still to write to the block's shared memory at its end";
}

}  // namespace pf_emulator
