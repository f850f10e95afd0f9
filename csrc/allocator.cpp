#include "allocator.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define PYFRAME_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PYFRAME_ASAN 1
#endif
#endif
#if defined(PYFRAME_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace pyframe {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLargest = std::size_t{1} << 47;

// Size classes: multiples of 64 up to 512 bytes, then eight per power of two. A class wastes at most an eighth, and
// a program's few hundred array sizes share few classes.
constexpr unsigned kSmallClasses = 8;
constexpr unsigned kSmallBits = 9;  // 512 = 1 << 9
constexpr unsigned kClasses = kSmallClasses + (47 - kSmallBits) * 8;

unsigned class_of(std::size_t bytes) {
  if (bytes <= 512) return bytes == 0 ? 0 : static_cast<unsigned>((bytes - 1) / 64);
  const unsigned top = 63 - static_cast<unsigned>(__builtin_clzll(bytes - 1));
  const unsigned eighth = static_cast<unsigned>((bytes - 1) >> (top - 3)) & 7;
  return kSmallClasses + (top - kSmallBits) * 8 + eighth;
}

std::size_t class_bytes(unsigned index) {
  if (index < kSmallClasses) return (index + 1) * std::size_t{64};
  const unsigned top = (index - kSmallClasses) / 8 + kSmallBits;
  return (std::size_t{9} + (index - kSmallClasses) % 8) << (top - 3);
}

// Stands in front of the data of every block. NumPy hands the size of an array to `free`, but not reliably the size
// it asked for (arrays of no elements, in-place reshapes), so a block knows its own.
struct Block {
  std::uint32_t magic;
  std::uint32_t index;  // size class
  std::uint32_t offset;  // of the data from the start of the memory
  std::size_t requested;
  Block *class_next, *class_previous;  // free blocks of the same class, the last freed first: its cache lines are warm
  Block *age_next, *age_previous;      // all free blocks, the last freed first

  void* data() { return reinterpret_cast<char*>(this) + kAlignment; }
  std::size_t bytes() const { return class_bytes(index); }
};
static_assert(sizeof(Block) <= kAlignment, "the header must fit in front of aligned data");

constexpr std::uint32_t kInUse = 0x70796672, kFree = 0x66726565;

Block* block_of(void* data) { return reinterpret_cast<Block*>(static_cast<char*>(data) - kAlignment); }

// Large blocks are mapped by hand, aligned to huge pages: one page fault per 2 MB instead of 512.
bool is_mapped(std::size_t bytes) { return bytes >= kHugePage; }

// Where the data of the next block begins. A processor compares the low 12 bits of addresses to find loads that must
// wait for a store before them: reading x[i + 64 bytes] after writing y[i] waits in vain where y lies 64 to 320 bytes
// after x modulo 4096 (a pointwise loop loses 30 %). So large blocks begin at different places of a page, multiples of
// 512 bytes apart, also from the places 16 and 64, where the C library's large blocks begin. It costs no memory: the
// header alone takes a page from a mapped block.
constexpr std::size_t kColoured = std::size_t{64} << 10;
constexpr unsigned kColours = 7;

std::size_t next_offset(std::size_t bytes) {
  static std::atomic<unsigned> counter{0};
  if (bytes < kColoured) return kAlignment;
  const unsigned colour = counter.fetch_add(3, std::memory_order_relaxed) % kColours;  // neighbours are far apart
  return kAlignment + 512 * (colour + 1);
}

std::size_t mapped_bytes(std::size_t bytes) {
  static const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + kAlignment + 512 * kColours + page - 1) / page * page;
}

void* system_allocate(std::size_t bytes, std::size_t offset) {
  if (!is_mapped(bytes)) {
    void* memory = nullptr;
    return posix_memalign(&memory, kAlignment, bytes + offset) == 0 ? memory : nullptr;
  }
  // Map more than needed and cut off both ends to get the alignment.
  const std::size_t wanted = mapped_bytes(bytes), total = wanted + kHugePage;
  void* raw = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(raw);
  const std::size_t skip = (kHugePage - reinterpret_cast<std::uintptr_t>(begin) % kHugePage) % kHugePage;
  if (skip > 0) munmap(begin, skip);
  if (total - skip > wanted) munmap(begin + skip + wanted, total - skip - wanted);
#if defined(MADV_HUGEPAGE)
  madvise(begin + skip, wanted, MADV_HUGEPAGE);  // only a hint: without huge pages everything works, a bit slower
#endif
  return begin + skip;
}

void system_free(Block* block) {
  const std::size_t bytes = block->bytes();
  ASAN_UNPOISON_MEMORY_REGION(block->data(), bytes);
  char* const memory = static_cast<char*>(block->data()) - block->offset;
  if (is_mapped(bytes)) {
    munmap(memory, mapped_bytes(bytes));
  } else {
    std::free(memory);
  }
}

// A quarter of the memory this process may use: the machine's, lowered by a container's limit.
std::uint64_t default_limit() {
  std::uint64_t memory = static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/memory.max", "r")) {
    unsigned long long most = 0;
    if (std::fscanf(file, "%llu", &most) == 1) memory = std::min<std::uint64_t>(memory, most);
    std::fclose(file);
  }
  return memory / 4;
}

