#include "attention.h"

#include "isa/attention_blocks.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

template <class T> constexpr T kInfinity = static_cast<T>(__builtin_inf());

// Fewer queries than this are worked on one by one, with vectors along keys and features.
constexpr int64_t kFew = kHeight;

template <class T> PYFRAME_INLINE T scalar_exp(T x) { return vexp(splat(x))[0]; }
template <class T> PYFRAME_INLINE T scalar_log(T x) { return vlog(splat(x))[0]; }

// Keys that some query of [begin, end) sees.
PYFRAME_INLINE int64_t visible_keys(const AttentionShape& s, int64_t end) {
  return s.causal ? least(s.keys, end) : s.keys;
}

// Scores of the keys from `key` on that lie behind their query: -inf. Lane i is query `query` + i.
template <class T, int Vectors>
PYFRAME_INLINE void cut_future(T* scores, int64_t stride, int64_t key, int64_t count, int64_t query) {
  constexpr int L = kLanes<T>;
  Vec<T> lane;
  for (int i = 0; i < L; ++i) lane[i] = static_cast<T>(i);
  // All lanes see the keys up to the first query.
  for (int64_t k = most(0, query + 1 - key); k < count; ++k) {
    for (int u = 0; u < Vectors; ++u) {
      const Vec<T> behind = splat(static_cast<T>(key + k - query - u * L));
      T* const at = scores + k * stride + u * L;
      store<T>(at, behind > lane ? splat(-kInfinity<T>) : load(at));
    }
  }
}

template <class T, int Vectors>
PYFRAME_INLINE void add_panel(T* scores, int64_t stride, int64_t count, const T* panel) {
  for (int64_t k = 0; k < count; ++k) {
    for (int u = 0; u < Vectors; ++u) {
      T* const at = scores + k * stride + u * kLanes<T>;
      store<T>(at, load(at) + load(panel + k * kPanel<T> + u * kLanes<T>));
    }
  }
}

// ---- forward

// One step of the softmax over keys, for the queries in the lanes: scores [count, kPanel] become exp(score - top), with
// `top` the maximum so far; `mass` is the sum so far and `fade` what earlier sums have to be multiplied with.
template <class T, int Vectors>
void softmax_step(T* scores, int64_t count, T* top, T* mass, T* fade) {
  constexpr int L = kLanes<T>;
  Vec<T> high[Vectors], shift[Vectors], sum[Vectors];
#pragma GCC unroll 2
  for (int u = 0; u < Vectors; ++u) high[u] = load(top + u * L);
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 2
    for (int u = 0; u < Vectors; ++u) high[u] = vmax<T>(load(scores + k * kPanel<T> + u * L), high[u]);
  }
#pragma GCC unroll 2
  for (int u = 0; u < Vectors; ++u) {
    shift[u] = high[u] == -kInfinity<T> ? Vec<T>{} : high[u];  // no key yet: -inf - (-inf) would be NaN
    store<T>(fade + u * L, vexp(load(top + u * L) - shift[u]));
    store<T>(top + u * L, high[u]);
    sum[u] = Vec<T>{};
  }
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 2
    for (int u = 0; u < Vectors; ++u) {
      T* const at = scores + k * kPanel<T> + u * L;
      const Vec<T> e = exp_of_score(load(at) - shift[u]);
      store<T>(at, e);
      sum[u] += e;
    }
  }
#pragma GCC unroll 2
  for (int u = 0; u < Vectors; ++u) store<T>(mass + u * L, load(mass + u * L) * load(fade + u * L) + sum[u]);
}

template <class T>
void multiply_panel(T* scores, int64_t count, const T* panel) {
  for (int64_t i = 0; i < count * kPanel<T>; i += kLanes<T>) store<T>(scores + i, load(scores + i) * load(panel + i));
}

// Rows of the output times their factor, if any is not 1.
template <class T>
void fade_rows(T* out, int64_t count, int64_t width, const T* fade) {
  for (int64_t i = 0; i < count; ++i, out += width) {
    if (fade[i] == 1) continue;
    const Vec<T> f = splat(fade[i]);
    for (int64_t j = 0; j < width; j += kLanes<T>) store<T>(out + j, load(out + j) * f);
  }
}

