// How Python finds the kernels of a compiled file, and calls one with an array of pointers to its arguments.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace pf_emulator {

template <auto kernel>
struct Call;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Call<kernel> {
  static void run(void** arguments) { unpack(arguments, std::index_sequence_for<Arguments...>{}); }

  // Per argument: its size, negative where it is a pointer.
  static constexpr int sizes[sizeof...(Arguments) + 1] = {
      (std::is_pointer_v<Arguments> ? -static_cast<int>(sizeof(Arguments)) : static_cast<int>(sizeof(Arguments)))..., 0};

 private:
  template <std::size_t... I>
  static void unpack([[maybe_unused]] void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<Arguments>*>(arguments[I])...);
  }
};

struct Entry {
  void (*run)(void**);
  const int* sizes;
};

template <auto kernel>
constexpr Entry entry() { return {&Call<kernel>::run, Call<kernel>::sizes}; }

}  // namespace pf_emulator
