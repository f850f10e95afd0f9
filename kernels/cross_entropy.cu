// Cross entropy fused with log_softmax, the negative log-likelihood, and logsumexp: over the classes of an array
// [N, C, S]. Row r = n·S + s has its classes at a distance of S.
//
// A block or a warp is on a row where its classes lie next to each other, a thread where rows do (S above 1). The
// maximum takes a pass of its own: what is added up after it is exact to a few units, however large the logits.
#include "pyframe/note.cuh"
#include "pyframe/rows.cuh"

namespace {

// Where a row begins. Rows are counted with 32 bits: a division with 64 is a call, whose registers are spilled.
__device__ __forceinline__ long long start_of(long long row, int classes, int stride) {
  const unsigned n = static_cast<unsigned>(row) / static_cast<unsigned>(stride);
  return static_cast<long long>(n) * classes * stride + (static_cast<unsigned>(row) - n * static_cast<unsigned>(stride));
}

// Calls f(c, value) for this thread's classes of a row.
template <int GROUP, class T, class F>
__device__ __forceinline__ void for_row(const T* in, int stride, bool vector, int classes, F f) {
  pf::for_columns<GROUP, pf::kPack<T>>(vector, classes, [&](int j, auto width) {
    constexpr int V = decltype(width)::value;
    const auto pack = pf::load<V>(in + static_cast<long long>(j) * stride);
#pragma unroll
    for (int k = 0; k < V; ++k) f(j + k, pf::widen(pack.values[k]));
  });
}

template <int GROUP, class T>
__device__ __forceinline__ pf::compute_t<T> row_maximum(const T* in, int stride, bool vector, int classes) {
  using C = pf::compute_t<T>;
  C top = -static_cast<C>(__int_as_float(0x7f800000));
  for_row<GROUP>(in, stride, vector, classes, [&](int, C value) { top = pf::Max()(top, value); });
  return pf::group_reduce<GROUP>(top, pf::Max());
}

template <class T>
__device__ __forceinline__ pf::compute_t<T> or_one(const T* weight, int c) {
  return weight ? weight[c] : T(1);
}

// The weight of a target class: 0 where it is ignored. A class out of range gives NaN and is noted.
template <class C>
__device__ __forceinline__ C class_weight(const C* weight, long long k, long long ignored, int classes,
                                          long long* notes = nullptr) {
  if (k == ignored) return C(0);
  if (k < 0 || k >= classes) {
    pf::note_out_of_range(notes, k, classes);
    return static_cast<C>(__int_as_float(0x7fffffff));
  }
  return or_one(weight, static_cast<int>(k));
}

}  // namespace

// Per row: the loss (into `y`, or `losses` if they are to be added up), maximum, Σ exp(x - maximum) and weight of the
// target. The target is `target`, or `probabilities` if that is null.
template <class T, int GROUP>
__global__ void __launch_bounds__(256, 2)
    class_loss(const T* __restrict__ x, const long long* __restrict__ target, const T* __restrict__ probabilities,
               const pf::compute_t<T>* __restrict__ weight, T* __restrict__ y, pf::compute_t<T>* __restrict__ losses,
               pf::compute_t<T>* __restrict__ top, pf::compute_t<T>* __restrict__ mass,
               pf::compute_t<T>* __restrict__ weights, long long* __restrict__ notes, long long rows, int classes,
               int stride, long long ignored, double smoothing, double share_, int vector) {
  using C = pf::compute_t<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;
  const long long start = start_of(row, classes, stride);
  const C maximum = row_maximum<GROUP>(x + start, stride, vector, classes);
  const C keep = C(1) - C(smoothing), share = C(share_);
  C sum = 0, dots = 0, sums = 0;
  for_row<GROUP>(x + start, stride, vector, classes, [&](int c, C value) {
    const C z = value - maximum;
    sum += exp(z);
    if (probabilities) {
      C q = pf::widen(probabilities[start + static_cast<long long>(c) * stride]);
      if (smoothing != 0) q = q * keep + share;
      q *= or_one(weight, c);
      dots += z * q;
      sums += q;
    } else if (smoothing != 0) {
      const C w = or_one(weight, c);
      dots += z * w;
      sums += w;
    }
  });
  sum = pf::group_reduce<GROUP>(sum, pf::Sum());
  if (probabilities || smoothing != 0) {
    dots = pf::group_reduce<GROUP>(dots, pf::Sum());
    sums = pf::group_reduce<GROUP>(sums, pf::Sum());
  }
  if (!pf::writes_row<GROUP>()) return;
  const C log_mass = log(sum);
  C loss, w = C(1);
  if (probabilities) {
    loss = log_mass * sums - dots;
  } else {
    const long long k = target[row];
    w = class_weight(weight, k, ignored, classes, notes);
    if (k == ignored) {
      loss = 0;
    } else {
      const C picked = w == w ? C(pf::widen(x[start + k * stride])) - maximum : C(0);
      loss = (log_mass - picked) * w;
      if (smoothing != 0) loss = loss * keep + (log_mass * sums - dots) * share;
    }
  }
  if (y) {
    y[row] = pf::narrow<T>(loss);
  } else {
    losses[row] = loss;
  }
  top[row] = maximum;
  mass[row] = sum;
  weights[row] = w;
}