// y = out / mass and log Σ exp; rows without any key give 0.
template <class T>
void finish_rows(const T* out, int64_t count, int64_t width, const T* top, const T* mass, Rows<T> y, T* log_mass) {
  for (int64_t i = 0; i < count; ++i, out += padded<T>(width)) {
    const bool empty = mass[i] == 0;
    const Vec<T> f = splat(empty ? T{0} : 1 / mass[i]);
    T* const row = y[i];
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      store_up_to(row + j, empty ? Vec<T>{} : load(out + j) * f, width - j);
    }
    log_mass[i] = empty ? T{0} : top[i] + scalar_log(mass[i]);
  }
}

// Σ of each of `lanes` vectors, as the lanes of one.
template <class T>
PYFRAME_INLINE Vec<T> sums_of(Vec<T>* rows) {
#pragma GCC unroll 4
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) {
      Vec<T> first, second;
      interleave<T>(rows[i], rows[i + half], first, second);
      rows[i] = first + second;
    }
  }
  return rows[0];
}

// scores[k] = q · row k, for q padded with zeros.
template <class T>
void dot_rows(const T* q, Rows<const T> rows, int64_t count, int64_t width, T* scores) {
  constexpr int L = kLanes<T>;
  for (int64_t k = 0; k < count; k += L) {
    Vec<T> sum[L];
    const int64_t last = count - k - 1;
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) sum[i] = Vec<T>{};
    for (int64_t j = 0; j < width; j += L) {
      const Vec<T> a = load(q + j);
      if (width - j >= L) {
#pragma GCC unroll 16
        for (int i = 0; i < L; ++i) sum[i] += a * load(rows[k + least(i, last)] + j);
      } else {
        for (int i = 0; i < L; ++i) sum[i] += a * load_part(rows[k + least(i, last)] + j, width - j);
      }
    }
    store<T>(scores + k, sums_of<T>(sum));
  }
}

// out += Σ weight[k] · row k, for `Wide` vectors of features; `part`: how many of the last one's numbers exist.
template <class T, int Wide>
PYFRAME_INLINE void add_rows(const T* weight, Rows<const T> rows, int64_t count, int64_t part, T* out) {
  constexpr int L = kLanes<T>;
  Vec<T> sum[Wide];
#pragma GCC unroll 4
  for (int u = 0; u < Wide; ++u) sum[u] = load(out + u * L);
  for (int64_t k = 0; k < count; ++k) {
    const Vec<T> w = splat(weight[k]);
#pragma GCC unroll 4
    for (int u = 0; u < Wide - 1; ++u) sum[u] += w * load(rows[k] + u * L);
    sum[Wide - 1] += w * load_up_to(rows[k] + (Wide - 1) * L, part);
  }
#pragma GCC unroll 4
  for (int u = 0; u < Wide; ++u) store<T>(out + u * L, sum[u]);
}

