// Optimizer steps, clipping by the norm and unscaling, for all parameters in one launch.
//
// A table in device memory has the addresses of all arrays. The settings, the counts of updates and what follows from
// them for a step are in device memory too, so that a captured step counts on when it is replayed, and follows a new
// learning rate. A block updates kChunk elements of one parameter.
#include "pyframe/device.cuh"

namespace {

constexpr int kChunk = 4096, kThreads = 256;

// As in csrc/optim.h.
enum : int {
  kMaximize = 1,
  kDecay = 2,
  kDecoupled = 4,
  kFromEnd = 8,
  kAmsgrad = 16,
  kNesterov = 32,
  kDampening = 64,
  kMomentum = 128,
  kCentered = 256,
};

// A row of the table: addresses of the parameter, its gradient and three arrays of state (0: none), and the length.
struct Row {
  long long p, g, states[3], count;
};

template <class T>
__device__ __forceinline__ T* at(long long address) { return reinterpret_cast<T*>(address); }

// The row that a block works on: the last one whose first block is not after it.
__device__ __forceinline__ int row_of(const long long* first_block, int rows) {
  int low = 0, high = rows;  // first_block[low] <= block < first_block[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (first_block[middle] <= static_cast<long long>(blockIdx.x)) low = middle;
    else high = middle;
  }
  return low;
}

// ±g + decay · p
template <class T>
__device__ __forceinline__ T effective(T g, T p, T decay, int flags) {
  if (flags & kMaximize) g = -g;
  return (flags & kDecay) && !(flags & kDecoupled) ? g + p * decay : g;
}

template <class T>
__device__ __forceinline__ T lerp(T a, T b, T weight, int flags) {
  const T step = (b - a) * weight;
  return flags & kFromEnd ? b - step : a + step;
}

// A weight for lerp, from the nearer end.
__device__ __forceinline__ double lerp_weight(double weight) { return weight < 0.5 ? weight : 1 - weight; }

// An optimizer has `numbers`, what a step needs after so many updates `before` it (as its method of that name in
// pyframe/optim), `next`, the count after it, and `step`, the update of an element.
struct Sgd {
  // lr, momentum, dampening, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double before, int, double* out) {
    out[0] = settings[1], out[1] = before > 0 ? 1 - settings[2] : 1, out[2] = settings[3], out[3] = -settings[0];
  }
  __device__ __forceinline__ static double next(double) { return 1; }  // only whether it is the first one counts

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T momentum = T(numbers[0]), keep = T(numbers[1]);
    T d = effective(g, value, T(numbers[2]), flags);
    if (flags & kMomentum) {
      s[0] = s[0] * momentum + (flags & kDampening ? d * keep : d);
      d = flags & kNesterov ? d + s[0] * momentum : s[0];
    }
    return value + d * T(numbers[3]);
  }
};

struct Adam {
  // lr, beta 1, beta 2, epsilon, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double before, int flags, double* out) {
    const double beta1 = settings[1], beta2 = settings[2], c = sqrt(1 - pow(beta2, before + 1));
    out[0] = lerp_weight(1 - beta1), out[1] = beta2, out[2] = 1 - beta2, out[3] = c * settings[3];
    out[4] = -settings[0] * c / (1 - pow(beta1, before + 1));
    out[5] = flags & kDecoupled ? 1 - settings[0] * settings[4] : settings[4];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T decay = T(numbers[5]), d = effective(g, value, decay, flags);
    if ((flags & kDecay) && (flags & kDecoupled)) value *= decay;
    s[0] = lerp(s[0], d, T(numbers[0]), flags);
    s[1] = s[1] * T(numbers[1]) + d * T(numbers[2]) * d;
    T second = s[1];
    if (flags & kAmsgrad) second = s[2] = pf::Max()(s[2], second);
    return value + s[0] * T(numbers[4]) / (sqrt(second) + T(numbers[3]));
  }
};

