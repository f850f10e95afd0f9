#include "copy.h"

#include <algorithm>
#include <cstring>

#include "memory.h"
#include "pointwise.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t kTaskBytes = 128 << 10;  // the least worth a thread

// Dimensions of length 1 and the order of the axes are gone; the last one is the innermost of `out`.
struct Plan {
  int dims = 0;
  int64_t shape[kMostCopyDims], out[kMostCopyDims], in[kMostCopyDims];

  void erase(int d) {
    for (int k = d; k + 1 < dims; ++k) {
      shape[k] = shape[k + 1];
      out[k] = out[k + 1];
      in[k] = in[k + 1];
    }
    --dims;
  }
};

int64_t size_of(int64_t stride) { return stride < 0 ? -stride : stride; }

// Sorted by the strides of `out`, those of `in` where they are equal, the largest first.
bool before(const Plan& p, int a, int b) {
  const int64_t x = p.out[a], y = p.out[b];
  return x != y ? x > y : size_of(p.in[a]) > size_of(p.in[b]);
}

void sort_dims(Plan& p) {
  for (int i = 1; i < p.dims; ++i) {
    for (int k = i; k > 0 && before(p, k, k - 1); --k) {
      std::swap(p.shape[k], p.shape[k - 1]);
      std::swap(p.out[k], p.out[k - 1]);
      std::swap(p.in[k], p.in[k - 1]);
    }
  }
}

void merge_dims(Plan& p) {
  for (int d = p.dims - 1; d > 0; --d) {
    if (p.out[d - 1] == p.out[d] * p.shape[d] && p.in[d - 1] == p.in[d] * p.shape[d]) {
      p.shape[d] *= p.shape[d - 1];
      p.erase(d - 1);
    }
  }
}

// Adjacent items that stay adjacent are one larger item, if all steps are multiples of it in size.
int64_t widen_item(Plan& p, int64_t item) {
  const int last = p.dims - 1;
  if (p.dims < 2 || p.out[last] != item || p.in[last] != item) return item;
  const int64_t wide = item * p.shape[last];
  if (wide > 8 || (wide & (wide - 1))) return item;
  --p.dims;
  return wide;
}

int size_index(int64_t item) { return item == 1 ? 0 : item == 2 ? 1 : item == 4 ? 2 : 3; }

// Offsets of the element with this number, of the first `dims` dimensions.
void offsets(const Plan& p, int dims, int64_t number, int64_t& out, int64_t& in) {
  out = in = 0;
  for (int d = dims - 1; d >= 0; --d) {
    const int64_t at = number % p.shape[d];
    number /= p.shape[d];
    out += at * p.out[d];
    in += at * p.in[d];
  }
}

int64_t product(const Plan& p, int dims) {
  int64_t count = 1;
  for (int d = 0; d < dims; ++d) count *= p.shape[d];
  return count;
}

// The innermost dimension runs along lines (or, where both are adjacent, runs of bytes); the next one counts them.
void copy_lines(char* out, const char* in, const Plan& p, int64_t item, bool past_cache) {
  const int last = p.dims - 1, next = last - 1;
  const int64_t n = p.shape[last], lines = product(p, last);
  const int64_t os = p.out[last], is = p.in[last];
  const bool runs = os == item && is == item;
  if (lines == 1 && runs && past_cache) {
    parallel_for(0, n * item, kTaskBytes, [&](int64_t begin, int64_t end) {
      copy_kernels().rows(out + begin, in + begin, 1, end - begin, 0, 0, true);
    });
    return;
  }
  if (lines == 1) {
    parallel_for(0, n, kTaskBytes / item, [&](int64_t begin, int64_t end) {
      char* const to = out + begin * os;
      const char* const from = in + begin * is;
      if (runs) std::memcpy(to, from, static_cast<std::size_t>((end - begin) * item));
      else copy_kernels().lines[size_index(item)](to, from, 1, end - begin, 0, 0, os, is);
    });
    return;
  }
  parallel_for(0, lines, kTaskBytes / (n * item) + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      int64_t to, from;
      offsets(p, last, begin, to, from);
      const int64_t count = std::min(end - begin, p.shape[next] - begin % p.shape[next]);
      if (runs) {
        copy_kernels().rows(out + to, in + from, count, n * item, p.out[next], p.in[next], past_cache);
      } else {
        copy_kernels().lines[size_index(item)](out + to, in + from, count, n, p.out[next], p.in[next], os, is);
      }
      begin += count;
    }
  });
}

