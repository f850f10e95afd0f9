#include "norm.h"

#include "isa/rows.h"

#define LAMBDA(...) [=](__VA_ARGS__) __attribute__((always_inline))

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

template <class T>
double sum(const T* x, int64_t n) {
  return sum_row<T>(
      n, LAMBDA(int64_t i) { return load(x + i); }, LAMBDA(int64_t i, int64_t m) { return load_part(x + i, m); });
}

template <class T>
double spread(const T* x, int64_t n, T mean) {
  const Vec<T> c = splat(mean);
  return sum_row<T>(
      n,
      LAMBDA(int64_t i) {
        const Vec<T> d = load(x + i) - c;
        return d * d;
      },
      LAMBDA(int64_t i, int64_t m) {
        const Vec<T> d = load_part(x + i, m, mean) - c;
        return d * d;
      });
}

template <class T>
void scale_shift(const T* x, T* y, int64_t n, T mean, T a, T b, bool past_cache) {
  const Vec<T> c = splat(mean), va = splat(a), vb = splat(b);
  write_row<T>(
      y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - c) * va + vb; },
      LAMBDA(int64_t i, int64_t m) { return (load_part(x + i, m) - c) * va + vb; });
}

// Two sums in one pass, emptied into doubles at fixed distances like sum_row's.
template <class T, class Full, class Part>
PYFRAME_INLINE void two_sums(int64_t n, double* out, Full full, Part part) {
  constexpr int L = kLanes<T>;
  double first = 0, second = 0;
  int64_t i = 0;
  while (i < n) {
    const int64_t end = n - i > kSumBlock ? i + kSumBlock : n;
    Vec<T> a{}, b{}, c{}, d{};
    for (; i + 2 * L <= end; i += 2 * L) {
      full(i, a, b);
      full(i + L, c, d);
    }
    for (; i + L <= end; i += L) full(i, a, b);
    if (i < end) {
      part(i, end - i, c, d);
      i = end;
    }
    first += static_cast<double>(hsum<T>(a + c));
    second += static_cast<double>(hsum<T>(b + d));
  }
  out[0] = first;
  out[1] = second;
}

template <class T>
void dots(const T* g, const T* x, int64_t n, T mean, double* out) {
  const Vec<T> c = splat(mean);
  two_sums<T>(
      n, out,
      LAMBDA(int64_t i, Vec<T>& a, Vec<T>& b) {
        const Vec<T> v = load(g + i);
        a += v;
        b += v * (load(x + i) - c);
      },
      LAMBDA(int64_t i, int64_t m, Vec<T>& a, Vec<T>& b) {
        const Vec<T> v = load_part(g + i, m);
        a += v;
        b += v * (load_part(x + i, m, mean) - c);
      });
}

template <class T>
void segment_grad(const T* g, const T* x, T* gx, int64_t n, T mean, T a, T k, T m, bool past_cache) {
  const Vec<T> c = splat(mean), va = splat(a), vk = splat(k), vm = splat(m);
  write_row<T>(
      gx, n, past_cache, LAMBDA(int64_t i) { return (load(g + i) * va - vm) - (load(x + i) - c) * vk; },
      LAMBDA(int64_t i, int64_t part) {
        return (load_part(g + i, part) * va - vm) - (load_part(x + i, part) - c) * vk;
      });
}

template <class T>
void layer(const T* x, const T* w, const T* b, T* y, T* mean, T* rstd, int64_t rows, int64_t n, double eps,
           bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const T m = static_cast<T>(sum(x, n) / static_cast<double>(n));
    const T s = static_cast<T>(1 / __builtin_sqrt(spread(x, n, m) / static_cast<double>(n) + eps));
    mean[r] = m;
    rstd[r] = s;
    if (!w && !b) {
      scale_shift(x, y, n, m, s, T{0}, past_cache);
      continue;
    }
    const Vec<T> vm = splat(m), vs = splat(s);
    if (w && b) {
      write_row<T>(
          y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - vm) * vs * load(w + i) + load(b + i); },
          LAMBDA(int64_t i, int64_t p) {
            return (load_part(x + i, p) - vm) * vs * load_part(w + i, p) + load_part(b + i, p);
          });
    } else if (w) {
      write_row<T>(
          y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - vm) * vs * load(w + i); },
          LAMBDA(int64_t i, int64_t p) { return (load_part(x + i, p) - vm) * vs * load_part(w + i, p); });
    } else {
      write_row<T>(
          y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - vm) * vs + load(b + i); },
          LAMBDA(int64_t i, int64_t p) { return (load_part(x + i, p) - vm) * vs + load_part(b + i, p); });
    }
  }
  if (past_cache) stream_end();
}