struct RmsProp {
  // lr, alpha, epsilon, momentum, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double, int, double* out) {
    const double alpha = settings[1];
    out[0] = alpha, out[1] = 1 - alpha, out[2] = lerp_weight(1 - alpha), out[3] = settings[2], out[4] = settings[3];
    out[5] = -settings[0], out[6] = settings[4];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T d = effective(g, value, T(numbers[6]), flags), step = T(numbers[5]);
    s[0] = s[0] * T(numbers[0]) + d * T(numbers[1]) * d;
    T square = s[0];
    if (flags & kCentered) {
      s[2] = lerp(s[2], d, T(numbers[2]), flags);
      square -= s[2] * s[2];
    }
    const T root = sqrt(square) + T(numbers[3]);
    if (flags & kMomentum) {
      s[1] = s[1] * T(numbers[4]) + d / root;
      return value + s[1] * step;
    }
    return value + d * step / root;
  }
};

struct Adagrad {
  // lr, its decay, epsilon, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double before, int, double* out) {
    out[0] = -settings[0] / (1 + before * settings[1]), out[1] = settings[2], out[2] = settings[3];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T d = effective(g, value, T(numbers[2]), flags);
    s[0] += d * d;
    return value + d * T(numbers[0]) / (sqrt(s[0]) + T(numbers[1]));
  }
};

struct Adadelta {
  // lr, rho, epsilon, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double, int, double* out) {
    out[0] = -settings[0], out[1] = settings[1], out[2] = 1 - settings[1], out[3] = settings[2], out[4] = settings[3];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T rho = T(numbers[1]), rest = T(numbers[2]), eps = T(numbers[3]);
    const T d = effective(g, value, T(numbers[4]), flags);
    s[0] = s[0] * rho + d * rest * d;
    const T move = sqrt(s[1] + eps) / sqrt(s[0] + eps) * d;
    s[1] = s[1] * rho + move * rest * move;
    return value + move * T(numbers[0]);
  }
};

struct Adamax {
  // lr, beta 1, beta 2, epsilon, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double before, int, double* out) {
    const double beta1 = settings[1];
    out[0] = lerp_weight(1 - beta1), out[1] = settings[2], out[2] = settings[3];
    out[3] = -settings[0] / (1 - pow(beta1, before + 1)), out[4] = settings[4];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T d = effective(g, value, T(numbers[4]), flags);
    s[0] = lerp(s[0], d, T(numbers[0]), flags);
    s[1] = pf::Max()(s[1] * T(numbers[1]), (d < T(0) ? -d : d) + T(numbers[2]));
    return value + s[0] * T(numbers[3]) / s[1];
  }
};