// `p` without its last dimension (the rows, adjacent in `out`) and the one called `across` (adjacent in `in`) numbers
// planes, which are cut into blocks: of few columns, so that the pages written at a time stay few.
void copy_planes(char* out, const char* in, Plan p, int across, int64_t item, bool past_cache) {
  const int64_t columns = p.shape[across], out_step = p.out[across];
  const int64_t rows = p.shape[p.dims - 1], in_step = p.in[p.dims - 1];
  --p.dims;
  p.erase(across);
  const int64_t wide = std::min(columns, std::max<int64_t>(256, 8192 / rows));
  const int64_t high = std::min(rows, std::max<int64_t>(64, (256 << 10) / (wide * item) / 64 * 64));
  const int64_t over = (columns + wide - 1) / wide, down = (rows + high - 1) / high;
  const int64_t planes = product(p, p.dims), grain = kTaskBytes / (wide * high * item) + 1;
  parallel_for(0, planes * over * down, grain, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t r = task % down * high, c = task / down % over * wide;
      int64_t to, from;
      offsets(p, p.dims, task / down / over, to, from);
      copy_kernels().transpose[size_index(item)](out + to + c * out_step + r * item, in + from + r * in_step + c * item,
                                                 std::min(high, rows - r), std::min(wide, columns - c), out_step,
                                                 in_step, past_cache);
    }
  });
}

}  // namespace

void copy_strided(char* out, const char* in, int dims, const int64_t* shape, const int64_t* out_strides,
                  const int64_t* in_strides, int64_t item) {
  Plan p;
  int64_t bytes = item;
  for (int d = 0; d < dims; ++d) {
    bytes *= shape[d];
    if (shape[d] <= 1) continue;
    const bool down = out_strides[d] < 0;
    if (down) {  // walk the other way
      out += (shape[d] - 1) * out_strides[d];
      in += (shape[d] - 1) * in_strides[d];
    }
    p.shape[p.dims] = shape[d];
    p.out[p.dims] = down ? -out_strides[d] : out_strides[d];
    p.in[p.dims] = down ? -in_strides[d] : in_strides[d];
    ++p.dims;
  }
  if (bytes == 0) return;
  if (item == 16) {  // as two items side by side
    p.shape[p.dims] = 2;
    p.out[p.dims] = p.in[p.dims] = item = 8;
    ++p.dims;
  }
  if (p.dims == 0) {
    std::memcpy(out, in, static_cast<std::size_t>(item));
    return;
  }
  sort_dims(p);
  merge_dims(p);
  item = widen_item(p, item);
  const bool past_cache = bytes >= kPastCacheBytes;
  const int last = p.dims - 1;
  if (p.out[last] == item && p.in[last] != item && p.in[last] != 0) {
    for (int d = last - 1; d >= 0; --d) {
      if (p.in[d] == item) return copy_planes(out, in, p, d, item, past_cache);
    }
  }
  copy_lines(out, in, p, item, past_cache);
}

