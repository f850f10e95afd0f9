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

template <class T>
void add_row(T* to, const T* from, int64_t width) {
  constexpr int L = kLanes<T>;
  int64_t j = 0;
  for (; j + L <= width; j += L) store<T>(to + j, load(to + j) + load(from + j));
  for (; j < width; ++j) to[j] += from[j];
}

void range(const int64_t* index, int64_t count, int64_t* least_and_greatest) {
  constexpr int L = kLanes<int64_t>;
  Vec<int64_t> least = splat(index[0]), greatest = least;
  int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) {
    const Vec<int64_t> a = load(index + i), b = load(index + i + L);
    least = vmin<int64_t>(least, vmin<int64_t>(a, b));
    greatest = vmax<int64_t>(greatest, vmax<int64_t>(a, b));
  }
  least_and_greatest[0] = hmin<int64_t>(least);
  least_and_greatest[1] = hmax<int64_t>(greatest);
  for (; i < count; ++i) {
    if (index[i] < least_and_greatest[0]) least_and_greatest[0] = index[i];
    if (index[i] > least_and_greatest[1]) least_and_greatest[1] = index[i];
  }
}

PYFRAME_INLINE int64_t wrapped(int64_t k, int64_t n) { return k + (k >> 63 & n); }

void places(const int64_t* index, int64_t step, const int64_t* lengths, int64_t dims, int64_t count,
            int64_t* __restrict__ places) {
  const int64_t first = lengths[0];
  for (int64_t i = 0; i < count; ++i) places[i] = wrapped(index[i], first);
  for (int64_t d = 1; d < dims; ++d) {
    const int64_t* const next = index + d * step;
    const int64_t n = lengths[d];
    for (int64_t i = 0; i < count; ++i) places[i] = places[i] * n + wrapped(next[i], n);
  }
}

}  // namespace

extern const GatherTable gather_table = {sum_rows<float>, sum_rows<double>, add_row<float>,
                                         add_row<double>, range,            places};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