struct RAdam {
  // lr, beta 1, beta 2, epsilon, weight decay
  __device__ __forceinline__ static void numbers(const double* settings, double before, int flags, double* out) {
    const double beta1 = settings[1], beta2 = settings[2], step = before + 1, power = pow(beta2, step);
    const double longest = 2 / (1 - beta2) - 1, length = longest - 2 * step * power / (1 - power);
    out[0] = lerp_weight(1 - beta1), out[1] = beta2, out[2] = 1 - beta2, out[3] = settings[3];
    out[4] = -settings[0] / (1 - pow(beta1, step));
    out[5] = 0;  // the variance is not tractable yet
    if (length > 5) {
      out[5] = sqrt((1 - power) * (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
    }
    out[6] = flags & kDecoupled ? 1 - settings[0] * settings[4] : settings[4];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T decay = T(numbers[6]), rectify = T(numbers[5]), d = effective(g, value, decay, flags);
    if ((flags & kDecay) && (flags & kDecoupled)) value *= decay;
    s[0] = lerp(s[0], d, T(numbers[0]), flags);
    s[1] = s[1] * T(numbers[1]) + d * T(numbers[2]) * d;
    const T move = s[0] * T(numbers[4]);
    return value + (rectify == T(0) ? move : move * rectify / (sqrt(s[1]) + T(numbers[3])));
  }
};

struct NAdam {
  // lr, beta 1, beta 2, epsilon, weight decay, momentum decay. out[2] is the product of all momenta before; it is float32
  // on the host too.
  __device__ __forceinline__ static void numbers(const double* settings, double before, int flags, double* out) {
    const double beta1 = settings[1], beta2 = settings[2], step = before + 1;
    const double now = beta1 * (1 - 0.5 * pow(0.96, step * settings[5]));
    const double next = beta1 * (1 - 0.5 * pow(0.96, (step + 1) * settings[5]));
    const double product = static_cast<float>(out[2]) * static_cast<float>(now);
    out[0] = lerp_weight(1 - beta1), out[1] = beta2, out[2] = product, out[3] = 1 - pow(beta2, step);
    out[4] = settings[3], out[5] = -settings[0] * (1 - now) / (1 - product);
    out[6] = -settings[0] * next / (1 - product * next);
    out[7] = flags & kDecoupled ? 1 - settings[0] * settings[4] : settings[4];
  }
  __device__ __forceinline__ static double next(double before) { return before + 1; }

  template <class T>
  __device__ __forceinline__ static T step(T value, T g, T* s, const double* numbers, int flags) {
    const T decay = T(numbers[7]), d = effective(g, value, decay, flags);
    if ((flags & kDecay) && (flags & kDecoupled)) value *= decay;
    s[0] = lerp(s[0], d, T(numbers[0]), flags);
    s[1] = s[1] * T(numbers[1]) + d * T(1 - numbers[1]) * d;
    const T root = sqrt(s[1] / T(numbers[3])) + T(numbers[4]);
    return value + d * T(numbers[5]) / root + s[0] * T(numbers[6]) / root;
  }
};

}  // namespace

// The numbers of a step, 8 per row, and one update more in `counts`. A thread per row. Where *skip, if not null, is not 0,
// this and the step do nothing.
template <class Step>
__global__ void __launch_bounds__(128)
    optim_numbers(const double* __restrict__ settings, double* __restrict__ counts, double* __restrict__ numbers,
                  const int* __restrict__ skip, int rows, int flags) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (row >= rows || (skip && *skip)) return;
  const double before = counts[row];
  Step::numbers(settings, before, flags, numbers + 8 * row);
  counts[row] = Step::next(before);
}

// `scale`, if not null, is what gradients are multiplied with first.
template <class T, class Step>
__global__ void __launch_bounds__(256, 2)
    optim_step(const long long* __restrict__ first_block, const long long* __restrict__ table,
               const double* __restrict__ numbers, const T* __restrict__ scale, const int* __restrict__ skip, int rows,
               int flags) {
  if (skip && *skip) return;
  const int number = row_of(first_block, rows);
  const Row row = reinterpret_cast<const Row*>(table)[number];
  T* const p = at<T>(row.p);
  const T* const g = at<const T>(row.g);
  double local[8];
#pragma unroll
  for (int k = 0; k < 8; ++k) local[k] = numbers[number * 8 + k];
  const T factor = scale ? *scale : T(1);
  const long long start = (static_cast<long long>(blockIdx.x) - first_block[number]) * kChunk;
  const long long end = start + kChunk < row.count ? start + kChunk : row.count;
  auto update = [&](long long i, auto width) {
    constexpr int V = sizeof(width) / sizeof(T);
    auto ps = pf::load<V>(p + i);
    const auto gs = pf::load<V>(g + i);
    pf::Pack<T, V> states[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      if (row.states[k]) states[k] = pf::load<V>(at<T>(row.states[k]) + i);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) {
      T s[3];
#pragma unroll
      for (int k = 0; k < 3; ++k) s[k] = row.states[k] ? states[k].values[v] : T(0);
      ps.values[v] = Step::template step<T>(ps.values[v], gs.values[v] * factor, s, local, flags);
#pragma unroll
      for (int k = 0; k < 3; ++k) states[k].values[v] = s[k];
    }
    pf::store(p + i, ps);
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      if (row.states[k]) pf::store(at<T>(row.states[k]) + i, states[k]);
    }
  };
  constexpr int V = pf::kPack<T>;
  const bool packs = (row.p | row.g | row.states[0] | row.states[1] | row.states[2]) % 16 == 0;
  long long i = start + static_cast<long long>(threadIdx.x) * V;
  for (; i < end; i += kThreads * V) {
    if (packs && i + V <= end) {
      update(i, pf::Pack<T, V>{});
    } else {
      for (int k = 0; k < V && i + k < end; ++k) update(i + k, pf::Pack<T, 1>{});
    }
  }
}

