#include "sort.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "reduce.h"
#include "scatter.h"
#include "scratch.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

// Keys are unsigned numbers in the order of the elements. An item is a key and where its element was; items are
// distinct and their order is the stable one.
struct Wide {
  uint64_t key;
  uint64_t index;
  bool operator<(const Wide& other) const { return key != other.key ? key < other.key : index < other.index; }
};

template <class T> struct Kind;
template <> struct Kind<float> { using Key = uint32_t; };
template <> struct Kind<double> { using Key = uint64_t; };
template <> struct Kind<std::int32_t> { using Key = uint32_t; };
template <> struct Kind<int64_t> { using Key = uint64_t; };

template <class T> typename Kind<T>::Key key_of(T x, bool descending) {
  using Key = typename Kind<T>::Key;
  constexpr Key kSign = Key{1} << (8 * sizeof(Key) - 1);
  Key key;
  if constexpr (static_cast<T>(0.5) != 0) {
    x += T{0};  // -0 becomes 0
    std::memcpy(&key, &x, sizeof key);
    key = key & kSign ? ~key : key | kSign;
    if (x != x) key = ~Key{0};
  } else {
    key = static_cast<Key>(x) ^ kSign;
  }
  return descending ? ~key : key;
}

// Key and index side by side in one word, where they fit: half the memory to move.
struct Narrow {
  using Item = uint64_t;
  int index_bits = 32;
  Item make(uint64_t key, uint64_t index) const { return key << index_bits | index; }
  uint64_t key(Item item) const { return item >> index_bits; }
  int64_t index(Item item) const { return static_cast<int64_t>(item & ((uint64_t{1} << index_bits) - 1)); }
};
struct Broad {
  using Item = Wide;
  Item make(uint64_t key, uint64_t index) const { return {key, index}; }
  uint64_t key(const Item& item) const { return item.key; }
  int64_t index(const Item& item) const { return static_cast<int64_t>(item.index); }
};
template <class T> using PackOf = std::conditional_t<sizeof(T) == 4, Narrow, Broad>;

int bits_of(uint64_t value) { return 64 - __builtin_clzll(value | 1); }

constexpr int64_t kFew = 32;            // sorted by insertion
constexpr int64_t kScan = 16;           // elements looked at one by one where there may be a candidate
constexpr int64_t kLongRow = 1 << 14;   // from here on digits of 11 bits pay, whose tables are larger
constexpr int64_t kSharedRow = 1 << 16; // from here on several threads sort one row

template <class Item> void insertion_sort(Item* items, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const Item moved = items[i];
    int64_t k = i;
    for (; k > 0 && moved < items[k - 1]; --k) items[k] = items[k - 1];
    items[k] = moved;
  }
}

// Least significant digit first, each pass stable; returns which of the two arrays holds the result. Keys have
// `key_bits`, a digit at most `digit_bits`. Each of `parts` threads counts and places the items of one part of the row;
// the order is the stable one, so the parts do not show.
template <class Pack, class Item = typename Pack::Item>
Item* radix_sort(Pack pack, int key_bits, int digit_bits, Item* items, Item* other, int64_t n, int64_t parts) {
  const int passes = (key_bits + digit_bits - 1) / digit_bits, bits = (key_bits + passes - 1) / passes;
  const int64_t length = (n + parts - 1) / parts, buckets = int64_t{1} << bits;
  const uint64_t mask = static_cast<uint64_t>(buckets) - 1;
  Scratch<uint32_t> counts(parts * buckets);
  const auto each_part = [&](auto&& work) {
    const auto run = [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        work(counts.data() + t * buckets, t * length, std::min(n, (t + 1) * length));
      }
    };
    if (parts == 1) run(0, 1);
    else parallel_for(0, parts, 1, run);
  };
  for (int shift = 0; shift < key_bits; shift += bits) {
    each_part([=](uint32_t* count, int64_t begin, int64_t end) {
      std::fill(count, count + buckets, 0u);
      for (int64_t i = begin; i < end; ++i) ++count[pack.key(items[i]) >> shift & mask];
    });
    uint32_t total = 0;
    bool moves = true;  // not if all digits are equal
    for (int64_t b = 0; b < buckets; ++b) {
      const uint32_t before = total;
      for (int64_t t = 0; t < parts; ++t) {
        uint32_t& at = counts[t * buckets + b];
        const uint32_t count = at;
        at = total;
        total += count;
      }
      moves &= total - before != n;
    }
    if (!moves) continue;
    each_part([=](uint32_t* at, int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) other[at[pack.key(items[i]) >> shift & mask]++] = items[i];
    });
    std::swap(items, other);
  }
  return items;
}

