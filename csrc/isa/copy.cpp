#include "copy.h"

#include "isa/vec.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;

template <class T> PYFRAME_INLINE T get(const char* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class T> PYFRAME_INLINE void put(char* to, T value) { __builtin_memcpy(to, &value, sizeof value); }

// A square of items, one register a row. Bytes stay in 16-byte registers: interleaving is one instruction there on
// every level, and 64 x 64 bytes would not fit into the registers of any.
template <class T> struct Square {
  static constexpr int kBytes = sizeof(T) == 1 ? 16 : kVectorBytes;
  static constexpr int N = kBytes / static_cast<int>(sizeof(T));
  typedef T V __attribute__((vector_size(kBytes)));
};

template <int... I> struct Sequence {};
template <int N, int... I> struct MakeSequence : MakeSequence<N - 1, N - 1, I...> {};
template <int... I> struct MakeSequence<0, I...> { using type = Sequence<I...>; };

// a0 b0 a1 b1 ..., of the lower and of the upper halves.
template <class V, int... I> PYFRAME_INLINE V interleave_low(V a, V b, Sequence<I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * static_cast<int>(sizeof...(I)))...);
}
template <class V, int... I> PYFRAME_INLINE V interleave_high(V a, V b, Sequence<I...>) {
  constexpr int N = sizeof...(I);
  return __builtin_shufflevector(a, b, (N / 2 + I / 2 + I % 2 * N)...);
}
template <class V, int... I> PYFRAME_INLINE V reversed(V a, Sequence<I...>) {
  return __builtin_shufflevector(a, a, (static_cast<int>(sizeof...(I)) - 1 - I)...);
}
template <class V, int... I> PYFRAME_INLINE V even_lanes(V a, V b, Sequence<I...>) {
  return __builtin_shufflevector(a, b, (2 * I)...);
}

// Interleaving row i with row i + N/2 rotates the bits of (row, lane) by one; after log2 N rounds they have changed
// places. Every round uses the same two permutations.
template <class T> PYFRAME_INLINE void turn(typename Square<T>::V* r) {
  constexpr int N = Square<T>::N;
  using All = typename MakeSequence<N>::type;
  typename Square<T>::V t[N];
#pragma GCC unroll 8
  for (int round = 1; round < N; round *= 2) {
#pragma GCC unroll 32
    for (int i = 0; i < N / 2; ++i) {
      t[2 * i] = interleave_low(r[i], r[i + N / 2], All());
      t[2 * i + 1] = interleave_high(r[i], r[i + N / 2], All());
    }
#pragma GCC unroll 32
    for (int i = 0; i < N; ++i) r[i] = t[i];
  }
}

template <class T, bool Stream>
PYFRAME_INLINE void square(char* out, const char* in, int64_t out_step, int64_t in_step) {
  constexpr int N = Square<T>::N;
  typename Square<T>::V r[N];
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i) __builtin_memcpy(&r[i], in + i * in_step, sizeof r[i]);
  turn<T>(r);
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i) {
    if constexpr (Stream && Square<T>::kBytes == kVectorBytes) stream<T>(reinterpret_cast<T*>(out + i * out_step), r[i]);
    else __builtin_memcpy(out + i * out_step, &r[i], sizeof r[i]);
  }
}

// A rectangle that is smaller than a square.
template <class T>
void corner(char* out, const char* in, int64_t rows, int64_t columns, int64_t out_step, int64_t in_step) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) >= 4) {
    constexpr int N = Square<T>::N;
    Vec<T> r[N];
#pragma GCC unroll 32
    for (int i = 0; i < N; ++i) {
      if (i >= rows) r[i] = Vec<T>{};
      else if (columns == N) r[i] = load(reinterpret_cast<const T*>(in + i * in_step));
      else r[i] = load_part(reinterpret_cast<const T*>(in + i * in_step), columns);
    }
    turn<T>(r);
#pragma GCC unroll 32
    for (int i = 0; i < N; ++i) {
      if (i >= columns) break;
      if (rows == N) store<T>(reinterpret_cast<T*>(out + i * out_step), r[i]);
      else store_part<T>(reinterpret_cast<T*>(out + i * out_step), r[i], rows);
    }
    return;
  }