// Σ g² of each block's chunk. Rows as above; only the gradient counts.
template <class T>
__global__ void __launch_bounds__(256)
    square_sums(const long long* __restrict__ first_block, const long long* __restrict__ table, T* __restrict__ sums,
                int rows) {
  const int number = row_of(first_block, rows);
  const Row row = reinterpret_cast<const Row*>(table)[number];
  const T* const g = at<const T>(row.g);
  const long long start = (static_cast<long long>(blockIdx.x) - first_block[number]) * kChunk;
  const long long end = start + kChunk < row.count ? start + kChunk : row.count;
  T sum = 0;
  for (long long i = start + threadIdx.x; i < end; i += kThreads) sum += g[i] * g[i];
  sum = pf::block_reduce<kThreads>(sum, pf::Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The norm from the blocks' sums. One block.
template <class T>
__global__ void __launch_bounds__(256)
    finish_norm(const T* __restrict__ sums, T* __restrict__ norm, long long count) {
  T sum = 0;
  for (long long i = threadIdx.x; i < count; i += kThreads) sum += sums[i];
  sum = pf::block_reduce<kThreads>(sum, pf::Sum());
  if (threadIdx.x == 0) *norm = sqrt(sum);
}

// All gradients times limit / (norm + 1e-6), unless that is 1 or more.
template <class T>
__global__ void __launch_bounds__(256)
    clip_gradients(const long long* __restrict__ first_block, const long long* __restrict__ table,
                   const T* __restrict__ norm, int rows, double limit) {
  const T factor = T(limit) / (*norm + T(1e-6));
  if (factor >= T(1)) return;
  const int number = row_of(first_block, rows);
  const Row row = reinterpret_cast<const Row*>(table)[number];
  T* const g = at<T>(row.g);
  const long long start = (static_cast<long long>(blockIdx.x) - first_block[number]) * kChunk;
  const long long end = start + kChunk < row.count ? start + kChunk : row.count;
  for (long long i = start + threadIdx.x; i < end; i += kThreads) g[i] *= factor;
}

// All gradients times *inverse; *found becomes 1 if one of them was infinite or NaN before.
template <class T>
__global__ void __launch_bounds__(256)
    unscale_gradients(const long long* __restrict__ first_block, const long long* __restrict__ table,
                      const float* __restrict__ inverse, int* __restrict__ found, int rows) {
  const T factor = T(*inverse);
  const int number = row_of(first_block, rows);
  const Row row = reinterpret_cast<const Row*>(table)[number];
  T* const g = at<T>(row.g);
  const long long start = (static_cast<long long>(blockIdx.x) - first_block[number]) * kChunk;
  const long long end = start + kChunk < row.count ? start + kChunk : row.count;
  bool finite = true;
  for (long long i = start + threadIdx.x; i < end; i += kThreads) {
    const T value = g[i];
    finite = finite && value - value == T(0);  // infinity - infinity and NaN are NaN
    g[i] = value * factor;
  }
  if (!finite) atomicOr(found, 1);
}