// A single query. Memory bounds it: keys and values are read once, where they lie.
template <class T>
void forward_one(const AttentionShape& s, const AttentionHead<T>& h, int64_t query, T* y, T* scratch) {
  constexpr int L = kLanes<T>;
  Parts<T> parts{scratch};
  T *const q = parts.take(padded<T>(s.width)), *const out = parts.take(padded<T>(s.value_width));
  T *const scores = parts.take(kKeyBlock), *const extra = parts.take(kKeyBlock);
  alignas(64) std::uint32_t words[kKeyBlock + 128];
  pack_rows<T>({h.q[query], 0}, 1, 1, s.width, static_cast<T>(s.scale), q);
  clear(out, padded<T>(s.value_width));
  T top = -kInfinity<T>, mass = 0;
  const int64_t end = visible_keys(s, query + 1);
  for (int64_t key = 0; key < end; key += kKeyBlock) {
    const int64_t count = least(end - key, kKeyBlock);
    dot_rows<T>(q, {h.k[key], h.k.stride}, count, s.width, scores);
    for (int64_t k = count; k % L; ++k) scores[k] = -kInfinity<T>;
    if (s.mask != AttentionMask::none) {
      mask_row<T>(s, h.mask, query, key, count, extra);
      for (int64_t k = 0; k < count; ++k) scores[k] += extra[k];
    }
    Vec<T> high = splat(top), sum{};
    for (int64_t k = 0; k < count; k += L) high = vmax<T>(load(scores + k), high);
    const T new_top = hmax<T>(high), shift = new_top == -kInfinity<T> ? T{0} : new_top;
    const T fade = scalar_exp(top - shift);
    for (int64_t k = 0; k < count; k += L) {
      const Vec<T> e = vexp(load(scores + k) - splat(shift));
      store<T>(scores + k, e);
      sum += e;
    }
    mass = mass * fade + hsum<T>(sum);
    top = new_top;
    if (s.dropout) {
      dropout_row<T>(s, h.first_word + query * s.keys + key, count, words, extra);
      for (int64_t k = 0; k < count; ++k) scores[k] *= extra[k];
    }
    fade_rows(out, 1, padded<T>(s.value_width), &fade);
    const Rows<const T> v{h.v[key], h.v.stride};
    int64_t j = 0;
    for (; s.value_width - j >= 4 * L; j += 4 * L) add_rows<T, 4>(scores, {v.data + j, v.stride}, count, L, out + j);
    for (; j < s.value_width; j += L) add_rows<T, 1>(scores, {v.data + j, v.stride}, count, s.value_width - j, out + j);
  }
  finish_rows<T>(out, 1, s.value_width, &top, &mass, {y, 0}, h.log_mass + query);
}

template <class T>
int64_t forward_scratch(const AttentionShape& s, int64_t queries) {
  const int64_t rows = round_up(queries, kPanel<T>), slack = 16 * 64;
  const int64_t extra = s.mask != AttentionMask::none || s.dropout ? 2 * kPanel<T> * kKeyBlock : 0;
  return rows * (s.width + padded<T>(s.value_width) + 3) + kKeyBlock * (padded<T>(s.width) + padded<T>(s.value_width)) +
         kPanel<T> * kKeyBlock + extra + slack;
}

// A block of scores of one panel of queries: the weights, and what they add to the output.
template <class T, int Vectors>
PYFRAME_INLINE void forward_panel(const AttentionShape& s, const AttentionHead<T>& h, int64_t query, int64_t queries,
                                  int64_t key, int64_t count, const T* panel, const T* k, const T* v, T* scores,
                                  T* extra, T* top, T* mass, T* fade, T* out) {
  const int64_t kw = padded<T>(s.width), vw = padded<T>(s.value_width);
  T* const rows = extra + kPanel<T> * kKeyBlock;
  product<T>(count, Vectors, s.width, k, kw, 1, panel, kPanel<T>, scores, kPanel<T>, false);
  if (s.mask != AttentionMask::none) {
    mask_panel<T>(s, h.mask, query, queries, key, count, rows, extra);
    add_panel<T, Vectors>(scores, kPanel<T>, count, extra);
  }
  if (s.causal) cut_future<T, Vectors>(scores, kPanel<T>, key, count, query);
  softmax_step<T, Vectors>(scores, count, top, mass, fade);
  if (s.dropout) {
    dropout_panel<T>(s, h.first_word, query, queries, key, count, rows, extra);
    multiply_panel<T>(scores, count, extra);
  }
  if (key > 0) fade_rows(out, queries, vw, fade);
  product<T>(queries, vw / kLanes<T>, count, scores, 1, kPanel<T>, v, vw, out, vw, key > 0);
}

