// Vectors of lane numbers, and the shuffles that they make. Loops that fill an index vector lane by lane are often left
// in the code by GCC, at ten times the cost of the shuffle; a list of constants never is.
#pragma once

#include <utility>

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {

template <class T> using LaneList = std::make_integer_sequence<int, kLanes<T>>;

template <class T, int First, int Step, int... I>
PYFRAME_INLINE Mask<T> lanes_of(std::integer_sequence<int, I...>) {
  return Mask<T>{(First + Step * I)...};
}
template <class T, int Half, int... I>
PYFRAME_INLINE Mask<T> pairs_of(std::integer_sequence<int, I...>) {
  return Mask<T>{(I % 2 * kLanes<T> + I / 2 + Half * kLanes<T> / 2)...};
}

// First, First + Step, …
template <class T, int First = 0, int Step = 1> PYFRAME_INLINE Mask<T> lane_numbers() {
  return lanes_of<T, First, Step>(LaneList<T>{});
}

// All bits set in the first `count` lanes.
template <class T> PYFRAME_INLINE Mask<T> first_lanes(std::int64_t count) {
  return lane_numbers<T>() < static_cast<typename Bits<T>::type>(count) - Mask<T>{};
}

// Every second lane of a and b one after the other, from lane `First` (0 or 1) on.
template <class T, int First> PYFRAME_INLINE Vec<T> alternate(Vec<T> a, Vec<T> b) {
  return __builtin_shuffle(a, b, lane_numbers<T, First, 2>());
}

// a0 b0 a1 b1 …: the lower (Half 0) or upper (Half 1) half of all.
template <class T, int Half> PYFRAME_INLINE Vec<T> interleaved(Vec<T> a, Vec<T> b) {
  return __builtin_shuffle(a, b, pairs_of<T, Half>(LaneList<T>{}));
}

}  // namespace PYFRAME_ISA
}  // namespace pyframe
