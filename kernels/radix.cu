// Sorting long rows digit by digit, and choosing their first values without sorting the others.
//
// Items (pyframe/keys.cuh) are moved to where a digit of their keys belongs, the least significant one first, eight
// bits at a time: each part of a row counts its digits, sums over the parts before give where each part's items of each
// digit go, and a part then moves its items in order (D. Merrill, A. Grimshaw, "High performance and scalable radix
// sorting", 2011). Choosing goes the other way, from the most significant digit: of the keys that begin like the one
// wanted, the counts of the next digit tell how that one goes on (T. Alabi et al., "Fast k-selection algorithms for
// graphics processing units", 2012). All counts are integers, so nothing depends on the order of blocks.
#include "pyframe/keys.cuh"

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kDigits = 256;      // one thread each
constexpr int kRowThreads = 1024;  // of the blocks that look after a row's parts; no row has more parts

// Where items come from: values, or items.
template <class T>
struct Values {
  using Element = T;
  using Item = pf::Item<T>;
  __device__ __forceinline__ static Item get(T value, int position, int descending) {
    return pf::item_of(value, position, descending);
  }
};
template <class I>
struct Items {
  using Element = I;
  using Item = I;
  __device__ __forceinline__ static Item get(I item, int, int) { return item; }
};

template <class I>
__device__ __forceinline__ unsigned digit_of(I item, int shift) {
  return static_cast<unsigned>(item.key() >> shift) % kDigits;
}

// The part of a row that a block works on.
struct Part {
  long long row;
  int number, start, end;
  __device__ __forceinline__ Part(int m, int parts, int span)
      : row(blockIdx.x / parts),
        number(static_cast<int>(blockIdx.x % parts)),
        start(number * span),
        end(start + min(span, m - start)) {}
  __device__ __forceinline__ long long counts() const { return static_cast<long long>(blockIdx.x) * kDigits; }
};

struct SumStorage {
  unsigned warps[kRowThreads / 32];
};

// The sum of the values of the threads before this one. All threads of the block, whole warps, take part.
__device__ __forceinline__ unsigned sum_before(unsigned value) {
  auto& storage = pf::shared<SumStorage>();
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  unsigned sum = value;
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const unsigned other = __shfl_up_sync(pf::kAllLanes, sum, lanes);
    if (lane >= lanes) sum += other;
  }
  if (lane == 31) storage.warps[warp] = sum;
  __syncthreads();
  sum -= value;
  for (int w = 0; w < warp; ++w) sum += storage.warps[w];
  __syncthreads();
  return sum;
}

struct CountStorage {
  unsigned counts[kDigits];
};

constexpr int kAhead = 4;  // loads of a thread under way

// Counts a warp's digits, none where it is kDigits. Equal ones are added at once: sorted values, and the upper digits of
// most, are all alike.
__device__ __forceinline__ void count_digit(unsigned digit, CountStorage& storage, int lane) {
  const unsigned peers = __match_any_sync(pf::kAllLanes, digit);
  if (digit < kDigits && __ffs(static_cast<int>(peers)) == lane + 1) atomicAdd(&storage.counts[digit], __popc(peers));
}

struct RowStorage {
  unsigned groups[kRowThreads / kDigits][kDigits];  // of a quarter of the parts
};

// Sums the counts of a digit (threadIdx.x % kDigits) over a quarter of the parts (threadIdx.x / kDigits). The result
// is that of all quarters; those of each are in the storage.
__device__ __forceinline__ unsigned sum_of_digit(const unsigned* counts, int parts, RowStorage& storage) {
  constexpr int kGroups = kRowThreads / kDigits;
  const int digit = static_cast<int>(threadIdx.x) % kDigits, group = static_cast<int>(threadIdx.x) / kDigits;
  const int share = (parts + kGroups - 1) / kGroups;
  unsigned sum = 0;
#pragma unroll 4
  for (int part = group * share; part < min(parts, (group + 1) * share); ++part) sum += counts[part * kDigits + digit];
  storage.groups[group][digit] = sum;
  __syncthreads();
  unsigned total = 0;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) total += storage.groups[g][digit];
  return total;
}

}  // namespace

