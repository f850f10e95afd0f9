#include "sort.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "allocator.h"
#include "reduce.h"
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

// 32-bit keys and their index fit into one word.
struct Narrow {
  using Item = uint64_t;
  static Item make(uint32_t key, uint64_t index) { return static_cast<uint64_t>(key) << 32 | index; }
  static uint32_t key(Item item) { return static_cast<uint32_t>(item >> 32); }
  static int64_t index(Item item) { return static_cast<int64_t>(item & 0xffffffffu); }
};
struct Broad {
  using Item = Wide;
  static Item make(uint64_t key, uint64_t index) { return {key, index}; }
  static uint64_t key(const Item& item) { return item.key; }
  static int64_t index(const Item& item) { return static_cast<int64_t>(item.index); }
};
template <class T> using PackOf = std::conditional_t<sizeof(T) == 4, Narrow, Broad>;

// Memory of the caching allocator: nothing is set to zero, and no pages are new.
template <class Item> class Room {
 public:
  explicit Room(int64_t count) : data_(static_cast<Item*>(allocate(static_cast<std::size_t>(count) * sizeof(Item)))) {
    if (!data_) throw std::bad_alloc();
  }
  ~Room() { deallocate(data_); }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  Item* get() const { return data_; }

 private:
  Item* data_;
};

constexpr int64_t kFew = 32;            // sorted by insertion
constexpr int64_t kScan = 16;           // elements looked at one by one where there may be a candidate
constexpr int64_t kLongRow = 1 << 14;   // from here on digits of 11 bits pay, whose tables are larger
constexpr int64_t kSharedRow = 1 << 16; // from here on several threads sort one row

template <class Pack> void insertion_sort(typename Pack::Item* items, int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const typename Pack::Item moved = items[i];
    int64_t k = i;
    for (; k > 0 && moved < items[k - 1]; --k) items[k] = items[k - 1];
    items[k] = moved;
  }
}

// Least significant digit first, each pass stable; returns which of the two arrays holds the result.
template <class Pack, int kBits> typename Pack::Item* radix_sort(typename Pack::Item* items, typename Pack::Item* other, int64_t n) {
  using Key = decltype(Pack::key(items[0]));
  constexpr int kPasses = (8 * static_cast<int>(sizeof(Key)) + kBits - 1) / kBits, kBuckets = 1 << kBits;
  uint32_t counts[kPasses][kBuckets] = {};
  for (int64_t i = 0; i < n; ++i) {
    const Key key = Pack::key(items[i]);
#pragma GCC unroll 8
    for (int p = 0; p < kPasses; ++p) ++counts[p][key >> (p * kBits) & (kBuckets - 1)];
  }
  for (int p = 0; p < kPasses; ++p) {
    uint32_t* const at = counts[p];
    if (at[Pack::key(items[0]) >> (p * kBits) & (kBuckets - 1)] == n) continue;  // all digits are equal
    uint32_t total = 0;
    for (int b = 0; b < kBuckets; ++b) {
      const uint32_t count = at[b];
      at[b] = total;
      total += count;
    }
    for (int64_t i = 0; i < n; ++i) other[at[Pack::key(items[i]) >> (p * kBits) & (kBuckets - 1)]++] = items[i];
    std::swap(items, other);
  }
  return items;
}

// The same with all threads: each counts and places the items of one part of the row. The order is the stable one, so
// the parts do not show.
template <class Pack> typename Pack::Item* shared_sort(typename Pack::Item* items, typename Pack::Item* other, int64_t n) {
  using Key = decltype(Pack::key(items[0]));
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  const int64_t parts = num_threads(), length = (n + parts - 1) / parts;
  std::vector<uint32_t> counts(static_cast<std::size_t>(parts * kBuckets));
  for (int shift = 0; shift < 8 * static_cast<int>(sizeof(Key)); shift += kBits) {
    parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        uint32_t* const count = &counts[static_cast<std::size_t>(t * kBuckets)];
        std::fill(count, count + kBuckets, 0u);
        for (int64_t i = t * length; i < std::min(n, (t + 1) * length); ++i) {
          ++count[Pack::key(items[i]) >> shift & (kBuckets - 1)];
        }
      }
    });
    uint32_t total = 0;
    bool moves = true;
    for (int b = 0; b < kBuckets; ++b) {
      const uint32_t before = total;
      for (int64_t t = 0; t < parts; ++t) {
        uint32_t& at = counts[static_cast<std::size_t>(t * kBuckets + b)];
        const uint32_t count = at;
        at = total;
        total += count;
      }
      moves &= total - before != n;
    }
    if (!moves) continue;
    parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        uint32_t* const at = &counts[static_cast<std::size_t>(t * kBuckets)];
        for (int64_t i = t * length; i < std::min(n, (t + 1) * length); ++i) {
          other[at[Pack::key(items[i]) >> shift & (kBuckets - 1)]++] = items[i];
        }
      }
    });
    std::swap(items, other);
  }
  return items;
}

template <class T> void load_items(const T* x, typename PackOf<T>::Item* items, int64_t begin, int64_t end, bool descending) {
  for (int64_t i = begin; i < end; ++i) items[i] = PackOf<T>::make(key_of(x[i], descending), static_cast<uint64_t>(i));
}

