// Memory that kernels may touch: guarded copies of arguments, and a block's shared memory.
#include "internal.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <utility>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define PF_FORBID(begin, bytes) __asan_poison_memory_region(begin, bytes)
#define PF_ALLOW(begin, bytes) __asan_unpoison_memory_region(begin, bytes)
#else  // each access is checked by checks.cpp
#define PF_FORBID(begin, bytes) static_cast<void>(begin)
#define PF_ALLOW(begin, bytes) static_cast<void>(begin)
#endif

namespace pf_emulator {

std::map<void*, Area> arguments;

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

// ---------------------------------------------------------------- shared memory

namespace {

constexpr std::size_t kStaticLimit = 48 << 10;
constexpr std::size_t kCanary = 64;  // bytes behind each piece
constexpr std::size_t kPieces = 64;

struct Piece {
  const void* tag;
  std::size_t begin, bytes;
};

struct Shared {
  Area area;
  std::vector<Piece> pieces;  // the dynamic one first
  std::size_t used = 0, counted = 0, limit = 0;

  void* add(const void* tag, std::size_t bytes, std::size_t alignment) {
    used = (used + alignment - 1) / alignment * alignment;
    if (pieces.size() == kPieces) fail("more than %zu pieces of shared memory", kPieces);
    pieces.push_back({tag, used, bytes});
    counted += bytes;
    PF_ALLOW(area.data + used, bytes + kCanary);
    std::memset(area.data + used, kPoison, bytes + kCanary);
    PF_FORBID(area.data + used + bytes, kCanary);
    void* const found = area.data + used;
    used += bytes + kCanary;
    return found;
  }
};

std::deque<Shared> shared_of_blocks(1);  // of those that run side by side
Shared* shared = &shared_of_blocks[0];

}  // namespace

Area& shared_area() { return shared->area; }

void select_shared(std::size_t slot) {
  while (shared_of_blocks.size() <= slot) shared_of_blocks.emplace_back();
  shared = &shared_of_blocks[slot];
}

bool is_shared(const void* address) {
  const auto* at = static_cast<const char*>(address);
  return at >= shared->area.data && at < shared->area.data + shared->area.bytes;
}

void reset_shared(std::size_t dynamic_bytes, std::size_t most) {
  Area& area = shared->area;
  const std::size_t room = most + kPieces * (kCanary + 128);
  if (area.bytes < room) {
    if (area.data) {
      PF_ALLOW(area.mapping, area.mapped);
      munmap(area.mapping, area.mapped);
    }
    forget_cells(area);
    area.mapped = (room + page_size() - 1) / page_size() * page_size();
    area.mapping = static_cast<char*>(
        mmap(nullptr, area.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    area.data = area.mapping, area.bytes = area.mapped;
  }
  PF_FORBID(area.data, area.bytes);
  shared->limit = most, shared->used = 0, shared->counted = 0;
  shared->pieces.clear();
  shared->add(nullptr, dynamic_bytes, 128);
}

void* shared_memory(const void* tag, std::size_t bytes, std::size_t alignment) {
  for (const Piece& piece : shared->pieces) {
    if (piece.tag == tag) return shared->area.data + piece.begin;
  }
  const std::size_t total = shared->counted + bytes, fixed = total - shared->pieces[0].bytes;
  if (fixed > kStaticLimit) fail("%zu bytes of static shared memory; 48 KB are the limit", fixed);
  if (total > shared->limit) fail("%zu bytes of shared memory; this device has %zu for a block", total, shared->limit);
  return shared->add(tag, bytes, alignment);
}

void* dynamic_shared_memory() { return shared->area.data; }

const char* outside_of_shared(std::size_t offset, std::size_t bytes) {
  static char text[160];
  for (const Piece& piece : shared->pieces) {
    if (offset < piece.begin || offset >= piece.begin + piece.bytes + kCanary) continue;
    if (offset + bytes <= piece.begin + piece.bytes) return "";
    std::snprintf(text, sizeof text, "%zu bytes at byte %zu of %zu bytes of %s shared memory", bytes,
                  offset - piece.begin, piece.bytes, piece.tag ? "static" : "dynamic");
    return text;
  }
  return "shared memory that the block has not asked for";
}

bool shared_intact() {
  for (const Piece& piece : shared->pieces) {
    const char* const end = shared->area.data + piece.begin + piece.bytes;
    PF_ALLOW(end, kCanary);
    const auto whole = [](char c) { return static_cast<unsigned char>(c) == kPoison; };
    if (!std::all_of(end, end + kCanary, whole)) return false;
  }
  return true;
}

// ---------------------------------------------------------------- arguments

void* guarded_new(std::size_t bytes, std::size_t alignment_offset, std::size_t element) {
  const std::size_t page = page_size();
  const std::size_t inside = (bytes + 15 + 16) / 16 * 16;
  const std::size_t pages = (inside + page - 1) / page * page;
  auto* mapping = static_cast<char*>(
      mmap(nullptr, pages + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (mapping == MAP_FAILED) return nullptr;
  mprotect(mapping, page, PROT_NONE);
  mprotect(mapping + page + pages, page, PROT_NONE);
  std::memset(mapping + page, kPoison, pages);
  char* const end = mapping + page + pages;
  auto start = reinterpret_cast<std::uintptr_t>(end) - bytes;
  start -= (start - alignment_offset) % 16;
  Area area;
  area.mapping = mapping, area.mapped = pages + 2 * page;
  area.data = reinterpret_cast<char*>(start), area.bytes = bytes;
  while ((2u << area.shift) <= element) ++area.shift;
  PF_FORBID(mapping + page, static_cast<std::size_t>(area.data - mapping) - page);
  PF_FORBID(area.data + bytes, static_cast<std::size_t>(end - area.data) - bytes);
  arguments[area.data] = area;
  return area.data;
}

const char* guarded_intact(void* pointer) {
  const Area& area = arguments.at(pointer);
  const char* const begin = area.mapping + page_size();
  const char* const end = area.mapping + area.mapped - page_size();
  PF_ALLOW(begin, static_cast<std::size_t>(end - begin));
  for (const char* at = begin; at < end; ++at) {
    if (at == area.data) at += area.bytes;
    if (at < end && static_cast<unsigned char>(*at) != kPoison) {
      static char text[96];
      std::snprintf(text, sizeof text, "byte %td of an argument of %zu bytes was written", at - area.data, area.bytes);
      return text;
    }
  }
  return "";
}

void guarded_delete(void* pointer) {
  const auto found = arguments.find(pointer);
  forget_cells(found->second);
  PF_ALLOW(found->second.mapping, found->second.mapped);
  munmap(found->second.mapping, found->second.mapped);
  arguments.erase(found);
}

Area* find_area(const char* address) {
  const auto holds = [&](const Area& area) { return address >= area.mapping && address < area.mapping + area.mapped; };
  if (holds(shared->area)) return &shared->area;
  for (auto& [data, area] : arguments) {
    if (holds(area)) return &area;
  }
  return nullptr;
}

}  // namespace pf_emulator
