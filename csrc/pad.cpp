#include "pad.h"

#include <algorithm>

#include "copy.h"
#include "sizes.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

using std::int64_t;

constexpr int64_t kTaskBytes = 128 << 10;  // the least worth a thread

struct Lines {
  int64_t items;
  int size;

  explicit Lines(int64_t item) : items(item), size(item == 1 ? 0 : item == 2 ? 1 : item == 4 ? 2 : 3) {}
  // `count` lines of n items beside each other, `step` bytes apart, from lines that are `in_step` apart.
  void copy(char* out, const char* in, int64_t count, int64_t n, int64_t step, int64_t in_step, int64_t in_item) const {
    copy_kernels().lines[size](out, in, count, n, step, in_step, items, in_item);
  }
  void fill(char* out, const char* value, int64_t count, int64_t n, int64_t step) const {
    if (n > 0) copy(out, value, count, n, step, 0, 0);
  }
};

// One dimension of the output: where the input's elements are in it, and how many of them.
struct Part {
  int64_t size, length, before, after;  // of the input, of the output; the widths

  Part(int64_t n, int64_t left, int64_t right) : size(n), length(n + left + right), before(left), after(right) {}
  int64_t begin() const { return std::max<int64_t>(before, 0); }
  int64_t end() const { return length - std::max<int64_t>(after, 0); }
};

// The input's index at index `i` of the output; -1: none.
int64_t source(const Part& p, int64_t i, Border border) {
  const int64_t k = i - p.before, last = p.size - 1;
  if (k >= 0 && k <= last) return k;
  switch (border) {
    case Border::constant: break;
    case Border::reflect: return k < 0 ? -k : 2 * last - k;
    case Border::replicate: return k < 0 ? 0 : last;
    case Border::circular: return k < 0 ? k + p.size : k - p.size;
  }
  return -1;
}

struct Job {
  Border border;
  Part rows, columns;
  Lines lines;
  const char* value;
  bool past_cache;

  int64_t out_step() const { return columns.length * lines.items; }
  int64_t in_step() const { return columns.size * lines.items; }

  // Rows [begin, end) of the input's, which lie together, into the same number of rows from `out`.
  void inner(char* out, const char* plane, int64_t first, int64_t count) const {
    const char* const in = plane + first * in_step() + std::max<int64_t>(-columns.before, 0) * lines.items;
    const int64_t bytes = (columns.end() - columns.begin()) * lines.items;
    char* const to = out + columns.begin() * lines.items;
    const bool whole = bytes == in_step() && bytes == out_step();
    copy_kernels().rows(to, in, whole ? 1 : count, whole ? bytes * count : bytes, out_step(), in_step(), past_cache);
  }

  // Rows [begin, end) of an output plane of which `plane` is the input's (none: all of it is border), to `out`.
  void constant(char* out, const char* plane, int64_t begin, int64_t end) const {
    const int64_t first = std::max(begin, rows.begin()), last = std::min(end, rows.end());
    const int64_t left = columns.begin(), right = columns.end(), wide = columns.length;
    if (!plane || first >= last || left >= right) return lines.fill(out, value, 1, (end - begin) * wide, 0);
    char* const at = out + (first - begin) * out_step();
    inner(at, plane, first - rows.before, last - first);
    // The end of a row and the begin of the next are one run.
    lines.fill(out, value, 1, (first - begin) * wide + left, 0);
    lines.fill(at + right * lines.items, value, last - first - 1, left + wide - right, out_step());
    lines.fill(at + ((last - first - 1) * wide + right) * lines.items, value, 1, (end - last + 1) * wide - right, 0);
  }

  void repeated(char* out, const char* plane, int64_t begin, int64_t end) const {
    const int64_t first = std::clamp(rows.begin(), begin, end), last = std::clamp(rows.end(), begin, end);
    const auto row = [&](int64_t r) { inner(out + (r - begin) * out_step(), plane, source(rows, r, border), 1); };
    for (int64_t r = begin; r < first; ++r) row(r);
    if (first < last) inner(out + (first - begin) * out_step(), plane, first - rows.before, last - first);
    for (int64_t r = last; r < end; ++r) row(r);
    // The sides come from what is now between them: n items from the output's column `to`, from column `from` on.
    const auto side = [&](int64_t to, int64_t from, int64_t n, int64_t step) {
      const int64_t item = lines.items;
      if (n > 0) lines.copy(out + to * item, out + from * item, end - begin, n, out_step(), out_step(), step * item);
    };
    const int64_t left = columns.begin(), right = columns.end();
    switch (border) {
      case Border::constant: break;
      case Border::reflect:
        side(0, 2 * left, left, -1);
        side(right, right - 2, columns.length - right, -1);
        break;
      case Border::replicate:
        side(0, left, left, 0);
        side(right, right - 1, columns.length - right, 0);
        break;
      case Border::circular:
        side(0, columns.size, left, 1);
        side(right, left, columns.length - right, 1);
        break;
    }
  }
};

}  // namespace

void pad(char* out, const char* in, int dims, const int64_t* shape, const int64_t* before, const int64_t* after,
         int64_t item, Border border, const char* value) {
  const auto part = [&](int from_last) {
    const int d = dims - from_last;
    return d < 0 ? Part(1, 0, 0) : Part(shape[d], before[d], after[d]);
  };
  Job job = {border, part(2), part(1), Lines(item), value, false};
  int64_t planes = 1;
  for (int d = 0; d < dims - 2; ++d) planes *= part(dims - d).length;
  const int64_t rows = job.rows.length, bytes = job.out_step();
  job.past_cache = planes * rows * bytes >= kPastCacheBytes;
  if (planes * rows * bytes == 0) return;
  parallel_for(0, planes * rows, kTaskBytes / bytes + 1, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t row = begin % rows, count = std::min(end - begin, rows - row);
      int64_t number = begin / rows, plane = 0, step = job.rows.size;
      for (int d = dims - 3; d >= 0 && plane >= 0; --d) {
        const Part p = part(dims - d);
        const int64_t at = source(p, number % p.length, border);
        plane = at < 0 ? -1 : plane + at * step;
        number /= p.length;
        step *= p.size;
      }
      char* const to = out + begin * bytes;
      const char* const from = plane < 0 ? nullptr : in + plane * job.in_step();
      border == Border::constant ? job.constant(to, from, row, row + count) : job.repeated(to, from, row, row + count);
      begin += count;
    }
  });
}

}  // namespace pyframe
