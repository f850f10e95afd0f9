#include "scatter.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "copy.h"
#include "gather.h"
#include "scratch.h"
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
constexpr int64_t kStripBytes = 256 << 10;
constexpr int64_t kAhead = 4;  // rows
int64_t strip_of(int64_t n, int64_t inner, int64_t item) {
  return std::min(inner, std::max<int64_t>(16, kStripBytes / item / std::max<int64_t>(n, 1)));
}

// A strip is worked on in memory of its own: rows that lie a power of two apart share few sets of a cache, and 256 KB
// of them do not stay in one of 1 MB. Not for few entries of the index, where moving it would take longer.
class Strips {
 public:
  Strips(int64_t n, int64_t count, int64_t inner, int64_t strip, int64_t item)
      : rows_(n), step_(inner * item), bytes_(n * strip * item),
        moves_(n * step_ > kStripBytes && bytes_ <= 2 * kStripBytes && 2 * count >= n),
        room_(moves_ ? num_threads() * bytes_ : 0) {}

  bool moves() const { return moves_; }
  char* fetch(const char* strip, int64_t width) {
    char* const own = room_.data() + thread_index() * bytes_;
    copy_kernels().rows(own, strip, rows_, width, width, step_, false);
    return own;
  }
  void bring_back(char* strip, int64_t width) {
    copy_kernels().rows(strip, room_.data() + thread_index() * bytes_, rows_, width, step_, width, false);
  }

 private:
  int64_t rows_, step_, bytes_;
  bool moves_;
  Scratch<char> room_;
};

// Asks for what a later row has in a strip: the hardware's prefetchers do not follow short pieces of rows.
inline void ask_for(const void* row, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch(static_cast<const char*>(row) + b);
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
        copy_kernels().chosen_rows(to + first * bytes, from, index + first, stop - first, n, bytes);
      }
      begin += stop - first;
    }
  });
}

namespace {

// Below this, one thread that writes everywhere is done as soon as two that look for their places in the whole index:
// 1.8 and 2 ms for a million floats, 70 to 100 and 45 to 53 ms for eight.
constexpr int64_t kSharedBytes = 16 << 20;

// Places from first to stop only, in the order of the index. They are collected first: a branch on random numbers would
// be guessed wrong every second time, which doubles the time.
template <class T, class How>
void put_range(T* to, const int64_t* index, const T* from, int64_t step, int64_t count, int64_t n, int64_t first,
               int64_t stop, How) {
  constexpr int64_t kBlock = 1024;
  T* places[kBlock];
  T values[kBlock];
  for (int64_t top = 0; top < count; top += kBlock) {
    int64_t found = 0;
    for (int64_t j = top; j < std::min(count, top + kBlock); ++j) {
      const int64_t k = wrapped(index[j], n);
      places[found] = to + k;
      values[found] = from[step * j];
      found += k >= first && k < stop;
    }
    for (int64_t j = 0; j < found; ++j) How::run(*places[j], values[j]);
  }
}

// to[a][index[a][j]] = from[a][j], or +=; the step from one line's index to the next is 0 if they share it.
template <class T, class How>
void put_lines(T* to, const int64_t* index, int64_t index_step, const T* from, int64_t step, int64_t outer, int64_t n,
               int64_t count, How how) {
  constexpr int64_t item = sizeof(T);
  if (item < 4 || outer >= num_threads() || n * item < kSharedBytes) {
    parallel_for(0, outer, row_grain(count), [=](int64_t begin, int64_t end) {
      for (int64_t a = begin; a < end; ++a) {
        T* const line = to + a * n;
        const int64_t* const places = index + a * index_step;
        const T* const values = from + step * a * count;
        for (int64_t j = 0; j < count; ++j) How::run(line[wrapped(places[j], n)], values[step * j]);
      }
    });
    return;
  }
  if constexpr (item >= 4) {
    for (int64_t a = 0; a < outer; ++a) {
      parallel_for(0, n, (n + num_threads() - 1) / num_threads(), [=](int64_t first, int64_t stop) {
        put_range(to + a * n, index + a * index_step, from + step * a * count, step, count, n, first, stop, how);
      });
    }
  }
}

}  // namespace

