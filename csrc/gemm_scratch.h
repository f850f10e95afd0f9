// Memory for packed panels; for gemm.cpp.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "allocator.h"

namespace pyframe {

// Memory that a thread keeps for packed panels, a stack of pieces. Blocks of the shared allocator wander between the
// threads, and each of their lines would then have to be fetched from the other core's cache before it is written.
class PanelArena {
 public:
  static constexpr std::int64_t kBytes = 2 << 20;  // a huge page

  PanelArena() = default;
  PanelArena(const PanelArena&) = delete;
  PanelArena& operator=(const PanelArena&) = delete;
  ~PanelArena() { std::free(base_); }

  // nullptr where the piece does not fit.
  void* push(std::int64_t bytes) {
    if (used_ + bytes > kBytes || (!base_ && !start())) return nullptr;
    void* const piece = base_ + used_;
    used_ += bytes;
    return piece;
  }
  void pop(std::int64_t bytes) { used_ -= bytes; }

 private:
  bool start() {
    base_ = static_cast<char*>(std::aligned_alloc(kBytes, kBytes));
#if defined(__linux__)
    if (base_) madvise(base_, kBytes, MADV_HUGEPAGE);  // a hint: one entry of the translation cache instead of 512
#endif
    return base_ != nullptr;
  }

  char* base_ = nullptr;
  std::int64_t used_ = 0;
};
inline thread_local PanelArena tl_arena;

// Working memory of a scope: small pieces on the stack, larger ones from the arena, the largest from the allocator.
class PanelScratch {
 public:
  explicit PanelScratch(std::int64_t bytes) {
    if (bytes <= kLocal) return;
    arena_bytes_ = (bytes + 63) / 64 * 64;
    data_ = tl_arena.push(arena_bytes_);
    if (data_) return;
    arena_bytes_ = 0;
    data_ = allocate(static_cast<std::size_t>(bytes));
    if (!data_) throw std::bad_alloc();
  }
  PanelScratch(const PanelScratch&) = delete;
  PanelScratch& operator=(const PanelScratch&) = delete;
  ~PanelScratch() {
    if (arena_bytes_) tl_arena.pop(arena_bytes_);
    else if (data_ != local_) deallocate(data_);
  }
  template <class T>
  T* as() { return static_cast<T*>(data_); }

 private:
  static constexpr std::int64_t kLocal = 24 << 10;
  alignas(64) char local_[kLocal];
  void* data_ = local_;
  std::int64_t arena_bytes_ = 0;
};

}  // namespace pyframe
