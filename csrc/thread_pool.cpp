#include "thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace pyframe {
namespace {

constexpr int kMaxThreads = 1024;

// Chunks per thread: with more than one, a thread that the system holds up (a busy machine, a slow core) leaves work
// that the others can take over.
constexpr std::int64_t kChunksPerThread = 4;

// How long a thread looks for work, or for the end of a loop, before it sleeps. Waking a sleeper costs 5 µs, on virtual
// machines 50 and more; in eager training 10 to 200 µs of Python lie between two loops. After the first moments the
// processor is offered to others at each look (0.6 µs).
constexpr std::chrono::microseconds kSpin{300}, kBusySpin{20};

thread_local int tl_index = 0;
thread_local bool tl_in_parallel = false;

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Waits for a condition by spinning; returns whether it came true in time.
template <class Condition>
bool spin_until(bool worthwhile, Condition condition) {
  if (condition()) return true;
  if (!worthwhile) return false;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int i = 0; i < 32; ++i) {
      relax();
      if (condition()) return true;
    }
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited >= kSpin) return false;
    if (waited >= kBusySpin) sched_yield();
  }
}

// The CPU time a container may use, in whole CPUs, or a very large number where nothing limits it.
int cpu_quota() {
  int cpus = kMaxThreads;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
    long long quota = 0, period = 0;
    if (std::fscanf(file, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
      cpus = static_cast<int>(std::min<long long>((quota + period - 1) / period, kMaxThreads));
    }
    std::fclose(file);
  }
  return cpus;
}

int default_threads() {
  if (const char* text = std::getenv("PYFRAME_NUM_THREADS")) {
    char* end = nullptr;
    const long count = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && count >= 1) return static_cast<int>(std::min<long>(count, kMaxThreads));
  }
  return usable_cpus();
}

// The part of a range that chunk number `index` of `count` covers: sizes differ by at most one, and so do the sums of
// neighbouring chunks, which are a thread's share.
struct Partition {
  std::int64_t begin, size, count;

  std::int64_t start(std::int64_t index) const {
    return begin + index * (size / count) + index * (size % count) / count;
  }
};

