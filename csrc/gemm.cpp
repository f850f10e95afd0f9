#include "gemm.h"

#include <algorithm>

#include "gemm_pairs.h"
#include "gemm_scratch.h"
#include "gemm_table.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

// Blocking. K is cut into parts of about kDepth: a panel of the factor in the inner loop takes half of the first-level
// cache. A strip (the panels that one thread streams over) takes a part of the second-level cache, what all threads
// share a part of the third-level cache. Only the cut of K has an effect on the bits of the result.
template <class T>
constexpr int64_t kDepth = sizeof(T) == 8 ? 256 : 384;
constexpr int64_t kStripBytes = 256 << 10;
constexpr int64_t kSharedBytes = 4 << 20;
constexpr int64_t kStreamBytes = 2 << 20;  // a matrix larger than this is not in the second-level cache

// A product is split among up to so many threads where the factor that each of them then packs for itself is no larger.
constexpr int64_t kSplitThreads = 4, kSplitBytes = 640 << 10;

// Operations below which a second thread costs more than it saves.
constexpr int64_t kThreadWork = 1 << 19;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// n cut into the fewest parts of at most `most`, as equal as possible: the length of a part.
constexpr int64_t even_part(int64_t n, int64_t most) { return n > most ? ceil_div(n, ceil_div(n, most)) : n; }

template <class T>
const GemmKernels<T>& kernels() {
  if constexpr (sizeof(T) == 8) return gemm_kernels().f64;
  else return gemm_kernels().f32;
}

// The kernels for a product.
template <class T>
const GemmKernels<T>& kernels(const Gemm<T>& p) {
  if constexpr (sizeof(T) == 4) {
    if (p.left.pairs_of) return *pair_kernels();
  }
  return kernels<T>();
}

template <class T>
bool is_matrix(const Factor<T>& f) {
  return !f.pack && f.type == (sizeof(T) == 8 ? Element::float64 : Element::float32);
}

template <class T>
const T* at(const Factor<T>& f, int64_t line, int64_t k) {
  return static_cast<const T*>(f.data) + line * f.line_stride + k * f.depth_stride;
}

template <class T>
bool is_plain(const Gemm<T>& p) {
  return p.alpha == 1 && p.beta == 0 && !p.row_bias && !p.column_bias && !p.residual && !p.map && !p.half &&
         p.activation == Activation::none && p.segment == 0;
}

// How a product is cut, and which factors are read where they lie.
template <class T>
struct Plan {
  const GemmKernels<T>& use;
  int64_t height;  // of a row panel
  int64_t depth;   // of a part of K
  bool left_direct, right_direct;
  int64_t threads;  // that work on it

  explicit Plan(const Gemm<T>& p) : use(kernels(p)) {
    threads = p.m * p.n * p.k > kThreadWork && !in_parallel() ? num_threads() : 1;
    height = even_height(p.m, use.rows, threads);
    depth = std::max<int64_t>(1, even_part(p.k, kDepth<T>));
    // Packing costs about as much as multiplying with a few lines, so a factor that meets few is read where it lies,
    // as long as what the inner loop reads again and again stays in the first-level cache.
    const int64_t part = static_cast<int64_t>(sizeof(T)) * depth;
    left_direct = is_matrix(p.left) && p.n * static_cast<int64_t>(sizeof(T)) <= 512 &&
                  (part * p.m <= (64 << 10) || (p.left.depth_stride == 1 && spreads(p.left.line_stride)));
    right_direct = is_matrix(p.right) && p.right.line_stride == 1 &&
                   (part * p.n <= (64 << 10) || (p.m <= 2 * use.rows && part * p.n <= kStreamBytes));
  }

  // Row panels as equal as possible, and as many for each thread, where lower panels make that possible.
  static int64_t even_height(int64_t m, int64_t most, int64_t threads) {
    const int64_t panels = ceil_div(ceil_div(m, most), threads) * threads;
    const int64_t height = ceil_div(m, panels);
    return std::max<int64_t>(1, 3 * height >= 2 * most ? height : even_part(m, most));
  }