// How many items of each part of a row have each digit at `shift`. A row of m items has `parts` of `span`.
template <class S>
__global__ void __launch_bounds__(256)
    radix_count(const typename S::Element* __restrict__ in, unsigned* __restrict__ counts, int m, int parts, int span,
                int shift, int descending) {
  const Part part(m, parts, span);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  auto& storage = pf::shared<CountStorage>();
  storage.counts[thread] = 0;
  __syncthreads();
  for (int base = part.start; base < part.end; base += kAhead * kThreads) {
    typename S::Element loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int j = base + kThreads * i + thread;
      if (j < part.end) loaded[i] = in[part.row * m + j];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int j = base + kThreads * i + thread;
      count_digit(j < part.end ? digit_of(S::get(loaded[i], j, descending), shift) : kDigits, storage, lane);
    }
  }
  __syncthreads();
  counts[part.counts() + thread] = storage.counts[thread];
}

// Turns the counts of a row into places in it: those of the items before, by digit, then by part. A block per row.
__global__ void __launch_bounds__(1024) radix_places(unsigned* __restrict__ counts, int parts) {
  constexpr int kGroups = kRowThreads / kDigits;
  auto& storage = pf::shared<RowStorage>();
  unsigned* const own = counts + static_cast<long long>(blockIdx.x) * parts * kDigits;
  const int digit = static_cast<int>(threadIdx.x) % kDigits, group = static_cast<int>(threadIdx.x) / kDigits;
  const unsigned total = sum_of_digit(own, parts, storage);
  unsigned before[kGroups];  // of the quarters before
  before[0] = 0;
#pragma unroll
  for (int g = 1; g < kGroups; ++g) before[g] = before[g - 1] + storage.groups[g - 1][digit];
  const unsigned first = sum_before(group == 0 ? total : 0);  // of the first quarter's threads, by digit
  if (group == 0) {
#pragma unroll
    for (int g = 0; g < kGroups; ++g) storage.groups[g][digit] = first + before[g];
  }
  __syncthreads();
  unsigned place = storage.groups[group][digit];
  const int share = (parts + kGroups - 1) / kGroups;
#pragma unroll 4
  for (int part = group * share; part < min(parts, (group + 1) * share); ++part) {
    const unsigned count = own[part * kDigits + digit];
    own[part * kDigits + digit] = place;
    place += count;
  }
}

namespace {

// Items that a block moves at a time: 24 KB of them. With 32 KB, a thread's 16 of the narrow ones spill on sm_100.
template <class I>
constexpr int kMoved = 24576 / sizeof(I);

template <class I>
struct MoveStorage {
  I items[kMoved<I>];
  unsigned warps[kWarps][kDigits];  // of a digit, in the warps before
  unsigned starts[kDigits];         // of a digit, in `items`
  unsigned shifts[kDigits];         // from there to its place in the row
};

}  // namespace

// Moves the m items of each row to their places for the digit at `shift`: to `out`, or the first `count` to values and
// indices, as results for rows of n values.
template <class S, class U>
__global__ void __launch_bounds__(256, 3)
    radix_move(const typename S::Element* __restrict__ in, const unsigned* __restrict__ places,
               typename S::Item* __restrict__ out, const U* __restrict__ x, U* __restrict__ values,
               long long* __restrict__ indices, int m, int n, int count, int parts, int span, int shift,
               int descending) {
  using I = typename S::Item;
  constexpr int kEach = kMoved<I> / kThreads;
  const Part part(m, parts, span);
  const pf::Results<U> results{x, values, indices, n, 0, count};
  auto& storage = pf::shared<MoveStorage<I>>();
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const unsigned below = (1u << lane) - 1;
  unsigned next = places[part.counts() + thread];  // of the digit of this number
  for (int tile = part.start; tile < part.end; tile += kMoved<I>) {
    I items[kEach];
    unsigned ranks[kEach];  // among the warp's items with the same digit
    for (int d = lane; d < kDigits; d += 32) storage.warps[warp][d] = 0;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int j = tile + warp * 32 * kEach + 32 * i + lane;
      items[i] = j < part.end ? S::get(in[part.row * m + j], j, descending) : I::filler();
      const unsigned digit = digit_of(items[i], shift), peers = __match_any_sync(pf::kAllLanes, digit);
      const unsigned before = storage.warps[warp][digit];
      ranks[i] = before + __popc(peers & below);
      __syncwarp();
      if ((peers & below) == 0) storage.warps[warp][digit] = before + __popc(peers);
      __syncwarp();
    }
    __syncthreads();
    unsigned total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const unsigned count = storage.warps[w][thread];
      storage.warps[w][thread] = total;
      total += count;
    }
    const unsigned start = sum_before(total);
    storage.starts[thread] = start;
    storage.shifts[thread] = next - start;
    next += total;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const unsigned digit = digit_of(items[i], shift);
      storage.items[storage.starts[digit] + storage.warps[warp][digit] + ranks[i]] = items[i];
    }
    __syncthreads();
    // What fills up the tile has the largest digit and came last: it is behind the items.
    for (int i = thread; i < min(kMoved<I>, part.end - tile); i += kThreads) {
      const I item = storage.items[i];
      const int rank = static_cast<int>(storage.shifts[digit_of(item, shift)] + static_cast<unsigned>(i));
      if (out) out[part.row * m + rank] = item;
      else results.take(part.row, rank, item.position());
    }
    __syncthreads();
  }
}