template <class Pack, class T>
void write_items(Pack pack, const T* x, const typename Pack::Item* items, T* values, int64_t* indices, int64_t begin,
                 int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = pack.index(items[i]);
    indices[i] = from;
    if (values) values[i] = x[from];
  }
}

// `key(x)` gives keys of `key_bits`.
template <class Pack, class T, class KeyOf>
void sort_by(Pack pack, int key_bits, const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, KeyOf key) {
  using Item = typename Pack::Item;
  const auto load = [=](const T* row, Item* items, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) items[i] = pack.make(key(row[i]), static_cast<uint64_t>(i));
  };
  const int digit_bits = n < kLongRow ? 8 : 11;
  if (n >= kSharedRow && num_threads() > 1 && rows < num_threads()) {
    Scratch<Item> first(n), second(n);
    for (int64_t r = 0; r < rows; ++r, x += n, indices += n, values = values ? values + n : nullptr) {
      parallel_for(0, n, kGrain, [&](int64_t b, int64_t e) { load(x, first.data(), b, e); });
      const Item* const sorted =
          radix_sort(pack, key_bits, digit_bits, first.data(), second.data(), n, num_threads());
      parallel_for(0, n, kGrain, [&](int64_t b, int64_t e) { write_items(pack, x, sorted, values, indices, b, e); });
    }
    return;
  }
  parallel_for(0, rows, kGrain / 8 / n + 1, [=](int64_t begin, int64_t end) {
    Scratch<Item> first(n), second(n);
    for (int64_t r = begin; r < end; ++r) {
      const T* const row = x + r * n;
      Item* sorted = first.data();
      load(row, sorted, 0, n);
      if (n <= kFew) insertion_sort(sorted, n);
      else sorted = radix_sort(pack, key_bits, digit_bits, sorted, second.data(), n, 1);
      write_items(pack, row, sorted, values ? values + r * n : nullptr, indices + r * n, 0, n);
    }
  });
}

template <class T>
void sort_of(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, bool descending) {
  if constexpr (std::is_same_v<T, int64_t>) {
    // Most integers in use span little, so that digits and memory to move are few.
    int64_t ends[2];
    index_range(x, rows * n, ends);
    const uint64_t least = static_cast<uint64_t>(ends[0]), greatest = static_cast<uint64_t>(ends[1]);
    const auto key = [=](int64_t v) {
      return descending ? greatest - static_cast<uint64_t>(v) : static_cast<uint64_t>(v) - least;
    };
    const int key_bits = bits_of(greatest - least), index_bits = bits_of(static_cast<uint64_t>(n));
    if (key_bits + index_bits > 64) sort_by(Broad(), key_bits, x, values, indices, rows, n, key);
    else sort_by(Narrow{index_bits}, key_bits, x, values, indices, rows, n, key);
  } else {
    const auto key = [=](T v) { return key_of(v, descending); };
    sort_by(PackOf<T>(), 8 * static_cast<int>(sizeof(T)), x, values, indices, rows, n, key);
  }
}

// How many elements from the front are surely no candidates: those that do not come before the k-th so far.
int64_t none_before(const float* x, int64_t n, float bar, bool descending) {
  return reduce_kernels().f32.within(x, n, bar, descending);
}
int64_t none_before(const double* x, int64_t n, double bar, bool descending) {
  return reduce_kernels().f64.within(x, n, bar, descending);
}
template <class T> int64_t none_before(const T*, int64_t, T, bool) { return 0; }