  // Whether lines this far apart lie in different places of the cache; at multiples of 2 KB they compete for the same.
  static bool spreads(int64_t stride) {
    const int64_t bytes = (stride < 0 ? -stride : stride) * static_cast<int64_t>(sizeof(T)) % 2048;
    return bytes >= 128 && bytes <= 2048 - 128;
  }

  GemmBlock<T> block(const Gemm<T>& p, int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t k,
                     int64_t part) const {
    GemmBlock<T> b{};
    b.row = row, b.rows = rows, b.column = column, b.columns = columns, b.depth = part;
    b.height = height;
    b.first = k == 0, b.last = k + part >= p.k;
    return b;
  }

  // Points a block at a left factor packed at `packed`, or, with nullptr, where it lies.
  void set_left(GemmBlock<T>& b, const Gemm<T>& p, int64_t k, const T* packed) const {
    if (packed) {
      b.left = packed, b.left_line = 1, b.left_depth = height, b.left_panel = height * b.depth;
    } else {
      b.left = at(p.left, b.row, p.k_begin + k);
      b.left_line = p.left.line_stride, b.left_depth = p.left.depth_stride;
      b.left_panel = height * p.left.line_stride;
    }
  }

  // The same for the right factor; `tail` has room for one panel, for the last one if it is not complete.
  void set_right(GemmBlock<T>& b, const Gemm<T>& p, int64_t k, const T* packed, T* tail) const {
    const int64_t width = use.columns, rest = b.columns % width;
    if (packed) {
      b.right = packed, b.right_depth = width, b.right_panel = width * b.depth;
    } else {
      b.right = at(p.right, b.column, p.k_begin + k);
      b.right_depth = p.right.depth_stride, b.right_panel = width;
      if (rest) {
        use.pack(p.right, b.column + b.columns - rest, rest, p.k_begin + k, b.depth, width, tail);
        b.right_tail = tail, b.right_tail_depth = width;
      }
    }
  }
};

// Lines [0, lines) of a factor, elements [k, k + parts), packed part after part by all threads.
template <class T>
void pack_shared(const Gemm<T>& p, const Plan<T>& plan, const Factor<T>& factor, int64_t line, int64_t lines, int64_t k,
                 int64_t depth, int64_t width, T* packed) {
  const int64_t panels = ceil_div(lines, width), parts = ceil_div(depth, plan.depth);
  const int64_t grain = plan.threads > 1 ? std::max<int64_t>(1, (1 << 14) / (width * plan.depth)) : panels * parts;
  parallel_for(0, panels * parts, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t part = i / panels * plan.depth, panel = i % panels * width;
      const int64_t here = std::min(plan.depth, depth - part);
      plan.use.pack(factor, line + panel, std::min(width, lines - panel), p.k_begin + k + part, here, width,
                    packed + part * panels * width + panel * here);
    }
  });
}

// How many elements of K are packed at once of a shared factor with `lines` lines: whole parts.
template <class T>
int64_t shared_depth(const Gemm<T>& p, const Plan<T>& plan, int64_t lines) {
  const int64_t most = kSharedBytes / static_cast<int64_t>(sizeof(T)) / lines;
  return std::max<int64_t>(1, std::min(p.k, std::max<int64_t>(1, most / plan.depth) * plan.depth));
}

// The length of a strip: whole panels that fill a part of the second-level cache; on several threads fewer, since equal
// shares of small strips differ by little.
template <class T>
int64_t strip_length(const Plan<T>& plan, int64_t lines, int64_t width) {
  const int64_t most = std::max<int64_t>(1, kStripBytes / static_cast<int64_t>(sizeof(T)) / plan.depth / width);
  const int64_t panels = std::max<int64_t>(1, ceil_div(lines, width));
  if (plan.threads == 1) return std::min(most, panels) * width;
  return std::min(most, std::max<int64_t>(1, panels / (8 * plan.threads))) * width;
}