#endif
  constexpr int64_t item = sizeof(T);
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t k = 0; k < rows; ++k) put<T>(out + c * out_step + k * item, get<T>(in + k * in_step + c * item));
  }
}

template <class T>
void transpose(char* out, const char* in, int64_t rows, int64_t columns, int64_t out_step, int64_t in_step,
               bool past_cache) {
  constexpr int64_t N = Square<T>::N, item = sizeof(T);
  if (rows < N || columns < N) {
    for (int64_t r = 0; r < rows; r += N) {
      for (int64_t c = 0; c < columns; c += N) {
        corner<T>(out + c * out_step + r * item, in + r * in_step + c * item, rows - r < N ? rows - r : N,
                  columns - c < N ? columns - c : N, out_step, in_step);
      }
    }
    return;
  }
  const bool streams = past_cache && Square<T>::kBytes == kVectorBytes && rows % N == 0 &&
                       ((reinterpret_cast<std::uintptr_t>(out) | static_cast<std::uintptr_t>(out_step)) &
                        (kVectorBytes - 1)) == 0;
  // The last squares are moved back so that they end at the edge, and write some items a second time.
  for (int64_t r = 0; r < rows; r += N) {
    const int64_t y = r + N <= rows ? r : rows - N;
    for (int64_t c = 0; c < columns; c += N) {
      const int64_t x = c + N <= columns ? c : columns - N;
      char* const to = out + x * out_step + y * item;
      const char* const from = in + y * in_step + x * item;
      if (streams) square<T, true>(to, from, out_step, in_step);
      else square<T, false>(to, from, out_step, in_step);
    }
  }
  if (streams) stream_end();
}

template <class T> PYFRAME_INLINE void line(char* out, const char* in, int64_t n, int64_t out_step, int64_t in_step) {
  constexpr int64_t item = sizeof(T), L = kLanes<T>;
  using All = typename MakeSequence<static_cast<int>(L)>::type;
  int64_t i = 0;
  if (out_step == item) {
    if (in_step == 0) {
      const T value = get<T>(in);
      const Vec<T> v = splat<T>(value);
      for (; i + L <= n; i += L) __builtin_memcpy(out + i * item, &v, sizeof v);
      for (; i < n; ++i) put<T>(out + i * item, value);
      return;
    }
    if (in_step == -item) {
      for (; i + L <= n; i += L) {
        const Vec<T> v = reversed(load(reinterpret_cast<const T*>(in - (i + L - 1) * item)), All());
        __builtin_memcpy(out + i * item, &v, sizeof v);
      }
    } else if (in_step == 2 * item) {
      for (; i + L < n; i += L) {  // the last vector would read one item too many
        const T* const from = reinterpret_cast<const T*>(in + i * in_step);
        const Vec<T> v = even_lanes(load(from), load(from + L), All());
        __builtin_memcpy(out + i * item, &v, sizeof v);
      }
    }
    for (; i + 4 <= n; i += 4) {
      const char* const from = in + i * in_step;
      const T a = get<T>(from), b = get<T>(from + in_step), c = get<T>(from + 2 * in_step), d = get<T>(from + 3 * in_step);
      put<T>(out + i * item, a);
      put<T>(out + (i + 1) * item, b);
      put<T>(out + (i + 2) * item, c);
      put<T>(out + (i + 3) * item, d);
    }
  }
  for (; i < n; ++i) put<T>(out + i * out_step, get<T>(in + i * in_step));
}

template <class T>
void lines(char* out, const char* in, int64_t count, int64_t n, int64_t out_outer, int64_t in_outer, int64_t out_step,
           int64_t in_step) {
  if (n < 4) {  // one column after the other: less to decide for each line
    for (int64_t i = 0; i < n; ++i, out += out_step, in += in_step) {
      for (int64_t k = 0; k < count; ++k) put<T>(out + k * out_outer, get<T>(in + k * in_outer));
    }
    return;
  }
  for (int64_t k = 0; k < count; ++k) line<T>(out + k * out_outer, in + k * in_outer, n, out_step, in_step);
}