// The k least items of a row, in order. Candidates are collected; when there are many, all but the k least are dropped,
// and the k-th is the bar for further ones: among random numbers few pass it.
template <class T>
void first_of_row(const T* x, typename PackOf<T>::Item* items, int64_t room, int64_t n, int64_t k, bool descending) {
  constexpr PackOf<T> pack{};
  int64_t found = std::min(room, n), i = found;
  for (int64_t j = 0; j < found; ++j) items[j] = pack.make(key_of(x[j], descending), static_cast<uint64_t>(j));
  while (i < n) {
    std::nth_element(items, items + k - 1, items + found);
    found = k;
    const auto bar = pack.key(items[k - 1]);
    const T last = x[pack.index(items[k - 1])];
    while (i < n && found < room) {
      i += none_before(x + i, n - i, last, descending);
      for (const int64_t end = std::min(n, i + kScan); i < end && found < room; ++i) {
        const auto key = key_of(x[i], descending);
        items[found] = pack.make(key, static_cast<uint64_t>(i));  // no branch: it would be a guess
        found += key < bar;                                        // an equal one comes later
      }
    }
  }
  if (found > k) std::nth_element(items, items + k - 1, items + found);
  std::sort(items, items + k);
}

template <class T>
void first_of(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, int64_t k, bool descending) {
  const int64_t room = std::min(n, 3 * k + 4);
  parallel_for(0, rows, kGrain / n + 1, [=](int64_t begin, int64_t end) {
    Scratch<typename PackOf<T>::Item> items(room);
    for (int64_t r = begin; r < end; ++r) {
      first_of_row(x + r * n, items.data(), room, n, k, descending);
      write_items(PackOf<T>(), x + r * n, items.data(), values + r * k, indices + r * k, 0, k);
    }
  });
}

// The item of rank k. Of long rows only those are compared that share the leading digit of that rank.
template <class T> int64_t rank_of_row(const T* x, typename PackOf<T>::Item* items, int64_t n, int64_t k) {
  constexpr PackOf<T> pack{};
  int64_t found = 0;
  if (n < kLongRow) {
    for (; found < n; ++found) items[found] = pack.make(key_of(x[found], false), static_cast<uint64_t>(found));
  } else {
    constexpr int kBits = 11, kShift = 8 * static_cast<int>(sizeof(T)) - kBits;
    std::vector<int64_t> counts(1 << kBits);
    for (int64_t i = 0; i < n; ++i) ++counts[key_of(x[i], false) >> kShift];
    std::size_t digit = 0;
    while (k >= counts[digit]) k -= counts[digit++];
    for (int64_t i = 0; i < n; ++i) {
      const auto key = key_of(x[i], false);
      if (key >> kShift == digit) items[found++] = pack.make(key, static_cast<uint64_t>(i));
    }
  }
  std::nth_element(items, items + k, items + found);
  return pack.index(items[k]);
}

template <class T>
void rank_of(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, int64_t k, bool nan_wins) {
  parallel_for(0, rows, kGrain / 4 / n + 1, [=](int64_t begin, int64_t end) {
    Scratch<typename PackOf<T>::Item> items(n);
    for (int64_t r = begin; r < end; ++r) {
      const T* const row = x + r * n;
      int64_t nan = n;
      if (nan_wins) nan = std::find_if(row, row + n, [](T value) { return value != value; }) - row;
      indices[r] = nan < n ? nan : rank_of_row(row, items.data(), n, k);
      values[r] = row[indices[r]];
    }
  });
}

// Calls use(T{}) with the elements' type.
template <class Use> void with_type(Sorted type, Use use) {
  switch (type) {
    case Sorted::f32: return use(float{});
    case Sorted::f64: return use(double{});
    case Sorted::i32: return use(std::int32_t{});
    case Sorted::i64: return use(int64_t{});
  }
}

}  // namespace

void sort_rows(Sorted type, const void* x, void* values, int64_t* indices, int64_t rows, int64_t n, bool descending) {
  if (rows * n == 0) return;
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    sort_of(static_cast<const T*>(x), static_cast<T*>(values), indices, rows, n, descending);
  });
}

void first_of_rows(Sorted type, const void* x, void* values, int64_t* indices, int64_t rows, int64_t n, int64_t k,
                   bool descending) {
  if (rows * k == 0) return;
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    first_of(static_cast<const T*>(x), static_cast<T*>(values), indices, rows, n, k, descending);
  });
}

void rank_of_rows(Sorted type, const void* x, void* values, int64_t* indices, int64_t rows, int64_t n, int64_t k,
                  bool nan_wins) {
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    rank_of(static_cast<const T*>(x), static_cast<T*>(values), indices, rows, n, k, nan_wins);
  });
}

}  // namespace pyframe