class Pool {
 public:
  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int count) {
    std::lock_guard<std::mutex> lock(dispatch_);
    if (count == threads()) return;
    stop_workers();
    threads_.store(count, std::memory_order_relaxed);
  }

  void run(const Partition& chunks, RangeBody body, void* context) {
    if (chunks.count == 1) return body(context, chunks.begin, chunks.begin + chunks.size);
    std::unique_lock<std::mutex> lock(dispatch_, std::defer_lock);
    if (tl_in_parallel || threads() == 1 || !lock.try_lock()) return run_inline(chunks, body, context);
    start_workers();
    post(chunks, body, context);
    tl_in_parallel = true;
    work(0, generation_.load(std::memory_order_relaxed));
    tl_in_parallel = false;
    wait_for_the_others();
    if (error_) {
      std::exception_ptr error = std::move(error_);
      error_ = nullptr;
      lock.unlock();
      std::rethrow_exception(error);
    }
  }

  void before_fork() {
    dispatch_.lock();
    stop_workers();
  }

  void after_fork() { dispatch_.unlock(); }

 private:
  // The chunks a thread starts with, in one word so that they are claimed with one compare-and-swap: the loop's
  // generation (32 bits), the next chunk and the end (16 bits each). The generation keeps a thread that is late from
  // claiming a chunk of the next loop by mistake; a claimed chunk keeps its loop, hence the fields below, in place.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> word{0};
  };

  static void run_inline(const Partition& chunks, RangeBody body, void* context) {
    struct Scope {
      bool before = tl_in_parallel;
      Scope() { tl_in_parallel = true; }
      ~Scope() { tl_in_parallel = before; }
    } scope;
    for (std::int64_t i = 0; i < chunks.count; ++i) body(context, chunks.start(i), chunks.start(i + 1));
  }

  void post(const Partition& chunks, RangeBody body, void* context) {
    chunks_ = chunks;
    body_ = body;
    context_ = context;
    failed_.store(false, std::memory_order_relaxed);
    pending_.store(chunks.count, std::memory_order_relaxed);
    const std::uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
    const std::int64_t active = std::min<std::int64_t>(team_, chunks.count);
    for (std::int64_t i = 0; i < active; ++i) {
      const std::uint64_t first = i * chunks.count / active, end = (i + 1) * chunks.count / active;
      shares_[i].word.store(std::uint64_t{generation} << 32 | first << 16 | end, std::memory_order_release);
    }
    generation_.store(generation, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      { std::lock_guard<std::mutex> lock(sleep_); }  // a worker between its last look and its wait is let through
      if (active == team_) {
        work_posted_.notify_all();
      } else {
        for (std::int64_t i = 1; i < active; ++i) work_posted_.notify_one();
      }
    }
  }

  // Claims a chunk of a share; -1 where none is left or the share already belongs to another loop.
  std::int64_t claim(Share& share, std::uint32_t generation) {
    std::uint64_t word = share.word.load(std::memory_order_acquire);
    for (;;) {
      const std::uint64_t next = word >> 16 & 0xffff, end = word & 0xffff;
      if (word >> 32 != generation || next >= end) return -1;
      if (share.word.compare_exchange_weak(word, word + (1 << 16), std::memory_order_acq_rel,
                                           std::memory_order_acquire)) {
        return static_cast<std::int64_t>(next);
      }
    }
  }

  void work(int index, std::uint32_t generation) {
    for (int i = 0; i < team_; ++i) {
      Share& share = shares_[(index + i) % team_];
      for (std::int64_t chunk; (chunk = claim(share, generation)) >= 0;) run_chunk(chunk);
    }
  }

  void run_chunk(std::int64_t chunk) {
    if (!failed_.load(std::memory_order_relaxed)) {
      try {
        body_(context_, chunks_.start(chunk), chunks_.start(chunk + 1));
      } catch (...) {
        std::lock_guard<std::mutex> lock(sleep_);
        if (!error_) error_ = std::current_exception();
        failed_.store(true, std::memory_order_relaxed);
      }
    }
    if (pending_.fetch_sub(1, std::memory_order_seq_cst) == 1 && caller_sleeps_.load(std::memory_order_seq_cst)) {
      { std::lock_guard<std::mutex> lock(sleep_); }
      work_done_.notify_one();
    }
  }

  void wait_for_the_others() {
    const auto done = [this] { return pending_.load(std::memory_order_seq_cst) == 0; };
    if (spin_until(spin_, done)) return;
    std::unique_lock<std::mutex> lock(sleep_);
    caller_sleeps_.store(true, std::memory_order_seq_cst);
    work_done_.wait(lock, done);
    caller_sleeps_.store(false, std::memory_order_relaxed);
  }

  void worker(int index, std::uint32_t seen) {
    tl_index = index;
    tl_in_parallel = true;
#if defined(__linux__)
    worker_ids_[index - 1] = static_cast<pid_t>(syscall(SYS_gettid));
    char name[16];
    std::snprintf(name, sizeof name, "pyframe-%d", index);
    pthread_setname_np(pthread_self(), name);
#endif
    const auto posted = [this, &seen] { return generation_.load(std::memory_order_seq_cst) != seen; };
    for (;;) {
      if (!spin_until(spin_, posted)) {
        std::unique_lock<std::mutex> lock(sleep_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        work_posted_.wait(lock, posted);
        sleepers_.fetch_sub(1, std::memory_order_relaxed);
      }
      if (stopping_.load(std::memory_order_acquire)) return;
      seen = generation_.load(std::memory_order_acquire);
      work(index, seen);
    }
  }

  void start_workers() {
    if (team_ > 0) return;
    const int count = threads();
    shares_ = std::make_unique<Share[]>(count);
    worker_ids_.assign(count - 1, 0);
    workers_.reserve(count - 1);
    stopping_.store(false, std::memory_order_relaxed);
    // More threads than CPUs: whoever spins keeps a CPU from the thread it is waiting for.
    spin_ = count <= usable_cpus();
    team_ = count;
    // Workers inherit the signal mask: signals must reach Python's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const std::uint32_t generation = generation_.load(std::memory_order_relaxed);
    try {
      for (int i = 1; i < count; ++i) workers_.emplace_back(&Pool::worker, this, i, generation);
    } catch (const std::system_error&) {
      // The system refuses more threads. Whoever runs takes the missing ones' chunks, so this only costs speed.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void stop_workers() {
    if (team_ == 0) return;
    stopping_.store(true, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_seq_cst);
    { std::lock_guard<std::mutex> lock(sleep_); }
    work_posted_.notify_all();
    for (std::thread& thread : workers_) thread.join();
    wait_until_gone();
    workers_.clear();
    team_ = 0;
  }

  // A joined thread stays in the kernel's count for a moment longer. Python reads that count after a fork and warns
  // about every live thread, so let the count settle.
  void wait_until_gone() {
#if defined(__linux__)
    const pid_t process = getpid();
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      for (int tries = 0; tries < 1000 && syscall(SYS_tgkill, process, worker_ids_[i], 0) == 0; ++tries) {
        sched_yield();
      }
    }
#endif
  }

  std::atomic<int> threads_{default_threads()};
  std::mutex dispatch_;  // held by the thread whose loop is running; guards everything below

  int team_ = 0;  // threads of the running team, the caller included; 0 while no workers are running
  bool spin_ = true;
  std::vector<std::thread> workers_;
  std::vector<pid_t> worker_ids_;
  std::unique_ptr<Share[]> shares_;
  std::atomic<bool> stopping_{false};

  // The running loop.
  Partition chunks_{0, 0, 1};
  RangeBody body_ = nullptr;
  void* context_ = nullptr;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  std::atomic<std::int64_t> pending_{0};
  std::atomic<std::uint32_t> generation_{0};

  std::mutex sleep_;  // held only for moments: around going to sleep, and to store an exception
  std::condition_variable work_posted_, work_done_;
  std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
};