template <class T>
void forward(const AttentionShape& s, const AttentionHead<T>& h, int64_t begin, int64_t queries, Rows<T> y,
             T* scratch) {
  constexpr int L = kLanes<T>;
  if (s.queries < kFew) {
    for (int64_t i = begin; i < begin + queries; ++i) forward_one(s, h, i, y[i], scratch);
    return;
  }
  const int64_t kw = padded<T>(s.width), vw = padded<T>(s.value_width), height = round_up(queries, kPanel<T>);
  Parts<T> parts{scratch};
  T *const panels = parts.take(height * s.width), *const out = parts.take(height * vw);
  T *const top = parts.take(height), *const mass = parts.take(height), *const fade = parts.take(height);
  T *const k = parts.take(kKeyBlock * kw), *const v = parts.take(kKeyBlock * vw);
  T *const scores = parts.take(kKeyBlock * kPanel<T>), *const extra = parts.next;
  prefetch_rows<T>({h.q[begin], h.q.stride}, 0, queries, s.width);
  for (int64_t i = 0; i < queries; i += kPanel<T>) {
    pack_panel<T>({h.q[begin + i], h.q.stride}, queries - i, s.width, static_cast<T>(s.scale), panels + i * s.width);
  }
  for (int64_t i = 0; i < height; i += L) {
    store<T>(top + i, splat(-kInfinity<T>));
    store<T>(mass + i, Vec<T>{});
  }
  const int64_t end = visible_keys(s, begin + queries);
  for (int64_t key = 0; key < end; key += kKeyBlock) {
    const int64_t count = least(end - key, kKeyBlock);
    pack_rows<T>({h.k[key], h.k.stride}, count, round_up(count, kHeight), s.width, T{1}, k);
    pack_rows<T>({h.v[key], h.v.stride}, count, count, s.value_width, T{1}, v);
    for (int64_t i = 0; i < queries; i += kPanel<T>) {
      const int64_t query = begin + i, lines = least(queries - i, kPanel<T>);
      const int64_t seen = least(visible_keys(s, query + lines) - key, count);
      if (seen <= 0) continue;
      const T* const panel = panels + i * s.width;
      if (lines > L) {
        forward_panel<T, 2>(s, h, query, lines, key, seen, panel, k, v, scores, extra, top + i, mass + i, fade + i,
                            out + i * vw);
      } else {
        forward_panel<T, 1>(s, h, query, lines, key, seen, panel, k, v, scores, extra, top + i, mass + i, fade + i,
                            out + i * vw);
      }
    }
  }
  finish_rows<T>(out, queries, s.value_width, top, mass, {y[begin], y.stride}, h.log_mass + begin);
}

// ---- backward

template <class T>
int64_t sums_size(int64_t keys, int64_t width) { return round_up(keys, kHeight) * padded<T>(width); }

template <class T>
void write_sums(const T* sums, int64_t count, int64_t apart, int64_t keys, int64_t width, Rows<T> rows) {
  for (int64_t k = 0; k < keys; ++k, sums += padded<T>(width)) {
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      Vec<T> total = load(sums + j);
      for (int64_t c = 1; c < count; ++c) total += load(sums + c * apart + j);
      store_up_to(rows[k] + j, total, width - j);
    }
  }
}

template <class T>
int64_t backward_scratch(const AttentionShape& s) {
  const int64_t rows = round_up(least(s.queries, kQueryBlock), kPanel<T>), slack = 16 * 64;
  const int64_t kw = padded<T>(s.width), vw = padded<T>(s.value_width);
  const int64_t extra = s.mask != AttentionMask::none || s.dropout ? 2 * kPanel<T> * kKeyBlock : 0;
  return rows * (s.width + s.value_width + 2 * kw + vw + 2 * kKeyBlock + 2) + kKeyBlock * (kw + vw) +
         kPanel<T> * s.value_width + extra + slack;
}

