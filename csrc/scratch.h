// Working memory of one call, from the caching allocator: the fresh pages of a large std::vector cost more than its use.
#pragma once

#include <cstdint>
#include <new>

#include "allocator.h"

namespace pyframe {

template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count) : data_(static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Scratch() { deallocate(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }
  T& operator[](std::int64_t i) { return data_[i]; }

 private:
  T* data_;
};

}  // namespace pyframe
