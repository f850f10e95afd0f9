#include "random.h"

#include "isa/philox.h"
#include "isa/rows.h"
#include "isa/vec_math.h"

namespace pyframe {
namespace PYFRAME_ISA {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

constexpr int64_t kWords = 4 * kPhiloxBlock;

// The reverse: lanes of even and of odd number.
template <class T>
PYFRAME_INLINE void separate(Vec<T> first, Vec<T> second, Vec<T>& even, Vec<T>& odd) {
  Mask<T> low, high;
  for (int i = 0; i < kLanes<T>; ++i) {
    low[i] = 2 * i;
    high[i] = 2 * i + 1;
  }
  even = __builtin_shuffle(first, second, low);
  odd = __builtin_shuffle(first, second, high);
}

// Not inlined: one copy per level is enough.
void block(Stream stream, int64_t first, uint32_t* out) { philox(stream, first, kPhiloxBlock, out); }

// Calls use(words, value number, count) for blocks of the values begin to end, each made of `each` words.
template <class Use>
PYFRAME_INLINE void blocks(Stream stream, int64_t begin, int64_t end, int each, Use use) {
  alignas(64) uint32_t buffer[kWords + kLanes<uint32_t>] = {};  // room to read a whole vector at the last word
  const int64_t length = kWords / each;
  for (int64_t v = begin; v < end; v += length) {
    block(stream, v * each / 4, buffer);
    use(buffer, v, end - v < length ? end - v : length);
  }
}

void words(Stream stream, int64_t begin, int64_t end, uint32_t* out) {
  blocks(stream, begin, end, 1, [=](const uint32_t* w, int64_t v, int64_t count) {
    __builtin_memcpy(out + v, w, static_cast<std::size_t>(count) * sizeof(uint32_t));
  });
}

void mask(Stream stream, int64_t begin, int64_t end, uint32_t threshold, std::uint8_t* out) {
  blocks(stream, begin, end, 1, [=](const uint32_t* w, int64_t v, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[v + i] = w[i] < threshold;
  });
}

// 53-bit numbers from pairs of words, as integers in doubles.
PYFRAME_INLINE Vec<double> wide_integers(const uint32_t* w) {
  Words bits;
  __builtin_memcpy(&bits, w, sizeof bits);
  return __builtin_convertvector((Vec<int64_t>)(bits >> 11), Vec<double>);
}

template <class T>
PYFRAME_INLINE Vec<T> uniform_vector(const uint32_t* w);
template <>
PYFRAME_INLINE Vec<float> uniform_vector<float>(const uint32_t* w) {
  return __builtin_convertvector((Vec<std::int32_t>)(load(w) >> 8), Vec<float>) * 0x1p-24f;
}
template <>
PYFRAME_INLINE Vec<double> uniform_vector<double>(const uint32_t* w) {
  return wide_integers(w) * 0x1p-53;
}

template <class T>
void uniform(Stream stream, int64_t begin, int64_t end, T* out) {
  constexpr int L = kLanes<T>, kEach = sizeof(T) / 4;
  blocks(stream, begin, end, kEach, [=](const uint32_t* w, int64_t v, int64_t count) {
    int64_t i = 0;
    for (; i + L <= count; i += L) store<T>(out + v + i, uniform_vector<T>(w + i * kEach));
    if (i < count) store_part<T>(out + v + i, uniform_vector<T>(w + i * kEach), count - i);
  });
}

// The sine and cosine of angles in [0, 2 pi]: multiples of pi/2 are taken off, the rest is below pi/4 in size.
template <class T>
PYFRAME_INLINE void turn(Vec<T> sine, Vec<T> cosine, Vec<T> quarter, Vec<T>& s, Vec<T>& c) {
  const Mask<T> odd = (quarter == T{1}) | (quarter == T{3});
  const Vec<T> a = odd ? cosine : sine, b = odd ? sine : cosine;
  s = (quarter == T{2}) | (quarter == T{3}) ? -a : a;
  c = (quarter == T{1}) | (quarter == T{2}) ? -b : b;
}
PYFRAME_INLINE void sine_cosine(Vec<float> x, Vec<float>& s, Vec<float>& c) {
  const Vec<float> magic = splat(12582912.0f), q = (x * 0.636619772f + magic) - magic;
  const Vec<float> r = ((x - q * 1.5703125f) - q * 4.837512969970703125e-4f) - q * 7.54978995489188216e-8f, z = r * r;
  Vec<float> a = splat(-1.9515295891e-4f);
  a = a * z + 8.3321608736e-3f;
  a = a * z - 1.6666654611e-1f;
  a = a * z * r + r;
  Vec<float> b = splat(2.443315711809948e-5f);
  b = b * z - 1.388731625493765e-3f;
  b = b * z + 4.166664568298827e-2f;
  b = b * z * z - 0.5f * z + 1.0f;
  turn<float>(a, b, q, s, c);
}
PYFRAME_INLINE void sine_cosine(Vec<double> x, Vec<double>& s, Vec<double>& c) {
  const Vec<double> magic = splat(6755399441055744.0), q = (x * 0.63661977236758134308 + magic) - magic;
  const Vec<double> r = (x - q * 1.57079632673412561417e+00) - q * 6.07710050650619224932e-11, z = r * r;
  Vec<double> a = splat(1.58969099521155010221e-10);
  a = a * z - 2.50507602534068634195e-08;
  a = a * z + 2.75573137070700676789e-06;
  a = a * z - 1.98412698298579493134e-04;
  a = a * z + 8.33333333332248946124e-03;
  a = a * z - 1.66666666666666324348e-01;
  a = a * z * r + r;
  Vec<double> b = splat(-1.13596475577881948265e-11);
  b = b * z + 2.08757232129817482790e-09;
  b = b * z - 2.75573143513906633035e-07;
  b = b * z + 2.48015872894767294178e-05;
  b = b * z - 1.38888888888741095749e-03;
  b = b * z + 4.16666666666666019037e-02;
  b = b * z * z - 0.5 * z + 1.0;
  turn<double>(a, b, q, s, c);
}

// Radius and angle (Box and Muller) of kLanes pairs of values.
PYFRAME_INLINE void polar(const uint32_t* w, Vec<float>& radius, Vec<float>& angle) {
  Vec<uint32_t> even, odd;
  separate<uint32_t>(load(w), load(w + kLanes<float>), even, odd);
  radius = __builtin_convertvector(even, Vec<float>) * 0x1p-32f + 0x1p-33f;
  angle = __builtin_convertvector((Vec<std::int32_t>)(odd >> 8), Vec<float>) * 0x1p-24f;
  angle = angle * 6.283185307179586f;
}
PYFRAME_INLINE void polar(const uint32_t* w, Vec<double>& radius, Vec<double>& angle) {
  Vec<double> even, odd;
  separate<double>(wide_integers(w), wide_integers(w + 2 * kLanes<double>), even, odd);
  radius = (even + 1.0) * 0x1p-53;
  angle = odd * 0x1p-53 * 6.283185307179586;
}

template <class T>
void normal(Stream stream, int64_t begin, int64_t end, T* out) {
  constexpr int L = kLanes<T>, kEach = sizeof(T) / 4;
  blocks(stream, begin, end, kEach, [=](const uint32_t* w, int64_t v, int64_t count) {
    for (int64_t i = 0; i < count; i += 2 * L) {
      Vec<T> radius, angle, s, c, first, second;
      polar(w + i * kEach, radius, angle);
      radius = vsqrt<T>(vlog(radius) * T{-2});
      sine_cosine(angle, s, c);
      interleave<T>(radius * c, radius * s, first, second);
      const int64_t left = count - i;
      T* const to = out + v + i;
      if (left >= L) store<T>(to, first);
      else store_part<T>(to, first, left);
      if (left >= 2 * L) store<T>(to + L, second);
      else if (left > L) store_part<T>(to + L, second, left - L);
    }
  });
}

PYFRAME_INLINE Vec<float> factors(const uint32_t* w, uint32_t threshold, float scale) {
  return (Vec<float>)((Mask<float>)(load(w) < splat(threshold)) & (Mask<float>)splat(scale));
}
PYFRAME_INLINE Vec<double> factors(const uint32_t* w, uint32_t threshold, double scale) {
  typedef uint32_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half half;
  __builtin_memcpy(&half, w, sizeof half);
  const Words wide = __builtin_convertvector(half, Words);
  return (Vec<double>)((Mask<double>)(wide < splat<uint64_t>(threshold)) & (Mask<double>)splat(scale));
}

template <class T>
void dropout(Stream stream, int64_t begin, int64_t end, uint32_t threshold, T scale, const T* x, T* y,
             bool past_cache) {
  blocks(stream, begin, end, 1, [=](const uint32_t* w, int64_t v, int64_t count) __attribute__((always_inline)) {
    const T* const from = x + v;
    write_row<T>(
        y + v, count, past_cache,
        [=](int64_t i) __attribute__((always_inline)) { return load(from + i) * factors(w + i, threshold, scale); },
        [=](int64_t i, int64_t m) __attribute__((always_inline)) {
          // Words lie in whole blocks, so reading past the last one's is harmless (the buffer has room for it).
          return load_part(from + i, m) * factors(w + i, threshold, scale);
        });
  });
  if (past_cache) stream_end();
}

template <class T>
constexpr RandomKernels<T> kernels() {
  return {uniform<T>, normal<T>, dropout<T>};
}

}  // namespace

extern const RandomTable random_table = {words, mask, kernels<float>(), kernels<double>()};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