// The weights p and the gradients of the scores from scores and g vᵀ, both [count, stride]:
// p = exp(score - log_mass), ds = p (f · gv - delta), and what the values see is f · p; f: the factors of dropout.
template <class T, int Vectors, bool Dropout>
PYFRAME_INLINE void score_gradients(T* scores, T* gradients, int64_t stride, int64_t count, const T* log_mass,
                                    const T* delta, const T* factors) {
  constexpr int L = kLanes<T>;
  for (int64_t k = 0; k < count; ++k) {
#pragma GCC unroll 2
    for (int u = 0; u < Vectors; ++u) {
      T *const at = scores + k * stride + u * L, *const g = gradients + k * stride + u * L;
      const Vec<T> p = exp_of_score(load(at) - load(log_mass + u * L));
      Vec<T> gp = load(g), kept = p;
      if constexpr (Dropout) {
        const Vec<T> f = load(factors + k * kPanel<T> + u * L);
        gp *= f;
        kept *= f;
      }
      store<T>(at, kept);
      store<T>(g, p * (gp - load(delta + u * L)));
    }
  }
}

template <class T, int Vectors>
PYFRAME_INLINE void backward_panel(const AttentionShape& s, const AttentionHead<T>& h, int64_t query, int64_t queries,
                                   int64_t key, int64_t count, const T* q_panel, const T* g_panel, const T* k,
                                   const T* v, T* scores, T* gradients, int64_t stride, T* extra, const T* log_mass,
                                   const T* delta) {
  const int64_t kw = padded<T>(s.width), vw = padded<T>(s.value_width);
  T* const rows = extra + kPanel<T> * kKeyBlock;
  product<T>(count, Vectors, s.width, k, kw, 1, q_panel, kPanel<T>, scores, stride, false);
  product<T>(count, Vectors, s.value_width, v, vw, 1, g_panel, kPanel<T>, gradients, stride, false);
  if (s.mask != AttentionMask::none) {
    mask_panel<T>(s, h.mask, query, queries, key, count, rows, extra);
    add_panel<T, Vectors>(scores, stride, count, extra);
  }
  if (s.causal) cut_future<T, Vectors>(scores, stride, key, count, query);
  if (s.dropout) {
    dropout_panel<T>(s, h.first_word, query, queries, key, count, rows, extra);
    score_gradients<T, Vectors, true>(scores, gradients, stride, count, log_mass, delta, extra);
  } else {
    score_gradients<T, Vectors, false>(scores, gradients, stride, count, log_mass, delta, extra);
  }
  // Rows that fill up the last tile hold no key.
  for (int64_t r = count; r % kHeight; ++r) {
    for (int u = 0; u < Vectors; ++u) {
      store<T>(scores + r * stride + u * kLanes<T>, Vec<T>{});
      store<T>(gradients + r * stride + u * kLanes<T>, Vec<T>{});
    }
  }
}

// delta = Σ g · y per query: what the softmax takes off every gradient of a row of weights. Features are added up in
// the order of the product g vᵀ, so that a row whose weights are 0 but for one 1 has gradients of exactly 0.
template <class T>
void panel_products(const T* g_panel, const T* y_panel, int64_t width, T* delta) {
  Vec<T> sum[kTileVectors] = {};
  for (int64_t j = 0; j < width * kPanel<T>; j += kPanel<T>) {
    for (int u = 0; u < kTileVectors; ++u) sum[u] += load(g_panel + j + u * kLanes<T>) * load(y_panel + j + u * kLanes<T>);
  }
  for (int u = 0; u < kTileVectors; ++u) store<T>(delta + u * kLanes<T>, sum[u]);
}

