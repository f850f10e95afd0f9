#include "scatter.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "copy.h"
#include "gather.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

int64_t wrapped(int64_t k, int64_t n) { return k < 0 ? k + n : k; }

// Calls use(T{}) with a type of the item's size.
template <class Use> void with_item(int64_t item, Use use) {
  switch (item) {
    case 1: return use(std::uint8_t{});
    case 2: return use(std::uint16_t{});
    case 4: return use(std::uint32_t{});
    default: return use(std::uint64_t{});
  }
}

struct Store {
  template <class T> static void run(T& to, T value) { to = value; }
};
struct Add {
  template <class T> static void run(T& to, T value) { to += value; }
};

// Calls use(T{}, How{}) with the type to be stored or added. Integers wrap around.
template <class Use> void with_sum(int64_t item, Sum sum, Use use) {
  switch (sum) {
    case Sum::f32: return use(float{}, Add{});
    case Sum::f64: return use(double{}, Add{});
    case Sum::i32: return use(std::uint32_t{}, Add{});
    case Sum::i64: return use(std::uint64_t{}, Add{});
    default: with_item(item, [&](auto zero) { use(zero, Store{}); });
  }
}

// Columns are worked on in strips that stay in the second cache level with all their rows.
int64_t strip_of(int64_t n, int64_t inner, int64_t item) {
  return std::min(inner, std::max<int64_t>(16, (256 << 10) / item / std::max<int64_t>(n, 1)));
}

template <class T> void add_row(T* to, const T* from, int64_t width, Add) {
  if constexpr (static_cast<T>(0.5) != 0) {
    if (width >= 16) {
      if constexpr (sizeof(T) == 4) gather_kernels().add_row_f32(to, from, width);
      else gather_kernels().add_row_f64(to, from, width);
      return;
    }
  }
  for (int64_t i = 0; i < width; ++i) to[i] += from[i];
}
template <class T> void add_row(T* to, const T* from, int64_t width, Store) {
  std::memcpy(to, from, static_cast<std::size_t>(width) * sizeof(T));
}

}  // namespace

void take_rows(const char* x, const int64_t* index, char* out, int64_t outer, int64_t n, int64_t count, int64_t bytes) {
  if (outer * count * bytes == 0) return;
  const bool single = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;
  const auto copy = copy_kernels().rows;
  parallel_for(0, outer * count, row_grain(bytes / 4), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t a = begin / count, first = begin % count, stop = std::min(count, first + end - begin);
      const char* const from = x + a * n * bytes;
      char* const to = out + a * count * bytes;
      if (single) {
        with_item(bytes, [&](auto zero) {
          using T = decltype(zero);
          for (int64_t j = first; j < stop; ++j) {
            std::memcpy(to + j * sizeof(T), from + wrapped(index[j], n) * sizeof(T), sizeof(T));
          }
        });
      } else {
        for (int64_t j = first; j < stop; ++j) {
          copy(to + j * bytes, from + wrapped(index[j], n) * bytes, 1, bytes, 0, 0, false);
        }
      }
      begin += stop - first;
    }
  });
}

void put_rows(char* out, const int64_t* index, const char* src, int64_t outer, int64_t n, int64_t count, int64_t width,
              int64_t item, Sum sum) {
  if (outer * count * width == 0) return;
  with_sum(item, sum, [&](auto zero, auto how) {
    using T = decltype(zero);
    T* const to = reinterpret_cast<T*>(out);
    const T* const from = reinterpret_cast<const T*>(src);
    // Each thread has a range of the rows that are written, and reads the whole index.
    const int64_t grain = std::max(row_grain(width), (n * outer + num_threads() - 1) / num_threads());
    parallel_for(0, outer * n, grain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t a = begin / n, first = begin % n, stop = std::min(n, first + end - begin);
        T* const base = to + a * n * width;
        const T* const rows = from + a * count * width;
        if (width == 1) {
          for (int64_t j = 0; j < count; ++j) {
            const int64_t k = wrapped(index[j], n);
            if (k >= first && k < stop) decltype(how)::run(base[k], rows[j]);
          }
        } else {
          for (int64_t j = 0; j < count; ++j) {
            const int64_t k = wrapped(index[j], n);
            if (k >= first && k < stop) add_row(base + k * width, rows + j * width, width, how);
          }
        }
        begin += stop - first;
      }
    });
  });
}

void take_elements(const char* x, const int64_t* index, char* out, int64_t outer, int64_t n, int64_t count,
                   int64_t inner, int64_t item) {
  if (outer * count * inner == 0) return;
  const int64_t strip = strip_of(n, inner, item), strips = (inner + strip - 1) / strip;
  const int64_t block = std::min(count, std::max<int64_t>(1, (256 << 10) / strip)), blocks = (count + block - 1) / block;
  const int64_t grain = kGrain / (strip * block) + 1;
  with_item(item, [&](auto zero) {
    using T = decltype(zero);
    const T* const from = reinterpret_cast<const T*>(x);
    T* const to = reinterpret_cast<T*>(out);
    parallel_for(0, outer * strips * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t a = task / blocks / strips, left = task / blocks % strips * strip, top = task % blocks * block;
        const int64_t right = std::min(inner, left + strip), bottom = std::min(count, top + block);
        const T* const base = from + a * n * inner;
        if (inner == 1) {
          for (int64_t k = a * count + top; k < a * count + bottom; ++k) to[k] = base[index[k]];
          continue;
        }
        for (int64_t k = top; k < bottom; ++k) {
          const int64_t row = (a * count + k) * inner;
          for (int64_t b = left; b < right; ++b) to[row + b] = base[index[row + b] * inner + b];
        }
      }
    });
  });
}

