// The thread pool behind every native kernel: one parallel loop over an index range.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace pyframe {

// The number of threads a parallel loop may use, the calling thread included. It starts as PYFRAME_NUM_THREADS, or
// else as the number of CPUs this process may run on.
int num_threads();

// Changes the number of threads. Waits for a running loop. Throws std::invalid_argument unless 1 <= count <= 1024,
// and std::logic_error inside a parallel loop.
void set_num_threads(int count);

// The number of CPUs this process may use: its affinity mask, lowered by a container's CPU quota.
int usable_cpus();

// Which of the pool's threads this is: 0 for any thread that is not a worker. Always below num_threads() inside a
// parallel loop, so it can index per-thread scratch memory of that loop.
int thread_index();

// True inside the body of a parallel loop; a loop started there runs on this thread alone.
bool in_parallel();

// Calls body(context, chunk_begin, chunk_end) for disjoint chunks that cover [begin, end), each of at least `grain`
// indices (except where the whole range is shorter).
//
// The chunks depend only on (end - begin, grain, num_threads()), never on timing, so a loop that keeps one partial
// result per chunk gives the same bits every time. Which thread runs a chunk is not fixed: threads start with their own
// share and then take over what others have not begun.
//
// Any thread may call this. While the pool is busy with another thread's loop, and inside a parallel loop, the chunks
// run one after the other on the calling thread. The first exception thrown by a chunk is rethrown here after all
// running chunks have ended; chunks not begun by then are skipped. A body must not need the Python interpreter lock,
// and must not fork.
using RangeBody = void (*)(void* context, std::int64_t begin, std::int64_t end);
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, RangeBody body, void* context);

// The same for any callable body(chunk_begin, chunk_end); nothing is allocated.
template <class Body>
void parallel_for(std::int64_t begin, std::int64_t end, std::int64_t grain, Body&& body) {
  using Function = std::remove_reference_t<Body>;
  parallel_for(
      begin, end, grain,
      [](void* context, std::int64_t chunk_begin, std::int64_t chunk_end) {
        (*static_cast<Function*>(context))(chunk_begin, chunk_end);
      },
      const_cast<void*>(static_cast<const void*>(std::addressof(body))));
}

// Fork handling, called by fork.cpp: joins all workers before a fork and allows loops again after it. Workers restart
// with the next loop, in the parent and in the child.
void thread_pool_before_fork();
void thread_pool_after_fork();

}  // namespace pyframe
