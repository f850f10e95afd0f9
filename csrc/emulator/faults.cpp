// Signals, and what the compiler's checks for undefined behaviour call.
#include "internal.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>

namespace pf_emulator {

sigjmp_buf after_fault;
volatile int in_kernel = 0;
char fault_text[256];

namespace {

void on_fault(int signal, siginfo_t* info, void*) {
  if (!in_kernel) {  // not ours: the default action, once the instruction is repeated
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    return;
  }
  // The stack of a kernel's thread holds no locks: reading our own tables here is safe.
  const auto* address = static_cast<const char*>(info->si_addr);
  const char* what = "accesses memory that is no argument's";
  char detail[96] = "";
  if (signal == SIGILL || signal == SIGTRAP) {
    what = "accesses misaligned memory or does something undefined";
  } else if (signal == SIGFPE) {
    what = "divides by zero";
  } else if (is_stack_guard(info->si_addr)) {
    what = "overflows its stack";
  } else {
    for (const auto& [data, area] : arguments) {
      if (address < area.mapping || address >= area.mapping + area.mapped) continue;
      what = "is outside of an argument's memory:";
      std::snprintf(detail, sizeof detail, " byte %td of %zu", address - area.data, area.bytes);
    }
  }
  std::snprintf(fault_text, sizeof fault_text, "%s%s", what, detail);
  siglongjmp(after_fault, 1);
}

constexpr std::size_t kStack = 64 << 10;
constexpr int kNumbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
constexpr int kSignals = sizeof kNumbers / sizeof *kNumbers;
struct sigaction actions_before[kSignals];
stack_t stack_before;

}  // namespace

Handlers::Handlers() {
  static char* const stack = new char[kStack];
  stack_t alternate = {};
  alternate.ss_sp = stack, alternate.ss_size = kStack;
  sigaltstack(&alternate, &stack_before);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < kSignals; ++i) sigaction(kNumbers[i], &action, &actions_before[i]);
}

Handlers::~Handlers() {
  for (int i = 0; i < kSignals; ++i) sigaction(kNumbers[i], &actions_before[i], nullptr);
  sigaltstack(&stack_before, nullptr);
}

}  // namespace pf_emulator

#if !defined(__SANITIZE_ADDRESS__)  // whose library has these functions too

// ---------------------------------------------------------------- what the compiler calls

// The layouts of GCC's and clang's undefined behaviour sanitizers.
namespace {

struct SourcePlace {
  const char* file;
  std::uint32_t line, column;
};
struct TypeName {
  std::uint16_t kind, info;
  char text[1];
};
struct Misalignment {
  SourcePlace place;
  const TypeName* type;
  unsigned char log_alignment, access;
};
struct Somewhere {
  SourcePlace place;
  const TypeName* type;
};

[[noreturn]] void undefined(const SourcePlace& place, const char* what) {
  pf_emulator::fail("%s at %s:%u", what, place.file, place.line);
}

}  // namespace

extern "C" {

void __ubsan_handle_type_mismatch_v1_abort(Misalignment* data, std::uintptr_t address) {
  const std::size_t alignment = std::size_t{1} << data->log_alignment;
  if (!address) undefined(data->place, "uses a null pointer");
  pf_emulator::fail("a misaligned access: %s at an address that is %zu past a multiple of %zu, at %s:%u",
                    data->type->text, address % alignment, alignment, data->place.file, data->place.line);
}
void __ubsan_handle_out_of_bounds_abort(Somewhere* data, std::uintptr_t index) {
  pf_emulator::fail("index %td is outside of %s at %s:%u", static_cast<std::ptrdiff_t>(index), data->type->text,
                    data->place.file, data->place.line);
}
void __ubsan_handle_add_overflow_abort(Somewhere* data, std::uintptr_t, std::uintptr_t) {
  undefined(data->place, "an integer overflow in +");
}
void __ubsan_handle_sub_overflow_abort(Somewhere* data, std::uintptr_t, std::uintptr_t) {
  undefined(data->place, "an integer overflow in -");
}
void __ubsan_handle_mul_overflow_abort(Somewhere* data, std::uintptr_t, std::uintptr_t) {
  undefined(data->place, "an integer overflow in *");
}
void __ubsan_handle_negate_overflow_abort(Somewhere* data, std::uintptr_t) {
  undefined(data->place, "an integer overflow in a negation");
}
void __ubsan_handle_divrem_overflow_abort(Somewhere* data, std::uintptr_t, std::uintptr_t) {
  undefined(data->place, "a division by zero or an integer overflow in it");
}
void __ubsan_handle_shift_out_of_bounds_abort(Somewhere* data, std::uintptr_t, std::uintptr_t) {
  undefined(data->place, "a shift by a negative number or by all bits");
}
}

#endif