template <class T>
void backward(const AttentionShape& s, const AttentionHead<T>& h, int64_t begin, Rows<const T> g, Rows<const T> y,
              Rows<T> gq, T* key_sums, T* value_sums, T* scratch) {
  constexpr int L = kLanes<T>;
  const int64_t queries = least(s.queries - begin, kQueryBlock), height = round_up(queries, kPanel<T>);
  const int64_t kw = padded<T>(s.width), vw = padded<T>(s.value_width);
  const T scale = static_cast<T>(s.scale);
  Parts<T> parts{scratch};
  T *const q_panels = parts.take(height * s.width), *const g_panels = parts.take(height * s.value_width);
  T *const q_rows = parts.take(height * kw), *const g_rows = parts.take(height * vw), *const sums = parts.take(height * kw);
  T *const log_mass = parts.take(height), *const delta = parts.take(height);
  T* const y_panel = parts.take(kPanel<T> * s.value_width);
  T *const k = parts.take(kKeyBlock * kw), *const v = parts.take(kKeyBlock * vw);
  T *const scores = parts.take(kKeyBlock * height), *const gradients = parts.take(kKeyBlock * height);
  T* const extra = parts.next;
  const Rows<const T> own_q{h.q[begin], h.q.stride}, own_g{g[begin], g.stride};
  prefetch_rows<T>(own_q, 0, queries, s.width);
  for (int64_t i = 0; i < queries; i += kPanel<T>) {
    pack_panel<T>({own_q[i], own_q.stride}, queries - i, s.width, scale, q_panels + i * s.width);
    T* const g_panel = g_panels + i * s.value_width;
    pack_panel<T>({own_g[i], own_g.stride}, queries - i, s.value_width, T{1}, g_panel);
    pack_panel<T>({y[begin + i], y.stride}, queries - i, s.value_width, T{1}, y_panel);
    panel_products(g_panel, y_panel, s.value_width, delta + i);
  }
  pack_rows<T>(own_q, queries, queries, s.width, scale, q_rows);
  pack_rows<T>(own_g, queries, queries, s.value_width, T{1}, g_rows);
  clear(log_mass, height);
  for (int64_t i = 0; i < queries; ++i) log_mass[i] = h.log_mass[begin + i];
  clear(sums, height * kw);
  const int64_t end = visible_keys(s, begin + queries);
  for (int64_t key = 0; key < end; key += kKeyBlock) {
    const int64_t count = least(end - key, kKeyBlock);
    pack_rows<T>({h.k[key], h.k.stride}, count, round_up(count, kHeight), s.width, T{1}, k);
    pack_rows<T>({h.v[key], h.v.stride}, count, round_up(count, kHeight), s.value_width, T{1}, v);
    for (int64_t i = 0; i < queries; i += kPanel<T>) {
      const int64_t query = begin + i, lines = least(queries - i, kPanel<T>);
      const int64_t seen = least(visible_keys(s, query + lines) - key, count);
      if (seen <= 0) continue;
      const T *const q_panel = q_panels + i * s.width, *const g_panel = g_panels + i * s.value_width;
      if (lines > L) {
        backward_panel<T, 2>(s, h, query, lines, key, seen, q_panel, g_panel, k, v, scores + i, gradients + i, height,
                             extra, log_mass + i, delta + i);
      } else {
        backward_panel<T, 1>(s, h, query, lines, key, seen, q_panel, g_panel, k, v, scores + i, gradients + i, height,
                             extra, log_mass + i, delta + i);
      }
      product<T>(lines, kw / L, seen, gradients + i, 1, height, k, kw, sums + i * kw, kw, true);
    }
    // Keys a panel apart are seen from a panel later on.
    const int64_t step = s.causal ? kPanel<T> : count;
    for (int64_t a = 0; a < count; a += step) {
      const int64_t first = s.causal ? most(0, key + a - begin) / kPanel<T> * kPanel<T> : 0;
      if (first >= queries) break;
      const int64_t keys = least(step, count - a), at = a * height + first;
      product<T>(keys, vw / L, queries - first, scores + at, height, 1, g_rows + first * vw, vw,
                 value_sums + (key + a) * vw, vw, true);
      product<T>(keys, kw / L, queries - first, gradients + at, height, 1, q_rows + first * kw, kw,
                 key_sums + (key + a) * kw, kw, true);
    }
  }
  for (int64_t i = 0; i < queries; ++i) {
    T* const row = gq[begin + i];
    for (int64_t j = 0; j < s.width; j += L) store_up_to(row + j, load(sums + i * kw + j) * scale, s.width - j);
  }
}

template <class T>
constexpr AttentionKernels<T> kernels() {
  return {forward_scratch<T>, backward_scratch<T>, forward<T>, backward<T>, sums_size<T>, write_sums<T>};
}

}  // namespace

extern const AttentionTable attention_table = {kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