// gx = p · Σ q - q, times the cotangent; `grad` has one element, or one per row (`each`); `total` is null unless the
// loss is a mean.
template <class T, int GROUP>
__global__ void __launch_bounds__(256, 2)
    class_loss_backward(const T* __restrict__ grad, const T* __restrict__ x, const long long* __restrict__ target,
                        const T* __restrict__ probabilities, const pf::compute_t<T>* __restrict__ weight,
                        const pf::compute_t<T>* __restrict__ top, const pf::compute_t<T>* __restrict__ mass,
                        const pf::compute_t<T>* __restrict__ total, T* __restrict__ gx, long long rows, int classes,
                        int stride, int each, long long ignored, double smoothing, double share_,
               int vector) {
  using C = pf::compute_t<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;
  const long long start = start_of(row, classes, stride);
  const C keep = C(1) - C(smoothing), share = C(share_), maximum = top[row];
  C g = pf::widen(grad[each ? row : 0]);
  if (total) g /= *total;
  C sums = 0;
  if (probabilities) {
    for_row<GROUP>(probabilities + start, stride, false, classes, [&](int c, C q) {
      if (smoothing != 0) q = q * keep + share;
      sums += q * or_one(weight, c);
    });
    sums = pf::group_reduce<GROUP>(sums, pf::Sum());
  } else if (smoothing != 0 && weight) {
    pf::for_columns<GROUP, 1>(false, classes, [&](int c, auto) { sums += weight[c]; });
    sums = pf::group_reduce<GROUP>(sums, pf::Sum());
  } else {
    sums = C(classes);
  }
  const long long k = probabilities ? -1 : target[row];
  C at_target = 0, everywhere = 0, factor;
  if (probabilities) {
    factor = g * sums / mass[row];
  } else {
    if (k == ignored) g = 0;
    at_target = g * class_weight(weight, k, ignored, classes) * keep;
    everywhere = smoothing != 0 ? g * share : C(0);
    factor = (at_target + everywhere * sums) / mass[row];
  }
  pf::for_columns<GROUP, pf::kPack<T>>(vector, classes, [&](int j, auto width) {
    constexpr int V = decltype(width)::value;
    const long long at = start + static_cast<long long>(j) * stride;
    auto pack = pf::load<V>(x + at);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const int c = j + i;
      C value = exp(pf::widen(pack.values[i]) - maximum) * factor;
      if (probabilities) {
        C q = pf::widen(probabilities[at + i]);
        if (smoothing != 0) q = q * keep + share;
        value -= q * or_one(weight, c) * g;
      } else {
        if (smoothing != 0) value -= everywhere * or_one(weight, c);
        if (c == k) value -= at_target;
      }
      pack.values[i] = pf::narrow<T>(value);
    }
    pf::store(gx + at, pack);
  });
}