// The left factor is packed once (in pieces of kSharedBytes) and shared; each thread streams over strips of columns.
template <class T>
void run_columns(const Gemm<T>& p, const Plan<T>& plan) {
  const int64_t width = plan.use.columns;
  const int64_t most_rows = kSharedBytes / static_cast<int64_t>(sizeof(T)) / plan.depth;
  const int64_t rows = plan.left_direct ? p.m : ceil_div(even_part(p.m, most_rows), plan.height) * plan.height;
  const int64_t depth = plan.left_direct ? std::max<int64_t>(1, p.k) : shared_depth(p, plan, rows);
  const int64_t strip = strip_length(plan, p.n, width);
  const int64_t strips = ceil_div(p.n, strip);
  PanelScratch left_memory(plan.left_direct ? 0 : rows * std::max<int64_t>(depth, 1) * sizeof(T));
  T* const shared = plan.left_direct ? nullptr : left_memory.as<T>();
  for (int64_t row = 0; row < p.m; row += rows) {
    const int64_t rows_here = std::min(rows, p.m - row);
    const int64_t padded = ceil_div(rows_here, plan.height) * plan.height;
    for (int64_t k = 0; k == 0 || k < p.k; k += depth) {
      const int64_t depth_here = std::min(depth, p.k - k);
      if (shared) pack_shared(p, plan, p.left, row, rows_here, k, depth_here, plan.height, shared);
      parallel_for(0, strips, plan.threads > 1 ? 1 : strips, [&](int64_t begin, int64_t end) {
        PanelScratch memory(std::max<int64_t>(plan.right_direct ? width : strip, 1) * plan.depth * sizeof(T));
        T* const packed = memory.as<T>();
        for (int64_t s = begin; s < end; ++s) {
          const int64_t column = s * strip, columns = std::min(strip, p.n - column);
          for (int64_t part = 0; part == 0 || part < depth_here; part += plan.depth) {
            const int64_t here = std::min(plan.depth, depth_here - part);
            GemmBlock<T> b = plan.block(p, row, rows_here, column, columns, k + part, here);
            plan.set_left(b, p, k + part, shared ? shared + part * padded : nullptr);
            if (!plan.right_direct) {
              plan.use.pack(p.right, column, columns, p.k_begin + k + part, here, width, packed);
            }
            plan.set_right(b, p, k + part, plan.right_direct ? nullptr : packed, packed);
            b.rows_inside = false;
            plan.use.multiply(p, b);
          }
        }
      });
    }
  }
}

// The same with the right factor shared and strips of rows.
template <class T>
void run_rows(const Gemm<T>& p, const Plan<T>& plan) {
  const int64_t width = plan.use.columns;
  const int64_t most_columns = kSharedBytes / static_cast<int64_t>(sizeof(T)) / plan.depth;
  const int64_t columns = plan.right_direct ? p.n : ceil_div(even_part(p.n, most_columns), width) * width;
  const int64_t depth = plan.right_direct ? plan.depth : shared_depth(p, plan, columns);
  const int64_t strip = strip_length(plan, p.m, plan.height);
  const int64_t strips = ceil_div(p.m, strip);
  PanelScratch right_memory((plan.right_direct ? width : columns) * std::max<int64_t>(depth, 1) * sizeof(T));
  T* const shared = right_memory.as<T>();
  for (int64_t column = 0; column < p.n; column += columns) {
    const int64_t columns_here = std::min(columns, p.n - column);
    const int64_t padded = ceil_div(columns_here, width) * width;
    for (int64_t k = 0; k == 0 || k < p.k; k += depth) {
      const int64_t depth_here = std::min(depth, p.k - k);
      GemmBlock<T> all = plan.block(p, 0, 0, column, columns_here, k, depth_here);
      if (plan.right_direct) plan.set_right(all, p, k, nullptr, shared);
      else pack_shared(p, plan, p.right, column, columns_here, k, depth_here, width, shared);
      parallel_for(0, strips, plan.threads > 1 ? 1 : strips, [&](int64_t begin, int64_t end) {
        PanelScratch memory(plan.left_direct ? 0 : strip * plan.depth * sizeof(T));
        T* const packed = plan.left_direct ? nullptr : memory.as<T>();
        for (int64_t s = begin; s < end; ++s) {
          const int64_t row = s * strip, rows_here = std::min(strip, p.m - row);
          for (int64_t part = 0; part == 0 || part < depth_here; part += plan.depth) {
            const int64_t here = std::min(plan.depth, depth_here - part);
            GemmBlock<T> b = plan.block(p, row, rows_here, column, columns_here, k + part, here);
            if (packed) plan.use.pack(p.left, row, rows_here, p.k_begin + k + part, here, plan.height, packed);
            plan.set_left(b, p, k + part, packed);
            if (plan.right_direct) {
              b.right = all.right, b.right_depth = all.right_depth, b.right_panel = all.right_panel;
              b.right_tail = all.right_tail, b.right_tail_depth = all.right_tail_depth;
            } else {
              plan.set_right(b, p, k + part, shared + part * padded, nullptr);
            }
            b.rows_inside = true;
            plan.use.multiply(p, b);
          }
        }
      });
    }
  }
}