template <class Pack, class T>
void write_items(const T* x, const typename Pack::Item* items, T* values, int64_t* indices, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = Pack::index(items[i]);
    indices[i] = from;
    if (values) values[i] = x[from];
  }
}

// `key(x)` gives the keys that `Pack` takes.
template <class Pack, class T, class KeyOf>
void sort_by(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, KeyOf key) {
  using Item = typename Pack::Item;
  const auto load = [key](const T* row, Item* items, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) items[i] = Pack::make(key(row[i]), static_cast<uint64_t>(i));
  };
  if (n >= kSharedRow && num_threads() > 1 && rows < num_threads()) {
    const Room<Item> first(n), second(n);
    for (int64_t r = 0; r < rows; ++r, x += n, indices += n, values = values ? values + n : nullptr) {
      parallel_for(0, n, kGrain, [&](int64_t b, int64_t e) { load(x, first.get(), b, e); });
      const Item* const sorted = shared_sort<Pack>(first.get(), second.get(), n);
      parallel_for(0, n, kGrain, [&](int64_t b, int64_t e) { write_items<Pack>(x, sorted, values, indices, b, e); });
    }
    return;
  }
  parallel_for(0, rows, kGrain / 8 / n + 1, [=](int64_t begin, int64_t end) {
    const Room<Item> first(n), second(n);
    for (int64_t r = begin; r < end; ++r) {
      const T* const row = x + r * n;
      Item* sorted = first.get();
      load(row, sorted, 0, n);
      if (n <= kFew) insertion_sort<Pack>(sorted, n);
      else if (n < kLongRow) sorted = radix_sort<Pack, 8>(sorted, second.get(), n);
      else sorted = radix_sort<Pack, 11>(sorted, second.get(), n);
      write_items<Pack>(row, sorted, values ? values + r * n : nullptr, indices + r * n, 0, n);
    }
  });
}

template <class T>
void sort_of(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, bool descending) {
  if constexpr (std::is_same_v<T, int64_t>) {
    // Most integers in use span less than 2^32: half the memory to move.
    const auto ends = std::minmax_element(x, x + rows * n);
    const uint64_t least = static_cast<uint64_t>(*ends.first), greatest = static_cast<uint64_t>(*ends.second);
    if (greatest - least <= 0xffffffffu) {
      return sort_by<Narrow>(x, values, indices, rows, n, [=](int64_t v) {
        return static_cast<uint32_t>(descending ? greatest - static_cast<uint64_t>(v) : static_cast<uint64_t>(v) - least);
      });
    }
  }
  sort_by<PackOf<T>>(x, values, indices, rows, n, [=](T v) { return key_of(v, descending); });
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
  using Pack = PackOf<T>;
  int64_t found = std::min(room, n), i = found;
  load_items(x, items, 0, found, descending);
  while (i < n) {
    std::nth_element(items, items + k - 1, items + found);
    found = k;
    const auto bar = Pack::key(items[k - 1]);
    const T last = x[Pack::index(items[k - 1])];
    while (i < n && found < room) {
      i += none_before(x + i, n - i, last, descending);
      for (const int64_t end = std::min(n, i + kScan); i < end && found < room; ++i) {
        const auto key = key_of(x[i], descending);
        items[found] = Pack::make(key, static_cast<uint64_t>(i));  // no branch: it would be a guess
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
    const Room<typename PackOf<T>::Item> items(room);
    for (int64_t r = begin; r < end; ++r) {
      first_of_row(x + r * n, items.get(), room, n, k, descending);
      write_items<PackOf<T>>(x + r * n, items.get(), values + r * k, indices + r * k, 0, k);
    }
  });
}

// The item of rank k. Of long rows only those are compared that share the leading digit of that rank.
template <class T> int64_t rank_of_row(const T* x, typename PackOf<T>::Item* items, int64_t n, int64_t k) {
  using Pack = PackOf<T>;
  int64_t found = 0;
  if (n < kLongRow) {
    load_items(x, items, 0, n, false);
    found = n;
  } else {
    constexpr int kBits = 11, kShift = 8 * static_cast<int>(sizeof(T)) - kBits;
    std::vector<int64_t> counts(1 << kBits);
    for (int64_t i = 0; i < n; ++i) ++counts[key_of(x[i], false) >> kShift];
    std::size_t digit = 0;
    while (k >= counts[digit]) k -= counts[digit++];
    for (int64_t i = 0; i < n; ++i) {
      const auto key = key_of(x[i], false);
      if (key >> kShift == digit) items[found++] = Pack::make(key, static_cast<uint64_t>(i));
    }
  }
  std::nth_element(items, items + k, items + found);
  return Pack::index(items[k]);
}

template <class T>
void rank_of(const T* x, T* values, int64_t* indices, int64_t rows, int64_t n, int64_t k, bool nan_wins) {
  parallel_for(0, rows, kGrain / 4 / n + 1, [=](int64_t begin, int64_t end) {
    const Room<typename PackOf<T>::Item> items(n);
    for (int64_t r = begin; r < end; ++r) {
      const T* const row = x + r * n;
      int64_t nan = n;
      if (nan_wins) nan = std::find_if(row, row + n, [](T value) { return value != value; }) - row;
      indices[r] = nan < n ? nan : rank_of_row(row, items.get(), n, k);
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