class Allocator {
 public:
  void* take(std::size_t bytes) {
    if (bytes > kLargest) return nullptr;
    const unsigned index = class_of(bytes);
    Block* block;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      block = free_[index];
      if (block) {
        unlink(block);
        ++hits_;
        count_in(block->bytes());
      }
    }
    if (!block) {
      block = fresh(index);
      if (!block) return nullptr;
    }
    block->magic = kInUse;
    block->requested = bytes;
    ASAN_UNPOISON_MEMORY_REGION(block->data(), block->bytes());
    return block->data();
  }

  void give_back(void* data) {
    Block* const block = block_of(data);
    if (block->magic != kInUse) bad_pointer(data, block->magic == kFree);
    block->magic = kFree;
    const std::size_t bytes = block->bytes();
    ASAN_POISON_MEMORY_REGION(block->data(), bytes);
    Block* surplus;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      in_use_ -= bytes;
      link(block);
      surplus = shrink(limit_);
    }
    free_chain(surplus);
  }

  AllocatorStats stats() {
    std::lock_guard<std::mutex> lock(mutex_);
    return {in_use_, cached_, peak_, hits_, misses_, limit_};
  }

  void reset_stats() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_ = in_use_;
    hits_ = misses_ = 0;
  }

  std::uint64_t release() {
    Block* surplus;
    std::uint64_t released;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      released = cached_;
      surplus = shrink(0);
    }
    free_chain(surplus);
    return released;
  }

  void set_limit(std::uint64_t bytes) {
    Block* surplus;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      limit_ = bytes;
      surplus = shrink(bytes);
    }
    free_chain(surplus);
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

 private:
  // A new block from the system; when the system has none, the cache is given up first.
  Block* fresh(unsigned index) {
    const std::size_t bytes = class_bytes(index);
    const std::size_t offset = next_offset(bytes);
    void* memory = system_allocate(bytes, offset);
    if (!memory && release() > 0) memory = system_allocate(bytes, offset);
    if (!memory) return nullptr;
    Block* const block = block_of(static_cast<char*>(memory) + offset);
    block->index = index;
    block->offset = static_cast<std::uint32_t>(offset);
    std::lock_guard<std::mutex> lock(mutex_);
    ++misses_;
    count_in(bytes);
    return block;
  }

  void count_in(std::size_t bytes) {
    in_use_ += bytes;
    peak_ = std::max(peak_, in_use_);
  }

  void link(Block* block) {
    Block*& head = free_[block->index];
    block->class_previous = nullptr;
    block->class_next = head;
    if (head) head->class_previous = block;
    head = block;
    block->age_previous = nullptr;
    block->age_next = newest_;
    (newest_ ? newest_->age_previous : oldest_) = block;
    newest_ = block;
    cached_ += block->bytes();
  }

  void unlink(Block* block) {
    (block->class_previous ? block->class_previous->class_next : free_[block->index]) = block->class_next;
    if (block->class_next) block->class_next->class_previous = block->class_previous;
    (block->age_previous ? block->age_previous->age_next : newest_) = block->age_next;
    (block->age_next ? block->age_next->age_previous : oldest_) = block->age_previous;
    cached_ -= block->bytes();
  }

  // Takes the oldest free blocks out until at most `limit` bytes are cached; returns them chained by class_next. They
  // are freed after the lock is released: unmapping is slow.
  Block* shrink(std::uint64_t limit) {
    Block* chain = nullptr;
    while (cached_ > limit) {
      Block* const block = oldest_;
      unlink(block);
      block->class_next = chain;
      chain = block;
    }
    return chain;
  }

  static void free_chain(Block* block) {
    while (block) {
      Block* const next = block->class_next;
      block->magic = 0;
      system_free(block);
      block = next;
    }
  }

  [[noreturn]] static void bad_pointer(void* data, bool freed_before) {
    std::fprintf(stderr, "pyframe allocator: %p %s\n", data,
                 freed_before ? "was freed twice" : "did not come from this allocator, or its header is overwritten");
    std::abort();
  }

  std::mutex mutex_;
  Block* free_[kClasses] = {};
  Block *newest_ = nullptr, *oldest_ = nullptr;
  std::uint64_t in_use_ = 0, cached_ = 0, peak_ = 0, hits_ = 0, misses_ = 0;
  std::uint64_t limit_ = default_limit();
};

// Never destroyed: arrays are freed until the very end of the process.
Allocator& allocator() {
  static Allocator* const instance = new Allocator;
  return *instance;
}

}  // namespace

void* allocate(std::size_t bytes) noexcept { return allocator().take(bytes); }

void deallocate(void* data) noexcept {
  if (data) allocator().give_back(data);
}

void* reallocate(void* data, std::size_t bytes) noexcept {
  if (!data) return allocate(bytes);
  Block* const block = block_of(data);
  if (bytes <= kLargest && class_of(bytes) == block->index) {
    block->requested = bytes;
    return data;
  }
  void* const moved = allocate(bytes);
  if (!moved) return nullptr;
  std::memcpy(moved, data, std::min(block->requested, bytes));
  deallocate(data);
  return moved;
}

AllocatorStats allocator_stats() noexcept { return allocator().stats(); }
void reset_allocator_stats() noexcept { allocator().reset_stats(); }
std::uint64_t release_cache() noexcept { return allocator().release(); }
void set_cache_limit(std::uint64_t bytes) noexcept { allocator().set_limit(bytes); }
void allocator_before_fork() noexcept { allocator().lock(); }
void allocator_after_fork() noexcept { allocator().unlock(); }

}  // namespace pyframe
