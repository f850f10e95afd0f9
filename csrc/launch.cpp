#include "launch.h"

#include <cstring>
#include <limits>

namespace pyframe {
namespace {

template <class T>
bool store(std::int64_t value, void* target) {
  const T narrow = static_cast<T>(value);
  std::memcpy(target, &narrow, sizeof narrow);
  if (std::numeric_limits<T>::is_signed || sizeof(T) < sizeof value) return static_cast<std::int64_t>(narrow) == value;
  return value >= 0;
}

}  // namespace

bool is_number(char code) { return code == 'f' || code == 'd'; }
bool is_argument(char code) { return std::strchr("P?bBhHiIqQfd", code) != nullptr && code != 0; }

bool store_integer(char code, std::int64_t value, bool above, void* target) {
  if (above && code != 'Q') return false;  // only an unsigned 64-bit integer can be above 2^63
  switch (code) {
    case '?': return store<std::uint8_t>(value != 0, target);
    case 'b': return store<std::int8_t>(value, target);
    case 'B': return store<std::uint8_t>(value, target);
    case 'h': return store<std::int16_t>(value, target);
    case 'H': return store<std::uint16_t>(value, target);
    case 'i': return store<std::int32_t>(value, target);
    case 'I': return store<std::uint32_t>(value, target);
    case 'q': return store<std::int64_t>(value, target);
    default: return store<std::uint64_t>(value, target) || above;
  }
}

void store_number(char code, double value, void* target) {
  if (code == 'd') {
    std::memcpy(target, &value, sizeof value);
  } else {
    const float narrow = static_cast<float>(value);
    std::memcpy(target, &narrow, sizeof narrow);
  }
}

}  // namespace pyframe