// The part of the time in which no thread waits for others, where each takes whole panels.
double balance(int64_t panels, int64_t threads) {
  return static_cast<double>(panels) / static_cast<double>(ceil_div(panels, threads) * threads);
}

// Sharing the smaller factor saves packing; but threads want equal numbers of panels.
template <class T>
void run_blocked(const Gemm<T>& p);

// Rows [row, row + rows) and columns [column, column + columns) of a product of strided matrices.
template <class T>
Gemm<T> part_of(const Gemm<T>& p, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  Gemm<T> part = p;
  part.m = rows, part.n = columns;
  const auto moved = [](const Factor<T>& f, int64_t line) -> const void* {
    const bool half = f.type == Element::float16 || f.type == Element::bfloat16;
    return static_cast<const char*>(f.data) + line * f.line_stride * (half ? 2 : static_cast<int64_t>(sizeof(T)));
  };
  part.left.data = moved(p.left, row), part.right.data = moved(p.right, column);
  const int64_t offset = row * p.row_stride + column * p.column_stride;
  if (p.c) part.c = p.c + offset;
  if (p.residual) part.residual = p.residual + offset;
  if (p.half) part.half = static_cast<char*>(p.half) + 2 * offset;
  if (p.row_bias) part.row_bias = p.row_bias + row;
  if (p.column_bias) part.column_bias = p.column_bias + column;
  return part;
}

// Each thread computes its own part of C on its own, panels of both factors included: fetching panels that others packed
// from their caches, and a second loop, cost more than packing (256 × 256 × 256 on two threads: 173 µs, so 151 µs).
template <class T>
void run_split(const Gemm<T>& p, bool by_columns, int64_t unit, int64_t threads) {
  const int64_t length = by_columns ? p.n : p.m, panels = ceil_div(length, unit);
  parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = std::min(length, i * panels / threads * unit);
      const int64_t last = std::min(length, (i + 1) * panels / threads * unit);
      if (first == last) continue;
      run_blocked(by_columns ? part_of(p, 0, p.m, first, last - first) : part_of(p, first, last - first, 0, p.n));
    }
  });
}

template <class T>
void run_blocked(const Gemm<T>& p) {
  const Plan<T> plan(p);
  const double columns = balance(ceil_div(p.n, plan.use.columns), plan.threads);
  const double rows = balance(ceil_div(p.m, plan.height), plan.threads);
  const bool by_columns = p.m <= p.n ? columns > 0.9 * rows : rows <= 0.9 * columns;
  const int64_t repeated = (by_columns ? p.m : p.n) * p.k * static_cast<int64_t>(sizeof(T));
  if (plan.threads > 1 && plan.threads <= kSplitThreads && repeated <= kSplitBytes && p.segment == 0 && !p.left.pack &&
      !p.right.pack) {
    return run_split(p, by_columns, by_columns ? plan.use.columns : plan.height, plan.threads);
  }
  if (by_columns) run_columns(p, plan);
  else run_rows(p, plan);
}

// ---- thin products