// A run of 4 to 16 bytes as two parts that may overlap.
template <class T> PYFRAME_INLINE void two(char* out, const char* in, int64_t bytes) {
  const int64_t last = bytes - static_cast<int64_t>(sizeof(T));
  const T a = get<T>(in), b = get<T>(in + last);
  put<T>(out, a);
  put<T>(out + last, b);
}

using Bytes = Vec<std::uint64_t>;
constexpr int64_t kShortRun = 1024;  // from here on the C library's copy is as fast

PYFRAME_INLINE void short_run(char* out, const char* in, int64_t bytes) {
  typedef std::uint64_t Half __attribute__((vector_size(16)));
  if (bytes >= kVectorBytes) {
    int64_t i = 0;
    for (; i + kVectorBytes <= bytes; i += kVectorBytes) put<Bytes>(out + i, get<Bytes>(in + i));
    if (i < bytes) put<Bytes>(out + bytes - kVectorBytes, get<Bytes>(in + bytes - kVectorBytes));
  } else if (bytes >= 16) {
    int64_t i = 0;
    for (; i + 16 <= bytes; i += 16) put<Half>(out + i, get<Half>(in + i));
    if (i < bytes) put<Half>(out + bytes - 16, get<Half>(in + bytes - 16));
  } else if (bytes >= 8) {
    two<std::uint64_t>(out, in, bytes);
  } else if (bytes >= 4) {
    two<std::uint32_t>(out, in, bytes);
  } else {
    for (int64_t i = 0; i < bytes; ++i) out[i] = in[i];
  }
}

void stream_run(char* out, const char* in, int64_t bytes) {
  int64_t i = -static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(out)) & (kVectorBytes - 1);
  if (i > bytes) i = bytes;
  __builtin_memcpy(out, in, static_cast<std::size_t>(i));
  for (; i + 4 * kVectorBytes <= bytes; i += 4 * kVectorBytes) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      stream<std::uint64_t>(reinterpret_cast<std::uint64_t*>(out + i + u * kVectorBytes),
                            get<Bytes>(in + i + u * kVectorBytes));
    }
  }
  __builtin_memcpy(out + i, in + i, static_cast<std::size_t>(bytes - i));
}

void bytes_to_floats(float* out, const std::uint8_t* in, int64_t count) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
}

void chosen_rows(char* out, const char* in, const int64_t* index, int64_t count, int64_t n, int64_t bytes) {
  for (int64_t j = 0; j < count; ++j) {
    const char* const row = in + (index[j] < 0 ? index[j] + n : index[j]) * bytes;
    if (bytes <= kShortRun) short_run(out + j * bytes, row, bytes);
    else __builtin_memcpy(out + j * bytes, row, static_cast<std::size_t>(bytes));
  }
}

void rows(char* out, const char* in, int64_t count, int64_t bytes, int64_t out_step, int64_t in_step, bool past_cache) {
  if (past_cache && bytes >= 1024) {
    for (int64_t k = 0; k < count; ++k) stream_run(out + k * out_step, in + k * in_step, bytes);
    stream_end();
  } else if (bytes <= kShortRun) {
    for (int64_t k = 0; k < count; ++k) short_run(out + k * out_step, in + k * in_step, bytes);
  } else {
    for (int64_t k = 0; k < count; ++k) {
      __builtin_memcpy(out + k * out_step, in + k * in_step, static_cast<std::size_t>(bytes));
    }
  }
}

}  // namespace

extern const CopyTable copy_table;  // a constant would be local to this file
const CopyTable copy_table = {
    {transpose<std::uint8_t>, transpose<std::uint16_t>, transpose<std::uint32_t>, transpose<std::uint64_t>},
    {lines<std::uint8_t>, lines<std::uint16_t>, lines<std::uint32_t>, lines<std::uint64_t>},
    rows,
    bytes_to_floats,
    chosen_rows};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
