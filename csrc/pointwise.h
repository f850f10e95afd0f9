// The pointwise vector machine: runs any scalar expression, compiled to a program by pyframe/expr/vector_program.py, on
// arrays in blocks that stay in the first-level cache, over all threads.
#pragma once

#include <cstdint>
#include <vector>

#include "isa_tables.h"
#include "pointwise_chain.h"
#include "pointwise_ops.h"

namespace pyframe {

PYFRAME_ISA_TABLE(PointwiseTable, pointwise_table, pointwise_tables)

// The kernels of the instruction set level in use.
const PointwiseKernels& pointwise_kernels();

const char* pointwise_op_name(int op);

// Where a value lies: among the values that are the same for all elements (constants, runtime scalars and what is
// computed from them), in a register, or as an input or output array.
enum class Place : std::uint8_t { uniform, reg, input, output };

struct Slot {
  Place place;
  std::uint8_t index;
  ValueType type;
};

struct Instruction {
  PointwiseKernel kernel;
  int op;
  ValueType type;  // of the operands
  Slot out;
  Slot in[4];
  int operands;
};

struct Program {
  std::vector<Storage> inputs, outputs;
  std::vector<ValueType> scalars;        // the first uniform values
  std::vector<std::int64_t> constants;   // bits of the next ones
  std::vector<ValueType> constant_types;
  int uniforms = 0, registers = 0;
  std::vector<Instruction> prologue;     // on uniform values alone, once per call
  std::vector<Instruction> body;
  bool uses_index = false;
  bool wide = false;                     // some register holds 8 bytes per element
  int cost = 1;                          // rough, per element
  Chain chain;                           // the body, where it has that form
};

// Reads the encoding that vector_program.py writes; throws std::invalid_argument where it makes no sense.
Program decode_program(const std::int64_t* code, std::int64_t length);

constexpr int kMostDims = 32;
constexpr int kMostOperands = 32;
constexpr int kMostUniforms = 128;

// An array, already broadcast to the shape of the outputs (strides in bytes, 0 along broadcast dimensions).
struct Operand {
  char* data;
  std::int64_t strides[kMostDims];
  bool aligned;
};

struct Call {
  int dims;
  std::int64_t shape[kMostDims];
  Operand operands[kMostOperands];  // outputs, then inputs
  std::int64_t scalars[kMostOperands];  // bits
  // Outputs may be read again as inputs only where both are the same memory, element by element, and where all outputs
  // are written at the end of a block.
  bool in_place = false;
};

void run_program(const Program& program, const Call& call);

}  // namespace pyframe