// `few` is the factor with at most kThin lines; `few_left`: it is the left one.
template <class T>
void run_thin(const Gemm<T>& p, bool few_left) {
  const GemmKernels<T>& use = kernels<T>();
  const Factor<T>&few = few_left ? p.left : p.right, &big = few_left ? p.right : p.left;
  const int64_t count = few_left ? p.m : p.n, lines = few_left ? p.n : p.m;
  const bool dot = big.depth_stride == 1;
  const bool in_place = is_matrix(few) && few.depth_stride == 1 && (few.line_stride == p.k || count == 1);
  PanelScratch few_memory(in_place ? 0 : count * p.k * sizeof(T));
  const T* packed = few_memory.as<T>();
  if (in_place) packed = at(few, 0, p.k_begin);
  else use.pack(few, 0, count, p.k_begin, p.k, 1, few_memory.as<T>());

  const int64_t out_few = few_left ? p.row_stride : p.column_stride;
  const int64_t out_line = few_left ? p.column_stride : p.row_stride;
  const bool straight = is_plain(p) && (dot || out_line == 1);
  const int64_t share = ceil_div(ceil_div(lines, num_threads()), 64) * 64;
  const int64_t chunk = dot ? 256 : std::clamp<int64_t>(share, 128, 1024);
  const int64_t chunks = ceil_div(lines, chunk);
  const int64_t grain = std::max<int64_t>(1, kThreadWork / 4 / std::max<int64_t>(1, chunk * p.k * count));
  parallel_for(0, chunks, grain, [&](int64_t begin, int64_t end) {
    PanelScratch memory(straight ? 0 : count * chunk * sizeof(T));
    for (int64_t c = begin; c < end; ++c) {
      const int64_t line = c * chunk, here = std::min(chunk, lines - line);
      T* const out = straight ? p.c + line * out_line : memory.as<T>();
      const int64_t few_step = straight ? out_few : chunk, line_step = straight ? out_line : 1;
      if (dot) use.thin_dot(packed, count, at(big, line, p.k_begin), big.line_stride, here, p.k, out, few_step, line_step);
      else use.thin_axpy(packed, count, at(big, line, p.k_begin), big.depth_stride, here, p.k, out, few_step);
      if (straight) continue;
      if (few_left) use.finish(p, 0, count, line, here, out, chunk, 1);
      else use.finish(p, line, here, 0, count, out, 1, chunk);
    }
  });
}

// Whether run_thin is the way for `count` lines of `few` and `lines` of `big`. Sums along contiguous lines always are;
// with lines side by side the microkernel, with its sums in registers, is better from a few lines on, unless the big
// factor comes from memory, which has to be read front to back.
template <class T>
bool fits_thin(const Factor<T>& few, const Factor<T>& big, int64_t count, int64_t lines, int64_t k) {
  if (count > kThin || lines <= count || k <= 0 || few.pack || few.pairs_of || !is_matrix(big)) return false;
  if (big.depth_stride == 1) return true;
  return big.line_stride == 1 && (count <= 3 || k * lines * static_cast<int64_t>(sizeof(T)) > kStreamBytes);
}

// C transposed is right transposed · left transposed.
template <class T>
Gemm<T> transposed(const Gemm<T>& p) {
  Gemm<T> t = p;
  t.m = p.n, t.n = p.m;
  t.left = p.right, t.right = p.left;
  t.row_stride = p.column_stride, t.column_stride = p.row_stride;
  t.row_bias = p.column_bias, t.column_bias = p.row_bias;
  return t;
}

template <class T>
void run_whole(const Gemm<T>& p) {
  if (fits_thin(p.left, p.right, p.m, p.n, p.k)) return run_thin(p, true);
  if (fits_thin(p.right, p.left, p.n, p.m, p.k)) return run_thin(p, false);
  // With few columns most lanes of a tile would be idle: rows are the columns of the transposed product. The packing of
  // anything but a strided matrix is bound to its side.
  if (p.n <= kThin && p.m > p.n && p.segment == 0 && !p.left.pack && !p.right.pack) return run_blocked(transposed(p));
  run_blocked(p);
}

// ---- a small result of long sums: parts of K side by side

// In how many parts K is summed: more than one where C has too few tiles for many threads. Never depends on how many
// threads there are.
template <class T>
int64_t depth_parts(const Gemm<T>& p) {
  const GemmKernels<T>& use = kernels(p);
  constexpr int64_t kParts = 8, kLeast = 1024;
  const int64_t tiles = ceil_div(p.m, use.rows) * ceil_div(p.n, use.columns);
  if (tiles > 16 || p.m * p.n * p.k < 8 * kThreadWork) return 1;
  return std::min(kParts, p.k / kLeast);
}