template <class T, bool Weighted>
PYFRAME_INLINE void layer_row_backward(const T* g, const T* x, T mean, T rstd, const T* w, T* gx, T* gw, T* gb,
                                       int64_t n, bool past_cache) {
  const Vec<T> c = splat(mean), s = splat(rstd);
  double total[2];
  two_sums<T>(
      n, total,
      LAMBDA(int64_t i, Vec<T>& a, Vec<T>& b) {
        const Vec<T> v = load(g + i), z = (load(x + i) - c) * s, h = Weighted ? v * load(w + i) : v;
        store<T>(gw + i, load(gw + i) + v * z);
        store<T>(gb + i, load(gb + i) + v);
        a += h;
        b += h * z;
      },
      LAMBDA(int64_t i, int64_t m, Vec<T>& a, Vec<T>& b) {
        const Vec<T> v = load_part(g + i, m), z = (load_part(x + i, m, mean) - c) * s;
        const Vec<T> h = Weighted ? v * load_part(w + i, m) : v;
        store_part<T>(gw + i, load_part(gw + i, m) + v * z, m);
        store_part<T>(gb + i, load_part(gb + i, m) + v, m);
        a += h;
        b += h * z;
      });
  // gx = rstd · (h - mean(h) - z · mean(h · z))
  const double r = rstd, count = static_cast<double>(n);
  const Vec<T> m = splat(static_cast<T>(r * total[0] / count)), k = splat(static_cast<T>(r * r * total[1] / count));
  write_row<T>(
      gx, n, past_cache,
      LAMBDA(int64_t i) {
        const Vec<T> v = load(g + i) * s, h = Weighted ? v * load(w + i) : v;
        return (h - m) - (load(x + i) - c) * k;
      },
      LAMBDA(int64_t i, int64_t p) {
        const Vec<T> v = load_part(g + i, p) * s, h = Weighted ? v * load_part(w + i, p) : v;
        return (h - m) - (load_part(x + i, p) - c) * k;
      });
}

template <class T>
void layer_backward(const T* g, const T* x, const T* mean, const T* rstd, const T* w, T* gx, T* gw, T* gb, int64_t rows,
                    int64_t n, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * n;
    if (w) layer_row_backward<T, true>(g + at, x + at, mean[r], rstd[r], w, gx + at, gw, gb, n, past_cache);
    else layer_row_backward<T, false>(g + at, x + at, mean[r], rstd[r], w, gx + at, gw, gb, n, past_cache);
  }
  if (past_cache) stream_end();
}

// Calls full(j) for every vector of n columns and part(j, count) for the rest.
template <class T, class Full, class Part>
PYFRAME_INLINE void over_columns(int64_t n, Full full, Part part) {
  constexpr int L = kLanes<T>;
  int64_t j = 0;
  for (; j + L <= n; j += L) full(j);
  if (j < n) part(j, n - j);
}

template <class T>
void column_stats(const T* x, int64_t rows, int64_t n, T* mean, T* spread) {
  const T share = T{1} / static_cast<T>(rows);
  over_columns<T>(
      n,
      LAMBDA(int64_t j) {
        Vec<T> s{}, q{};
        for (int64_t r = 0; r < rows; ++r) s += load(x + r * n + j);
        s *= share;
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<T> d = load(x + r * n + j) - s;
          q += d * d;
        }
        store<T>(mean + j, s);
        store<T>(spread + j, q);
      },
      LAMBDA(int64_t j, int64_t p) {
        Vec<T> s{}, q{};
        for (int64_t r = 0; r < rows; ++r) s += load_part(x + r * n + j, p);
        s *= share;
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<T> d = load_part(x + r * n + j, p) - s;
          q += d * d;
        }
        store_part<T>(mean + j, s, p);
        store_part<T>(spread + j, q, p);
      });
}

template <class T>
void columns_scale(const T* x, T* y, int64_t rows, int64_t n, const T* mean, const T* a, const T* b, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    write_row<T>(
        y, n, past_cache, LAMBDA(int64_t i) { return (load(x + i) - load(mean + i)) * load(a + i) + load(b + i); },
        LAMBDA(int64_t i, int64_t p) {
          return (load_part(x + i, p) - load_part(mean + i, p)) * load_part(a + i, p) + load_part(b + i, p);
        });
  }
  if (past_cache) stream_end();
}

template <class T>
void column_dots(const T* g, const T* x, int64_t rows, int64_t n, const T* mean, T* sums, T* dots) {
  over_columns<T>(
      n,
      LAMBDA(int64_t j) {
        const Vec<T> c = load(mean + j);
        Vec<T> s{}, d{};
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<T> v = load(g + r * n + j);
          s += v;
          d += v * (load(x + r * n + j) - c);
        }
        store<T>(sums + j, s);
        store<T>(dots + j, d);
      },
      LAMBDA(int64_t j, int64_t p) {
        const Vec<T> c = load_part(mean + j, p);
        Vec<T> s{}, d{};
        for (int64_t r = 0; r < rows; ++r) {
          const Vec<T> v = load_part(g + r * n + j, p);
          s += v;
          d += v * (load_part(x + r * n + j, p) - c);
        }
        store_part<T>(sums + j, s, p);
        store_part<T>(dots + j, d, p);
      });
}

template <class T>
void columns_grad(const T* g, const T* x, T* gx, int64_t rows, int64_t n, const T* mean, const T* a, const T* k,
                  const T* m, bool past_cache) {
  for (int64_t r = 0; r < rows; ++r, g += n, x += n, gx += n) {
    write_row<T>(
        gx, n, past_cache,
        LAMBDA(int64_t i) {
          return (load(g + i) * load(a + i) - load(m + i)) - (load(x + i) - load(mean + i)) * load(k + i);
        },
        LAMBDA(int64_t i, int64_t p) {
          return (load_part(g + i, p) * load_part(a + i, p) - load_part(m + i, p)) -
                 (load_part(x + i, p) - load_part(mean + i, p)) * load_part(k + i, p);
        });
  }
  if (past_cache) stream_end();
}

template <class T>
constexpr NormKernels<T> kernels() {
  return {sum<T>,   spread<T>,         scale_shift<T>,  dots<T>,          segment_grad<T>, layer<T>,
          layer_backward<T>, column_stats<T>, columns_scale<T>, column_dots<T>, columns_grad<T>};
}

}  // namespace

extern const NormTable norm_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