// ---------------------------------------------------------------- choosing

namespace {

// What is known of the key that is wanted in a row: its digits so far, and its rank among the keys that begin so.
struct alignas(16) Wanted {
  unsigned long long digits;
  int rank, has_nan;
};

}  // namespace

// Of the keys of each part that begin with the digits wanted, how many have each next digit, at `shift`; and how many
// keys are below those. With `look`, notes whether a row has NaN. `wanted` begins as zeros.
template <class T>
__global__ void __launch_bounds__(256)
    select_count(const T* __restrict__ x, Wanted* __restrict__ wanted, unsigned* __restrict__ counts,
                 unsigned* __restrict__ below, int n, int parts, int span, int shift, int descending, int look) {
  const Part part(n, parts, span);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const unsigned long long digits = wanted[part.row].digits;
  auto& storage = pf::shared<CountStorage>();
  storage.counts[thread] = 0;
  __syncthreads();
  unsigned less = 0;
  bool nan = false;
  for (int base = part.start; base < part.end; base += kAhead * kThreads) {
    T loaded[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int j = base + kThreads * i + thread;
      if (j < part.end) loaded[i] = x[part.row * n + j];
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int j = base + kThreads * i + thread;
      unsigned digit = kDigits;
      if (j < part.end) {
        const auto item = pf::item_of(loaded[i], j, descending);
        const unsigned long long begins = item.key() >> shift >> 8;
        less += begins < digits;
        nan = nan || item.has_largest_key();
        if (begins == digits) digit = digit_of(item, shift);
      }
      count_digit(digit, storage, lane);
    }
  }
  if (look && nan) atomicOr(&wanted[part.row].has_nan, 1);
  less = pf::block_reduce<kThreads>(less, pf::Sum());
  counts[part.counts() + thread] = storage.counts[thread];
  if (thread == 0) below[blockIdx.x] = less;
}

namespace {

struct ChoiceStorage {
  unsigned digit, rank;
};

}  // namespace

