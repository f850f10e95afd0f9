// What the pointwise vector machine and its kernels agree on: operations, types, arguments.
//
// The machine runs a program on blocks of elements. A kernel does one instruction for a block: whole groups of kGroup
// elements, so kernels never see a tail. An operand that is the same for all elements is one group that is read again
// and again (step 0).
#pragma once

#include <cstdint>

namespace pyframe {

constexpr int kGroup = 32;  // elements

// Types of values in registers. Narrow integers are int32 (wrapped after each operation), halves are float32.
enum class ValueType : std::uint8_t { f32, f64, i32, i64, b8 };
constexpr int kValueTypes = 5;
constexpr int kValueBytes[kValueTypes] = {4, 8, 4, 8, 1};

// Types of arrays in memory.
enum class Storage : std::uint8_t { f32, f64, f16, bf16, i8, i16, i32, i64, u8, b8 };
constexpr int kStorages = 10;
constexpr int kStorageBytes[kStorages] = {4, 8, 2, 2, 1, 2, 4, 8, 1, 1};
constexpr ValueType kValueOf[kStorages] = {ValueType::f32, ValueType::f64, ValueType::f32, ValueType::f32,
                                           ValueType::i32, ValueType::i32, ValueType::i32, ValueType::i64,
                                           ValueType::i32, ValueType::b8};

// Every operation; the names are those of the primitives in pyframe/expr/primitives.py, and a few more. What an
// operation works on is the type of its (last) operand; comparisons and tests give bools. The number is a rough cost
// per element, from which the machine decides how many elements are worth another thread.
#define PYFRAME_POINTWISE_OPS(X)                                                                              \
  X(copy, 1) X(add, 1) X(sub, 1) X(mul, 1) X(div, 2) X(floordiv, 30) X(truncdiv, 8) X(remainder, 30)          \
  X(fmod, 30) X(neg, 1) X(abs, 1) X(sign, 1) X(pow, 20) X(reciprocal, 2)                                      \
  X(exp, 5) X(exp2, 8) X(expm1, 6) X(log, 6) X(log2, 10) X(log10, 10) X(log1p, 8) X(sqrt, 2) X(rsqrt, 3)      \
  X(sin, 10) X(cos, 10) X(tan, 12) X(sinh, 12) X(cosh, 12) X(tanh, 8) X(asin, 10) X(acos, 10) X(atan, 10)     \
  X(asinh, 14) X(acosh, 14) X(atanh, 14) X(atan2, 14) X(hypot, 4) X(logaddexp, 14) X(copysign, 1)             \
  X(sigmoid, 6) X(softplus, 12) X(erf, 8) X(erfc, 20) X(erfinv, 100)                                          \
  X(floor, 1) X(ceil, 1) X(round, 1) X(trunc, 1) X(maximum, 1) X(minimum, 1) X(fmax, 1) X(fmin, 1)            \
  X(eq, 1) X(ne, 1) X(lt, 1) X(le, 1) X(gt, 1) X(ge, 1) X(isnan, 1) X(isinf, 1) X(isfinite, 1)                \
  X(logical_and, 1) X(logical_or, 1) X(logical_xor, 1) X(logical_not, 1)                                      \
  X(bit_and, 1) X(bit_or, 1) X(bit_xor, 1) X(bit_not, 1) X(shift_left, 2) X(shift_right, 2) X(where, 1)       \
  /* a * b + c, a * b - c, c - a * b in one rounding where the processor has that */                          \
  X(muladd, 1) X(mulsub, 1) X(nmuladd, 1)                                                                     \
  /* (a * b + c) * d, (c - a * b) * d */                                                                      \
  X(muladd_mul, 1) X(nmuladd_mul, 1)                                                                          \
  /* (a OP b) ? c : d */                                                                                      \
  X(select_eq, 1) X(select_ne, 1) X(select_lt, 1) X(select_le, 1) X(select_gt, 1) X(select_ge, 1)             \
  /* f(a * b) * c + d for b, c and d that are the same for all elements */                                    \
  X(exp_affine, 5) X(erf_affine, 6) X(tanh_affine, 8) X(sigmoid_affine, 6)                                    \
  /* int32 to the range of a narrower type */                                                                 \
  X(wrap_int8, 1) X(wrap_int16, 1) X(wrap_uint8, 1)                                                           \
  /* conversions to a type, from the operand's */                                                             \
  X(to_f32, 1) X(to_f64, 1) X(to_i32, 1) X(to_i64, 1) X(to_b8, 1)                                             \
  /* the element's index; its 32 Philox bits, of (key, offset) */                                             \
  X(index, 1) X(philox, 10)

enum class PointwiseOp : std::uint16_t {
#define X(name, cost) name,
  PYFRAME_POINTWISE_OPS(X)
#undef X
};

#define X(name, cost) +1
constexpr int kPointwiseOps = 0 PYFRAME_POINTWISE_OPS(X);
#undef X

struct PointwiseArgs {
  char* out;            // kGroup values per group, one group after the other
  const char* in[4];    // operands
  std::int64_t step[4]; // bytes from one group of an operand to the next
  std::int64_t groups;
  std::int64_t index;   // of the first element
};

// An output may be the same memory as an operand of the same size.
using PointwiseKernel = void (*)(const PointwiseArgs&);

// A link of a chain (csrc/pointwise_chain.h): code of one instruction set level, whose arguments are vectors of that
// level, with the operands that are not in registers.
using LinkCode = void (*)();
struct Link {
  LinkCode run;
  const char* at[4];
  // What of the elements' offset counts for the address, and of the distance between vectors: all for an array, nothing
  // for a value that is the same for all elements, and the bits below kSlotMoves for a slot.
  std::int64_t moves[4];
};
constexpr std::int64_t kArrayMoves = -1, kSlotMoves = 127;

// The code of an operation as a link, by the operand that is in registers; nullptr where there is none.
constexpr int kLinkTwice = 4;    // operands 0 and 1 both are; of a selection, operand 3 is, and 0 and 2 are the same
constexpr int kLinkFresh = 5;    // none is
constexpr int kLinkUniform = 6;  // operand 0 (of a selection 3) is, the next two (or the one there is) are uniform
constexpr int kLinkEnds = 7;     // of a selection, operands 0 and 3 both are, and the two between are uniform
struct LinkForms {
  LinkCode at[8];
  int runs;  // links that it takes, one behind the other
};

struct PointwiseKernels {
  PointwiseKernel ops[kPointwiseOps][kValueTypes];  // nullptr: not defined for the type
  LinkForms links[kPointwiseOps][kValueTypes];
  LinkCode link_load[kStorages], link_store[2][kStorages], link_stream[2];  // [1]: as the last link
  // Runs a chain on elements [begin, end), a multiple of link_elements.
  void (*run_links)(const Link* first, std::int64_t begin, std::int64_t end);
  void (*stream_end)();  // after the last run of a chain with link_stream
  int link_elements;
  // Conversions of `count` adjacent elements between memory (at any address) and registers.
  void (*load[kStorages])(char* out, const char* in, std::int64_t count);
  void (*store[kStorages])(char* out, const char* in, std::int64_t count);
  // Copies past the caches; `out` must be a multiple of 64.
  void (*stream)(char* out, const char* in, std::int64_t bytes);
};

// One per instruction set level.
struct PointwiseTable {
  void (*fill)(PointwiseKernels& kernels);
};

}  // namespace pyframe
