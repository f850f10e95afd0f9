#include "fiber.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>

#include <sys/mman.h>
#include <unistd.h>

namespace pf_emulator {
namespace {

// A kernel's frames are small; address sanitizer makes them several times larger.
constexpr std::size_t kStackBytes = 128 << 10;

std::deque<Fiber>& stacks() {
  static auto* const all = new std::deque<Fiber>;  // never destroyed: kernels may run while the process exits
  return *all;
}

std::size_t page() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

// Saves what a call must preserve on the old stack, changes the stack, and takes the same from the new one.
extern "C" void pf_switch(void** from, void* to);

#if defined(__x86_64__)
asm(R"(
.text
.globl pf_switch
.hidden pf_switch
.type pf_switch, @function
pf_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size pf_switch, .-pf_switch
)");
constexpr std::size_t kSaved = 6;
#elif defined(__aarch64__)
asm(R"(
.text
.globl pf_switch
.hidden pf_switch
.type pf_switch, %function
pf_switch:
  sub sp, sp, #160
  stp d8, d9, [sp, #0]
  stp d10, d11, [sp, #16]
  stp d12, d13, [sp, #32]
  stp d14, d15, [sp, #48]
  stp x19, x20, [sp, #64]
  stp x21, x22, [sp, #80]
  stp x23, x24, [sp, #96]
  stp x25, x26, [sp, #112]
  stp x27, x28, [sp, #128]
  stp x29, x30, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp d8, d9, [sp, #0]
  ldp d10, d11, [sp, #16]
  ldp d12, d13, [sp, #32]
  ldp d14, d15, [sp, #48]
  ldp x19, x20, [sp, #64]
  ldp x21, x22, [sp, #80]
  ldp x23, x24, [sp, #96]
  ldp x25, x26, [sp, #112]
  ldp x27, x28, [sp, #128]
  ldp x29, x30, [sp, #144]
  add sp, sp, #160
  ret
.size pf_switch, .-pf_switch
)");
#else
#error "the CUDA emulator has no fiber switch for this processor"
#endif

void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.size);
#endif
  pf_switch(&from.stack_pointer, to.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void fiber_started([[maybe_unused]] Fiber& from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* stack = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &size);
  from.stack = const_cast<void*>(stack), from.size = size;
#endif
}

void prepare_fiber(Fiber& fiber, void (*main)()) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, fiber.size);  // a failed launch leaves frames behind
  fiber.fake_stack = nullptr;
#endif
  auto top = reinterpret_cast<std::uintptr_t>(fiber.stack) + fiber.size;
  top &= ~std::uintptr_t{15};
#if defined(__x86_64__)
  auto* words = reinterpret_cast<void**>(top) - 2;  // a return address and, for alignment, one more word
  words[1] = nullptr;
  words[0] = reinterpret_cast<void*>(main);
  words -= kSaved;
  for (std::size_t i = 0; i < kSaved; ++i) words[i] = nullptr;
#else
  auto* words = reinterpret_cast<void**>(top - 160);
  for (int i = 0; i < 20; ++i) words[i] = nullptr;
  words[19] = reinterpret_cast<void*>(main);  // x30
#endif
  fiber.stack_pointer = words;
}

Fiber* fiber_stacks(std::size_t count) {
  static Fiber* table = nullptr;
  static std::size_t held = 0;
  if (held < count) {
    while (stacks().size() < count) {
      const std::size_t bytes = kStackBytes + page();
      void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED || mprotect(memory, page(), PROT_NONE) != 0) {
        std::fprintf(stderr, "CUDA emulator: no memory for the stacks of %zu threads\n", count);
        std::abort();
      }
      Fiber fiber;
      fiber.stack = static_cast<char*>(memory) + page();
      fiber.size = kStackBytes;
      stacks().push_back(fiber);
    }
    delete[] table;
    table = new Fiber[count];
    for (std::size_t i = 0; i < count; ++i) table[i] = stacks()[i];
    held = count;
  }
  return table;
}

bool is_stack_guard(const void* address) {
  const auto* at = static_cast<const char*>(address);
  for (const Fiber& fiber : stacks()) {
    const auto* lowest = static_cast<const char*>(fiber.stack);
    if (at < lowest && at >= lowest - page()) return true;
  }
  return false;
}

}  // namespace pf_emulator