// The next digit of the key wanted, from the counts of the parts; `rank`: of the key at the first digit, else -1. At
// the last digit, `below` and `equal` become how many keys before each part are below the key wanted or equal to it, and
// `totals` how many of the row are below. A block per row.
__global__ void __launch_bounds__(1024)
    select_digit(const unsigned* __restrict__ counts, Wanted* __restrict__ wanted, unsigned* __restrict__ below,
                 unsigned* __restrict__ equal, unsigned* __restrict__ totals, int parts, int rank, int last) {
  const unsigned* const own = counts + static_cast<long long>(blockIdx.x) * parts * kDigits;
  auto& storage = pf::shared<RowStorage>();
  auto& choice = pf::shared<ChoiceStorage>();
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned total = sum_of_digit(own, parts, storage);
  const Wanted so_far = wanted[blockIdx.x];
  // The first NaN, whose key is the largest there is, if one is wanted and there.
  const unsigned place = so_far.has_nan ? 0 : static_cast<unsigned>(rank < 0 ? so_far.rank : rank);
  const unsigned first = sum_before(thread < kDigits ? total : 0);
  const bool chosen = so_far.has_nan ? thread == kDigits - 1 : first <= place && place < first + total;
  if (thread < kDigits && chosen) {
    choice.digit = static_cast<unsigned>(thread);
    choice.rank = so_far.has_nan ? 0 : place - first;
  }
  __syncthreads();
  const unsigned digit = choice.digit;
  if (thread == 0) {
    wanted[blockIdx.x] = {so_far.digits << 8 | digit, static_cast<int>(choice.rank), so_far.has_nan};
  }
  if (!last) return;
  below += static_cast<long long>(blockIdx.x) * parts;
  equal += static_cast<long long>(blockIdx.x) * parts;
  for (int part = thread / 32; part < parts; part += kRowThreads / 32) {
    unsigned less = 0;
    for (unsigned d = static_cast<unsigned>(thread % 32); d < digit; d += 32) less += own[part * kDigits + d];
    less = pf::warp_reduce(less, pf::Sum());
    if (thread % 32 == 0) {
      below[part] += less;
      equal[part] = own[part * kDigits + digit];
    }
  }
  __syncthreads();
  const bool counts_one = thread < parts;
  const unsigned less = counts_one ? below[thread] : 0, same = counts_one ? equal[thread] : 0;
  const unsigned less_before = sum_before(less), same_before = sum_before(same);
  if (counts_one) {
    below[thread] = less_before;
    equal[thread] = same_before;
  }
  if (thread == parts - 1) totals[blockIdx.x] = less_before + less;
}

namespace {

struct TakeStorage {
  unsigned below[kWarps], equal[kWarps];
};

}  // namespace

// Takes the items of a row up to that of the rank wanted, in any order: `kept` of them go to `out`. Without `out`, only
// the item of that rank, to values and indices. `shift` is that of the last digit.
template <class T, class U>
__global__ void __launch_bounds__(256)
    select_take(const T* __restrict__ x, const Wanted* __restrict__ wanted, const unsigned* __restrict__ below,
                const unsigned* __restrict__ equal, const unsigned* __restrict__ totals, pf::Item<T>* __restrict__ out,
                U* __restrict__ values, long long* __restrict__ indices, int n, int parts, int span, int shift,
                int descending, int kept) {
  const Part part(n, parts, span);
  const Wanted goal = wanted[part.row];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const unsigned earlier = (1u << lane) - 1, wanted_rank = static_cast<unsigned>(goal.rank);
  const unsigned all_below = totals[part.row];
  const pf::Results<U> results{reinterpret_cast<const U*>(x), values, indices, n, 0, 1};
  auto& storage = pf::shared<TakeStorage>();
  unsigned less = below[blockIdx.x], same = equal[blockIdx.x];  // before this block's next step
  for (int base = part.start; base < part.end; base += kThreads) {
    const int j = base + thread;
    bool is_less = false, is_same = false;
    pf::Item<T> item = pf::Item<T>::filler();
    if (j < part.end) {
      item = pf::item_of(x[part.row * n + j], j, descending);
      const unsigned long long digits = item.key() >> shift;
      is_less = out && digits < goal.digits;
      is_same = digits == goal.digits;
    }
    if (!__syncthreads_or(is_less || is_same)) continue;
    const unsigned lesses = __ballot_sync(pf::kAllLanes, is_less), sames = __ballot_sync(pf::kAllLanes, is_same);
    if (lane == 0) {
      storage.below[warp] = static_cast<unsigned>(__popc(lesses));
      storage.equal[warp] = static_cast<unsigned>(__popc(sames));
    }
    __syncthreads();
    unsigned place = less + __popc(lesses & earlier), rank = same + __popc(sames & earlier);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) {
        place += storage.below[w];
        rank += storage.equal[w];
      }
      less += storage.below[w];
      same += storage.equal[w];
    }
    if (!out) {
      if (is_same && rank == wanted_rank) results.take(part.row, 0, item.position());
    } else if (is_less) {
      out[part.row * kept + place] = item;
    } else if (is_same && rank <= wanted_rank) {
      out[part.row * kept + all_below + rank] = item;
    }
  }
}
