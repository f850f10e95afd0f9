#include "gather.h"

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

// `Wide` vectors of columns stay in registers while the rows pass by.
template <class T, int Wide>
PYFRAME_INLINE void strip(const T* x, const int64_t* order, int64_t count, int64_t width, T factor, T* out) {
  constexpr int L = kLanes<T>;
  Vec<T> total[Wide];
  for (int u = 0; u < Wide; ++u) total[u] = Vec<T>{};
  for (int64_t i = 0; i < count; ++i) {
    for (int u = 0; u < Wide; ++u) total[u] += load(x + order[i] * width + u * L);
  }
  for (int u = 0; u < Wide; ++u) store<T>(out + u * L, total[u] * factor);
}

template <class T>
void sum_rows(const T* x, const int64_t* order, int64_t count, int64_t width, T factor, T* out) {
  constexpr int L = kLanes<T>;
  int64_t j = 0;
  for (; j + 8 * L <= width; j += 8 * L) strip<T, 8>(x + j, order, count, width, factor, out + j);
  for (; j + L <= width; j += L) strip<T, 1>(x + j, order, count, width, factor, out + j);
  if (j < width) {
    Vec<T> total{};
    for (int64_t i = 0; i < count; ++i) total += load_part(x + order[i] * width + j, width - j);
    store_part<T>(out + j, total * factor, width - j);
  }
}

}  // namespace

extern const GatherTable gather_table = {sum_rows<float>, sum_rows<double>};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
