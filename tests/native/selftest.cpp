// The thread pool and the matrix product without Python: run natively, under a sanitizer, or for another processor in an
// emulator (`make aarch64-check`, `make tsan-check`). Prints what failed; the exit status says whether anything did.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>
#include <vector>

#include "fork.h"
#include "gemm.h"
#include "thread_pool.h"

namespace {

using namespace pyframe;
using std::int64_t;

std::atomic<int> failures{0};

void check(bool good, const char* what, int64_t a = 0, int64_t b = 0, int64_t c = 0) {
  if (good) return;
  ++failures;
  std::printf("FAILED: %s (%lld, %lld, %lld)\n", what, static_cast<long long>(a), static_cast<long long>(b),
              static_cast<long long>(c));
}

// Small integers: their products and sums are exact, in any order.
template <class T>
std::vector<T> integers(int64_t count, unsigned seed) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& v : values) {
    seed = seed * 1664525u + 1013904223u;
    v = static_cast<T>(static_cast<int>(seed >> 24) % 7 - 3);
  }
  return values;
}

// One product with a bias and relu, compared element by element, and nothing written beside C.
template <class T>
void product(int64_t m, int64_t n, int64_t k, bool left_transposed, bool right_transposed) {
  const std::vector<T> left = integers<T>(m * k, 1), right = integers<T>(k * n, 2), bias = integers<T>(n, 3);
  const T guard = static_cast<T>(-77);
  const int64_t row_stride = n + 3;
  std::vector<T> c(static_cast<std::size_t>(m * row_stride + 64), guard);
  Gemm<T> p;
  p.m = m, p.n = n, p.k = k;
  p.left.data = left.data(), p.right.data = right.data();
  p.left.line_stride = left_transposed ? 1 : k, p.left.depth_stride = left_transposed ? m : 1;
  p.right.line_stride = right_transposed ? k : 1, p.right.depth_stride = right_transposed ? 1 : n;
  p.c = c.data(), p.row_stride = row_stride;
  p.column_bias = bias.data(), p.activation = Activation::relu;
  gemm(p);
  bool good = true;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = bias[j];
      for (int64_t kk = 0; kk < k; ++kk) {
        sum += left[i * p.left.line_stride + kk * p.left.depth_stride] *
               right[j * p.right.line_stride + kk * p.right.depth_stride];
      }
      good = good && c[i * row_stride + j] == (sum < 0 ? 0 : sum);
    }
    for (int64_t j = n; j < row_stride; ++j) good = good && c[i * row_stride + j] == guard;
  }
  check(good, sizeof(T) == 8 ? "float64 product" : "float32 product", m, n, k);
}

void products() {
  const int64_t shapes[][3] = {{1, 1, 1},    {3, 5, 7},      {14, 32, 16}, {15, 33, 17},  {64, 64, 64},  {1, 300, 200},
                               {300, 2, 90}, {8, 129, 1100}, {96, 96, 96}, {130, 65, 70}, {97, 150, 400}, {31, 9, 2500}};
  for (const auto& s : shapes) {
    for (int layout = 0; layout < 4; ++layout) {
      product<float>(s[0], s[1], s[2], layout & 1, layout & 2);
      product<double>(s[0], s[1], s[2], layout & 1, layout & 2);
    }
  }
}

void half() {
  const int64_t m = 20, n = 37, k = 45;
  std::vector<std::uint16_t> left(m * k), right(k * n), c(m * n);
  std::vector<float> a = integers<float>(m * k, 4), b = integers<float>(k * n, 5);
  const auto narrow = [](float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<std::uint16_t>(bits >> 16);  // exact for small integers
  };
  for (std::size_t i = 0; i < a.size(); ++i) left[i] = narrow(a[i]);
  for (std::size_t i = 0; i < b.size(); ++i) right[i] = narrow(b[i]);
  Gemm<float> p;
  p.m = m, p.n = n, p.k = k;
  p.left.data = left.data(), p.left.line_stride = k, p.left.depth_stride = 1, p.left.type = Element::bfloat16;
  p.right.data = right.data(), p.right.line_stride = 1, p.right.depth_stride = n, p.right.type = Element::bfloat16;
  p.half = c.data(), p.row_stride = n;
  gemm(p);
  bool good = true;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t kk = 0; kk < k; ++kk) sum += a[i * k + kk] * b[kk * n + j];
      std::uint32_t bits = static_cast<std::uint32_t>(c[i * n + j]) << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      good = good && std::fabs(value - sum) <= std::fabs(sum) / 256;
    }
  }
  check(good, "bfloat16 product", m, n, k);
}

void loops() {
  for (int64_t size : {1, 7, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(size));
    parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
    });
    bool good = true;
    for (auto& count : seen) good = good && count == 1;
    check(good, "every index once", size);
  }
  bool thrown = false;
  try {
    parallel_for(0, 100, 1, [](int64_t begin, int64_t end) {
      if (begin <= 50 && 50 < end) throw std::runtime_error("planted");
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  check(thrown, "an exception comes through");
}

void everything() {
  loops();
  products();
  half();
}

}  // namespace

int main() {
  register_fork_handlers();
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    everything();
  }
  std::vector<std::thread> callers;  // several threads at once
  for (int i = 0; i < 3; ++i) callers.emplace_back(everything);
  for (std::thread& caller : callers) caller.join();
  const pid_t child = fork();
  if (child == 0) {
    everything();
    _exit(failures ? 1 : 0);
  }
  everything();
  int status = 1;
  waitpid(child, &status, 0);
  check(status == 0, "the same after a fork, in the child", status);
  std::printf("%s\n", failures ? "FAILED" : "ok");
  return failures ? 1 : 0;
}