// Never destroyed: daemon threads may still run loops while the process exits.
Pool& pool() {
  static Pool* const instance = new Pool;
  return *instance;
}

}  // namespace

int usable_cpus() {
  static const int count = [] {
    int cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
#if defined(__linux__)
    for (std::size_t size = CPU_SETSIZE; size <= (1u << 16); size *= 2) {  // grows for very large machines
      cpu_set_t* set = CPU_ALLOC(size);
      const bool known = set && sched_getaffinity(0, CPU_ALLOC_SIZE(size), set) == 0;
      if (known) cpus = std::max(1, CPU_COUNT_S(CPU_ALLOC_SIZE(size), set));
      CPU_FREE(set);
      if (known) break;
    }
#endif
    return std::min({cpus, cpu_quota(), kMaxThreads});
  }();
  return count;
}

int num_threads() { return pool().threads(); }

void set_num_threads(int count) {
  if (count < 1 || count > kMaxThreads) {
    throw std::invalid_argument("set_num_threads: expected 1 to " + std::to_string(kMaxThreads) +
                                " threads but got " + std::to_string(count));
  }
  if (tl_in_parallel) throw std::logic_error("set_num_threads: called inside a parallel loop");
  pool().set_threads(count);
}

int thread_index() { return tl_index; }

bool in_parallel() { return tl_in_parallel; }

void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, RangeBody body, void* context) {
  if (begin >= end) return;
  const std::int64_t size = end - begin;
  const std::int64_t most = std::max<std::int64_t>(1, size / std::max<std::int64_t>(1, grain));
  const std::int64_t threads = num_threads();
  const std::int64_t count = threads == 1 ? 1 : std::min(most, threads * kChunksPerThread);
  pool().run(Partition{begin, size, count}, body, context);
}

void thread_pool_before_fork() { pool().before_fork(); }

void thread_pool_after_fork() { pool().after_fork(); }

}  // namespace pyframe