namespace {

constexpr int64_t kBlock = 1024;  // elements on the way between two types; a multiple of kGroup

constexpr PointwiseOp kToValue[kValueTypes] = {PointwiseOp::to_f32, PointwiseOp::to_f64, PointwiseOp::to_i32,
                                               PointwiseOp::to_i64, PointwiseOp::to_b8};
constexpr Storage kPlainStorage[kValueTypes] = {Storage::f32, Storage::f64, Storage::i32, Storage::i64, Storage::b8};

void convert_range(char* out, Storage to, const char* in, Storage from, int64_t count) {
  if (from == Storage::u8 && to == Storage::f32) {  // images; at once, not through integers in a buffer
    return copy_kernels().bytes_to_floats(reinterpret_cast<float*>(out), reinterpret_cast<const std::uint8_t*>(in),
                                          count);
  }
  const PointwiseKernels& k = pointwise_kernels();
  const ValueType a = kValueOf[static_cast<int>(from)], b = kValueOf[static_cast<int>(to)];
  const bool loads = kPlainStorage[static_cast<int>(a)] != from, stores = kPlainStorage[static_cast<int>(b)] != to;
  const PointwiseKernel change = a == b ? nullptr : k.ops[static_cast<int>(kToValue[static_cast<int>(b)])][static_cast<int>(a)];
  const int64_t from_bytes = kStorageBytes[static_cast<int>(from)], to_bytes = kStorageBytes[static_cast<int>(to)];
  alignas(64) char first[kBlock * 8], second[kBlock * 8];
  for (int64_t i = 0; i < count; i += kBlock, in += kBlock * from_bytes, out += kBlock * to_bytes) {
    const int64_t n = std::min(kBlock, count - i), whole = n / kGroup * kGroup;
    const char* value = in;
    if (loads) {
      char* const target = change || stores ? first : out;
      k.load[static_cast<int>(from)](target, in, n);
      value = target;
    }
    if (change) {
      // Straight from or to memory for whole groups; the rest of a group goes through a buffer.
      const int64_t unit = kValueBytes[static_cast<int>(a)], result = kValueBytes[static_cast<int>(b)];
      char* const target = stores ? second : out;
      PointwiseArgs args = {target, {value}, {kGroup * unit}, whole / kGroup, 0};
      if (whole) change(args);
      if (whole < n) {
        alignas(64) char rest[kGroup * 8] = {}, changed[kGroup * 8];
        std::memcpy(rest, value + whole * unit, static_cast<std::size_t>((n - whole) * unit));
        args.out = changed;
        args.in[0] = rest;
        args.groups = 1;
        change(args);
        std::memcpy(target + whole * result, changed, static_cast<std::size_t>((n - whole) * result));
      }
      value = target;
    }
    if (stores) k.store[static_cast<int>(to)](out, value, n);
  }
}

}  // namespace

void convert(char* out, Storage to, const char* in, Storage from, int64_t count) {
  const int64_t from_bytes = kStorageBytes[static_cast<int>(from)], to_bytes = kStorageBytes[static_cast<int>(to)];
  if (from == to) return copy_bytes(out, in, static_cast<std::size_t>(count * to_bytes));
  parallel_for(0, (count + kBlock - 1) / kBlock, kGrain / kBlock * 2, [=](int64_t begin, int64_t end) {
    const int64_t first = begin * kBlock, n = std::min(count, end * kBlock) - first;
    convert_range(out + first * to_bytes, to, in + first * from_bytes, from, n);
  });
}

void copy_triangle(char* out, const char* in, int64_t planes, int64_t rows, int64_t columns, int64_t item,
                   int64_t diagonal, bool lower) {
  if (columns == 0) return;
  parallel_for(0, planes * rows, kTaskBytes / (columns * item) + 1, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      // Columns before `cut` belong to the lower part.
      const int64_t cut = std::clamp<int64_t>(r % rows + diagonal + (lower ? 1 : 0), 0, columns) * item;
      char* const to = out + r * columns * item;
      const char* const from = in + r * columns * item;
      const std::size_t low = static_cast<std::size_t>(cut), high = static_cast<std::size_t>(columns * item - cut);
      if (lower) {
        std::memcpy(to, from, low);
        std::memset(to + cut, 0, high);
      } else {
        std::memset(to, 0, low);
        std::memcpy(to + cut, from + cut, high);
      }
    }
  });
}

namespace {

template <class T> void ramp_of(T* out, int64_t count, int64_t turn, double start, double step, double end) {
  parallel_for(0, (count + kBlock - 1) / kBlock, kGrain / kBlock * 2, [=](int64_t begin, int64_t stop) {
    for (int64_t b = begin; b < stop; ++b) {
      const int64_t first = b * kBlock, n = std::min(kBlock, count - first);
      const int rising = static_cast<int>(std::clamp<int64_t>(turn - first, 0, n)), all = static_cast<int>(n);
      const double up = static_cast<double>(first), down = static_cast<double>(count - 1 - first);
      T* const to = out + first;
      for (int i = 0; i < rising; ++i) to[i] = static_cast<T>(start + step * (up + i));
      for (int i = rising; i < all; ++i) to[i] = static_cast<T>(end - step * (down - i));
    }
  });
}

}  // namespace

void ramp(float* out, int64_t count, int64_t turn, double start, double step, double end) {
  ramp_of(out, count, turn, start, step, end);
}
void ramp(double* out, int64_t count, int64_t turn, double start, double step, double end) {
  ramp_of(out, count, turn, start, step, end);
}
void ramp(int64_t* out, int64_t count, int64_t start, int64_t step) {
  parallel_for(0, count, kGrain, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = start + step * i;
  });
}

}  // namespace pyframe
