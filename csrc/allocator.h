// The caching allocator behind large arrays: freed blocks are kept and handed out again.
//
// A large block fresh from the system costs a page fault per page at its first use, more time than a pointwise
// operation on it takes. A training step frees and asks for the same sizes over and over, so nearly every request can
// be met with a block whose pages are already there.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyframe {

// Returns at least `bytes` bytes aligned to 64, or nullptr where the system has no memory left. Zero bytes are allowed.
void* allocate(std::size_t bytes) noexcept;

// Takes a block back; nullptr is allowed. A pointer that did not come from here, or was freed before, ends the process
// with a message, as malloc's does.
void deallocate(void* data) noexcept;

// As realloc: grows or shrinks a block, in place where its size class allows it. On failure the block stays as it was.
void* reallocate(void* data, std::size_t bytes) noexcept;

// Bytes count whole blocks, so up to an eighth more than was asked for.
struct AllocatorStats {
  std::uint64_t in_use;  // held by arrays now
  std::uint64_t cached;  // free, kept for reuse
  std::uint64_t peak;    // the most that was in use since the last reset
  std::uint64_t hits;    // requests met from the cache
  std::uint64_t misses;  // requests that went to the system
  std::uint64_t limit;   // the most that is kept
};
AllocatorStats allocator_stats() noexcept;

// Sets the peak to what is in use now, and hits and misses to zero.
void reset_allocator_stats() noexcept;

// Gives all cached blocks back to the system; returns how many bytes that were.
std::uint64_t release_cache() noexcept;

// The most bytes the cache keeps (at first a quarter of the memory this process may use). Blocks beyond it go back to
// the system, the longest unused first.
void set_cache_limit(std::uint64_t bytes) noexcept;

// Fork handling, called by fork.cpp: no other thread may be inside the allocator while the process is copied.
void allocator_before_fork() noexcept;
void allocator_after_fork() noexcept;

}  // namespace pyframe