template <class T>
void run_parts(const Gemm<T>& p, int64_t parts) {
  const GemmKernels<T>& use = kernels(p);
  const int64_t size = p.m * p.n;
  PanelScratch memory(parts * size * sizeof(T));
  T* const sums = memory.as<T>();
  parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * p.k / parts;
      Gemm<T> part;
      part.m = p.m, part.n = p.n, part.k = (i + 1) * p.k / parts - first;
      part.left = p.left, part.right = p.right;
      part.k_begin = p.k_begin + first;
      part.c = sums + i * size;
      part.row_stride = p.n;
      run_whole(part);
    }
  });
  for (int64_t i = 1; i < parts; ++i) use.add(sums, sums + i * size, size);
  use.finish(p, 0, p.m, 0, p.n, sums, p.n, 1);
}

template <class T>
void run(const Gemm<T>& p) {
  if (p.m <= 0 || p.n <= 0) return;
  if constexpr (sizeof(T) == 4) {
    if (fits_pairs(p)) return run(paired(p));
  }
  if (p.segment == 0 && p.column_stride != 1 && p.row_stride == 1 && !p.left.pack && !p.right.pack) {
    return run(transposed(p));
  }
  if (const int64_t parts = depth_parts(p); parts > 1) return run_parts(p, parts);
  if (p.half && p.k > kDepth<T>) {
    // Sums of several parts of K meet in float32; their home is as large as C.
    PanelScratch memory(p.m * p.n * sizeof(T));
    Gemm<T> sum;
    sum.m = p.m, sum.n = p.n, sum.k = p.k, sum.k_begin = p.k_begin;
    sum.left = p.left, sum.right = p.right;
    sum.alpha = 1;
    sum.c = memory.as<T>(), sum.row_stride = p.n;
    run_whole(sum);
    return parallel_for(0, p.m, std::max<int64_t>(1, (1 << 14) / p.n), [&](int64_t begin, int64_t end) {
      kernels(p).finish(p, begin, end - begin, 0, p.n, sum.c + begin * p.n, p.n, 1);
    });
  }
  run_whole(p);
}

template <class T>
void run_batch(const Gemm<T>& first, const GemmBatch& batch) {
  int64_t count = 1;
  for (int d = 0; d < batch.dims; ++d) count *= batch.shape[d];
  const auto one = [&](int64_t index) {
    Gemm<T> p = first;
    int64_t left = 0, right = 0, c = 0;
    for (int d = batch.dims - 1; d >= 0; --d) {
      const int64_t i = index % batch.shape[d];
      index /= batch.shape[d];
      left += i * batch.left[d], right += i * batch.right[d], c += i * batch.c[d];
    }
    const auto size = [](Element type) { return type == Element::float64 ? 8 : type == Element::float32 ? 4 : 2; };
    p.left.data = static_cast<const char*>(p.left.data) + left * size(p.left.type);
    p.right.data = static_cast<const char*>(p.right.data) + right * size(p.right.type);
    if (p.c) p.c += c;
    if (p.residual) p.residual += c;
    if (p.half) p.half = static_cast<char*>(p.half) + c * 2;
    run(p);
  };
  const int64_t work = std::max<int64_t>(1, first.m * first.n * first.k);
  if (count < num_threads() && work > 8 * kThreadWork) {  // the threads work together on one after the other
    for (int64_t i = 0; i < count; ++i) one(i);
    return;
  }
  parallel_for(0, count, std::max<int64_t>(1, kThreadWork / 4 / work), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) one(i);
  });
}

}  // namespace

void gemm(const Gemm<float>& problem) { run(problem); }
void gemm(const Gemm<double>& problem) { run(problem); }
void gemm(const Gemm<float>& first, const GemmBatch& batch) { run_batch(first, batch); }
void gemm(const Gemm<double>& first, const GemmBatch& batch) { run_batch(first, batch); }

template <>
GemmTile gemm_tile<float>() { return {kernels<float>().rows, kernels<float>().columns}; }
template <>
GemmTile gemm_tile<double>() { return {kernels<double>().rows, kernels<double>().columns}; }

}  // namespace pyframe