void put_elements(char* out, const int64_t* index, const char* src, bool single, int64_t outer, int64_t n,
                  int64_t count, int64_t inner, int64_t item, Sum sum) {
  if (outer * count * inner == 0) return;
  const int64_t strip = strip_of(n, inner, item), strips = (inner + strip - 1) / strip;
  const int64_t step = single ? 0 : 1;
  with_sum(item, sum, [&](auto zero, auto how) {
    using T = decltype(zero);
    T* const to = reinterpret_cast<T*>(out);
    const T* const from = reinterpret_cast<const T*>(src);
    if (outer * strips >= num_threads()) {  // no two of these write to one place
      parallel_for(0, outer * strips, kGrain / (strip * std::max<int64_t>(count, 1)) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t task = begin; task < end; ++task) {
          const int64_t a = task / strips, left = task % strips * strip, right = std::min(inner, left + strip);
          T* const base = to + a * n * inner;
          if (inner == 1) {
            for (int64_t k = a * count; k < (a + 1) * count; ++k) decltype(how)::run(base[index[k]], from[step * k]);
            continue;
          }
          for (int64_t k = 0; k < count; ++k) {
            const int64_t row = (a * count + k) * inner;
            for (int64_t b = left; b < right; ++b) {
              decltype(how)::run(base[index[row + b] * inner + b], from[step * (row + b)]);
            }
          }
        }
      });
      return;
    }
    // Each thread has a range of the rows that are written, and reads the whole index.
    const int64_t grain = std::max(row_grain(inner), (n + num_threads() - 1) / num_threads());
    parallel_for(0, n, grain, [&](int64_t first, int64_t stop) {
      for (int64_t a = 0; a < outer; ++a) {
        T* const base = to + a * n * inner;
        if (inner == 1 && first == 0 && stop == n) {
          for (int64_t k = a * count; k < (a + 1) * count; ++k) decltype(how)::run(base[index[k]], from[step * k]);
          continue;
        }
        for (int64_t k = 0; k < count; ++k) {
          const int64_t row = (a * count + k) * inner;
          for (int64_t b = 0; b < inner; ++b) {
            const int64_t i = index[row + b];
            if (i >= first && i < stop) decltype(how)::run(base[i * inner + b], from[step * (row + b)]);
          }
        }
      }
    });
  });
}

void index_range(const int64_t* index, int64_t count, int64_t* least_and_greatest) {
  constexpr int64_t kBlock = 32 << 10;
  const int64_t blocks = (count + kBlock - 1) / kBlock;
  std::vector<int64_t> found(static_cast<std::size_t>(2 * blocks));
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      gather_kernels().range(index + b * kBlock, std::min(kBlock, count - b * kBlock), &found[2 * b]);
    }
  });
  least_and_greatest[0] = found[0];
  least_and_greatest[1] = found[1];
  for (int64_t b = 1; b < blocks; ++b) {
    least_and_greatest[0] = std::min(least_and_greatest[0], found[2 * b]);
    least_and_greatest[1] = std::max(least_and_greatest[1], found[2 * b + 1]);
  }
}

void flat_places(const int64_t* index, const int64_t* lengths, int64_t dims, int64_t count, int64_t* places) {
  parallel_for(0, count, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) places[i] = wrapped(index[i], lengths[0]);
    for (int64_t d = 1; d < dims; ++d) {
      const int64_t* const next = index + d * count;
      for (int64_t i = begin; i < end; ++i) places[i] = places[i] * lengths[d] + wrapped(next[i], lengths[d]);
    }
  });
}

void count_true(const std::uint8_t* mask, int64_t count, int64_t* ends) {
  const int64_t blocks = (count + kMaskBlock - 1) / kMaskBlock;
  parallel_for(0, blocks, 4, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const std::uint8_t* const m = mask + b * kMaskBlock;
      const int64_t n = std::min(kMaskBlock, count - b * kMaskBlock);
      int64_t found = 0;
      for (int64_t i = 0; i < n; ++i) found += m[i] != 0;
      ends[b] = found;
    }
  });
  for (int64_t b = 1; b < blocks; ++b) ends[b] += ends[b - 1];
}

void true_places(const std::uint8_t* mask, int64_t count, const int64_t* ends, int64_t* places) {
  const int64_t blocks = (count + kMaskBlock - 1) / kMaskBlock;
  parallel_for(0, blocks, 2, [=](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      int64_t at = b ? ends[b - 1] : 0;
      const int64_t stop = ends[b], first = b * kMaskBlock, last = std::min(count, first + kMaskBlock);
      // Without a branch: a place is written and kept only if its byte is set. The end of the block is left out then.
      for (int64_t i = first; i < last && at < stop; ++i) {
        places[at] = i;
        at += mask[i] != 0;
      }
    }
  });
}

void coordinates(const int64_t* places, int64_t count, const int64_t* lengths, int64_t dims, int64_t* out, int64_t step,
                 int64_t dim_step) {
  const int64_t last = lengths[dims - 1];
  parallel_for(0, count, kGrain, [=](int64_t begin, int64_t end) {
    int64_t row = -1, start = 0, stop = 0;  // the row that the place before lay in: most often the next one does too
    for (int64_t i = begin; i < end; ++i) {
      if (places[i] >= stop) {
        row = places[i] / last;
        start = row * last;
        stop = start + last;
      }
      out[i * step + (dims - 1) * dim_step] = places[i] - start;
      int64_t rest = row;
      for (int64_t d = dims - 2; d > 0; --d) {
        out[i * step + d * dim_step] = rest % lengths[d];
        rest /= lengths[d];
      }
      if (dims > 1) out[i * step] = rest;
    }
  });
}

}  // namespace pyframe