void put_rows(char* out, const int64_t* index, const char* src, int64_t outer, int64_t n, int64_t count, int64_t width,
              int64_t item, Sum sum) {
  if (outer * count * width == 0) return;
  with_sum(item, sum, [&](auto zero, auto how) {
    using T = decltype(zero);
    T* const to = reinterpret_cast<T*>(out);
    const T* const from = reinterpret_cast<const T*>(src);
    if (width == 1) return put_lines(to, index, 0, from, 1, outer, n, count, how);
    // Each thread has a range of the rows that are written, and reads the whole index.
    const int64_t grain = std::max(row_grain(width), (n * outer + num_threads() - 1) / num_threads());
    parallel_for(0, outer * n, grain, [&](int64_t begin, int64_t end) {
      while (begin < end) {
        const int64_t a = begin / n, first = begin % n, stop = std::min(n, first + end - begin);
        T* const base = to + a * n * width;
        const T* const rows = from + a * count * width;
        for (int64_t j = 0; j < count; ++j) {
          const int64_t k = wrapped(index[j], n);
          if (k >= first && k < stop) add_row(base + k * width, rows + j * width, width, how);
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
  Strips own(n, count, inner, strip, item);
  // Rows of a strip that is moved are not divided: every task would move it.
  const int64_t block = own.moves() ? count : std::min(count, std::max<int64_t>(1, (256 << 10) / strip));
  const int64_t blocks = (count + block - 1) / block;
  const int64_t grain = kGrain / (strip * block) + 1;
  with_item(item, [&](auto zero) {
    using T = decltype(zero);
    const T* const from = reinterpret_cast<const T*>(x);
    T* const to = reinterpret_cast<T*>(out);
    parallel_for(0, outer * strips * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t a = task / blocks / strips, left = task / blocks % strips * strip, top = task % blocks * block;
        const int64_t right = std::min(inner, left + strip), bottom = std::min(count, top + block);
        const T* base = from + a * n * inner + left;
        if (inner == 1) {
          for (int64_t k = a * count + top; k < a * count + bottom; ++k) to[k] = base[index[k]];
          continue;
        }
        int64_t step = inner;
        if (own.moves()) {
          step = right - left;
          base = reinterpret_cast<const T*>(own.fetch(reinterpret_cast<const char*>(base), step * item));
        }
        for (int64_t k = top; k < bottom; ++k) {
          const int64_t row = (a * count + k) * inner + left;
          if (k + kAhead < bottom) {
            ask_for(index + row + kAhead * inner, (right - left) * 8);
            ask_for(to + row + kAhead * inner, (right - left) * item);
          }
          for (int64_t b = 0; b < right - left; ++b) to[row + b] = base[index[row + b] * step + b];
        }
      }
    });
  });
}

void put_elements(char* out, const int64_t* index, const char* src, bool single, int64_t outer, int64_t n,
                  int64_t count, int64_t inner, int64_t item, Sum sum) {
  if (outer * count * inner == 0) return;
  const int64_t share = (outer * inner + num_threads() - 1) / num_threads();  // of a thread, in columns
  const int64_t strip = std::min(strip_of(n, inner, item), std::max<int64_t>(16, share));
  const int64_t strips = (inner + strip - 1) / strip, step = single ? 0 : 1;
  Strips own(n, count, inner, strip, item);
  with_sum(item, sum, [&](auto zero, auto how) {
    using T = decltype(zero);
    T* const to = reinterpret_cast<T*>(out);
    const T* const from = reinterpret_cast<const T*>(src);
    if (inner == 1) return put_lines(to, index, count, from, step, outer, n, count, how);
    // No two of these write to one place.
    parallel_for(0, outer * strips, kGrain / (strip * count) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t a = task / strips, left = task % strips * strip, width = std::min(inner - left, strip);
        T* const whole = to + a * n * inner + left;
        T* base = whole;
        int64_t stride = inner;
        if (own.moves()) {
          stride = width;
          base = reinterpret_cast<T*>(own.fetch(reinterpret_cast<const char*>(whole), width * item));
        }
        for (int64_t k = 0; k < count; ++k) {
          const int64_t row = (a * count + k) * inner + left;
          if (k + kAhead < count) {
            ask_for(index + row + kAhead * inner, width * 8);
            ask_for(from + step * (row + kAhead * inner), width * item);
          }
          for (int64_t b = 0; b < width; ++b) {
            decltype(how)::run(base[index[row + b] * stride + b], from[step * (row + b)]);
          }
        }
        if (own.moves()) own.bring_back(reinterpret_cast<char*>(whole), width * item);
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
  constexpr int64_t kBlock = 1024;  // stays in the first cache level from one dimension to the next
  parallel_for(0, (count + kBlock - 1) / kBlock, kGrain / kBlock, [=](int64_t first, int64_t last) {
    for (int64_t begin = first * kBlock; begin < std::min(count, last * kBlock); begin += kBlock) {
      gather_kernels().places(index + begin, count, lengths, dims, std::min(kBlock, count - begin), places + begin);
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
