#include "fork.h"

#include <mutex>

#include <pthread.h>

#include "allocator.h"
#include "thread_pool.h"

namespace pyframe {
namespace {

// One handler for everything, because the order matters: workers may need the allocator to finish, so they are joined
// before it is locked.
void before_fork() {
  thread_pool_before_fork();
  allocator_before_fork();
}

void after_fork() {
  allocator_after_fork();
  thread_pool_after_fork();
}

}  // namespace

void register_fork_handlers() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(before_fork, after_fork, after_fork); });
}

}  // namespace pyframe