// Losses and weights of targets for log-probabilities.
template <class T>
__global__ void __launch_bounds__(256, 2)
    nll_rows(const T* __restrict__ x, const long long* __restrict__ target,
             const pf::compute_t<T>* __restrict__ weight, T* __restrict__ y, pf::compute_t<T>* __restrict__ losses,
             pf::compute_t<T>* __restrict__ weights, long long* __restrict__ notes, long long rows, int classes,
             int stride, long long ignored) {
  using C = pf::compute_t<T>;
  const long long row = pf::row_here<1>();
  if (row >= rows) return;
  const long long k = target[row];
  const C w = class_weight(weight, k, ignored, classes, notes);
  C loss = w;  // NaN for a class out of range
  if (k == ignored) {
    loss = 0;
  } else if (w == w) {
    loss = -w * pf::widen(x[start_of(row, classes, stride) + k * stride]);
  }
  if (y) {
    y[row] = pf::narrow<T>(loss);
  } else {
    losses[row] = loss;
  }
  weights[row] = w;
}

template <class T>
__global__ void __launch_bounds__(256, 2)
    nll_backward(const T* __restrict__ grad, const long long* __restrict__ target,
                 const pf::compute_t<T>* __restrict__ weight, const pf::compute_t<T>* __restrict__ total,
                 T* __restrict__ gx, long long count, int classes, int stride, int each, long long ignored) {
  using C = pf::compute_t<T>;
  const long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const unsigned i = static_cast<unsigned>(at), plane = i / static_cast<unsigned>(stride);
  const long long n = plane / static_cast<unsigned>(classes), row = n * stride + (i - plane * static_cast<unsigned>(stride));
  const long long k = target[row];
  C value = 0;
  if (k != ignored && k == plane - n * classes) {
    value = -pf::widen(grad[each ? row : 0]) * or_one(weight, static_cast<int>(k));
    if (total) value /= *total;
  }
  gx[at] = pf::narrow<T>(value);
}

// Sums of losses and weights over chunks of rows: a block per chunk.
template <class C>
__global__ void __launch_bounds__(256, 2)
    sum_losses(const C* __restrict__ losses, const C* __restrict__ weights, C* __restrict__ loss_sums,
               C* __restrict__ weight_sums, long long rows, int chunk) {
  const long long first = static_cast<long long>(blockIdx.x) * chunk, last = first + chunk < rows ? first + chunk : rows;
  C loss = 0, weight = 0;
  for (long long row = first + threadIdx.x; row < last; row += 256) {
    if (losses) loss += losses[row];
    weight += weights[row];
  }
  loss = pf::block_reduce<256>(loss, pf::Sum());
  weight = pf::block_reduce<256>(weight, pf::Sum());
  if (threadIdx.x == 0) {
    loss_sums[blockIdx.x] = loss;
    weight_sums[blockIdx.x] = weight;
  }
}

// The sums of the chunks, and the loss (`y` is null where each row's is wanted). One block.
template <class T>
__global__ void __launch_bounds__(256, 2)
    finish_losses(const pf::compute_t<T>* __restrict__ losses, const pf::compute_t<T>* __restrict__ weights,
                  T* __restrict__ y, pf::compute_t<T>* __restrict__ total, int count, int mean) {
  using C = pf::compute_t<T>;
  C loss = 0, weight = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += 256) {
    if (y) loss += losses[i];
    weight += weights[i];
  }
  loss = pf::block_reduce<256>(loss, pf::Sum());
  weight = pf::block_reduce<256>(weight, pf::Sum());
  if (threadIdx.x == 0) {
    if (y) *y = pf::narrow<T>(mean ? loss / weight : loss);
    *total = weight;
  }
}

// log Σ exp over each row. An infinite maximum is not subtracted from itself.
template <class T, int GROUP>
__global__ void __launch_bounds__(256, 2)
    logsumexp_rows(const T* __restrict__ x, T* __restrict__ y, long long rows, int classes, int stride, int vector) {
  using C = pf::compute_t<T>;
  const long long row = pf::row_here<GROUP>();
  if (row >= rows) return;
  const T* const in = x + start_of(row, classes, stride);
  C maximum = row_maximum<GROUP>(in, stride, vector, classes);
  if (!(maximum - maximum == C(0))) maximum = 0;
  C sum = 0;
  for_row<GROUP>(in, stride, vector, classes, [&](int, C value) { sum += exp(value - maximum); });
  sum = pf::group_reduce<GROUP>(sum, pf::Sum());
  if (pf::writes_row<GROUP>()) y[row] = pf::narrow<T>(log(sum) + maximum);
}
