#include "pointwise.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "allocator.h"
#include "pointwise_layout.h"
#include "thread_pool.h"

namespace pyframe {

const PointwiseKernels& pointwise_kernels() {
  static const PointwiseKernels kernels = [] {
    PointwiseKernels k{};
    pointwise_tables().fill(k);
    return k;
  }();
  return kernels;
}

const char* pointwise_op_name(int op) {
#define X(name, cost) #name,
  static const char* const names[] = {PYFRAME_POINTWISE_OPS(X)};
#undef X
  return names[op];
}

namespace {

int cost_of(int op) {
#define X(name, cost) cost,
  static const int costs[] = {PYFRAME_POINTWISE_OPS(X)};
#undef X
  return costs[op];
}

// -- decoding

class Reader {
 public:
  Reader(const std::int64_t* code, std::int64_t length) : code_(code), left_(length) {}
  std::int64_t next() {
    if (left_-- <= 0) throw std::invalid_argument("pointwise program: it ends too early");
    return *code_++;
  }
  std::int64_t below(std::int64_t limit) {
    const std::int64_t value = next();
    if (value < 0 || value >= limit) throw std::invalid_argument("pointwise program: a number is out of range");
    return value;
  }
  Slot slot(const Program& p) {
    const auto place = static_cast<Place>(below(4));
    const std::int64_t limits[] = {p.uniforms, p.registers, static_cast<std::int64_t>(p.inputs.size()),
                                   static_cast<std::int64_t>(p.outputs.size())};
    const std::int64_t index = below(limits[static_cast<int>(place)]);
    return {place, static_cast<std::uint8_t>(index), static_cast<ValueType>(below(kValueTypes))};
  }

 private:
  const std::int64_t* code_;
  std::int64_t left_;
};

std::vector<Instruction> decode_instructions(Reader& reader, Program& p, bool body) {
  std::vector<Instruction> list(static_cast<std::size_t>(reader.below(1 << 20)));
  for (Instruction& i : list) {
    const int op = static_cast<int>(reader.below(kPointwiseOps));
    const int type = static_cast<int>(reader.below(kValueTypes));
    i.kernel = pointwise_kernels().ops[op][type];
    i.op = op;
    i.type = static_cast<ValueType>(type);
    if (!i.kernel) {
      throw std::invalid_argument(std::string("pointwise program: ") + pointwise_op_name(op) +
                                  " is not defined for this type");
    }
    i.operands = static_cast<int>(reader.below(5));
    i.out = reader.slot(p);
    for (int k = 0; k < i.operands; ++k) i.in[k] = reader.slot(p);
    if (!body) continue;
    p.cost += cost_of(op) * (i.out.type == ValueType::f64 ? 2 : 1);
    p.wide |= i.out.place == Place::reg && kValueBytes[static_cast<int>(i.out.type)] == 8;
    p.uses_index |= op == static_cast<int>(PointwiseOp::index) || op == static_cast<int>(PointwiseOp::philox);
  }
  return list;
}

}  // namespace

Program decode_program(const std::int64_t* code, std::int64_t length) {
  Reader reader(code, length);
  Program p;
  const auto count = [&reader](int limit) { return static_cast<std::size_t>(reader.below(limit)); };
  p.outputs.resize(count(kMostOperands));
  for (Storage& s : p.outputs) s = static_cast<Storage>(reader.below(kStorages));
  p.inputs.resize(count(kMostOperands - static_cast<int>(p.outputs.size()) + 1));
  for (Storage& s : p.inputs) s = static_cast<Storage>(reader.below(kStorages));
  p.scalars.resize(count(kMostOperands));
  for (ValueType& t : p.scalars) t = static_cast<ValueType>(reader.below(kValueTypes));
  p.constants.resize(count(kMostUniforms));
  p.constant_types.resize(p.constants.size());
  for (std::size_t k = 0; k < p.constants.size(); ++k) {
    p.constant_types[k] = static_cast<ValueType>(reader.below(kValueTypes));
    p.constants[k] = reader.next();
  }
  p.uniforms = static_cast<int>(reader.below(kMostUniforms + 1));
  p.registers = static_cast<int>(reader.below(256));
  if (p.uniforms < static_cast<int>(p.scalars.size() + p.constants.size())) {
    throw std::invalid_argument("pointwise program: too few uniform values");
  }
  p.prologue = decode_instructions(reader, p, false);
  p.body = decode_instructions(reader, p, true);
  p.chain = make_chain(p);
  return p;
}

namespace {

constexpr std::int64_t kUniformBytes = 8 * kGroup;
constexpr std::int64_t kCacheBytes = 24 << 10;        // of the first level, for registers and what is read and written
constexpr std::int64_t kStreamBytes = 48ll << 20;     // outputs from here on would only displace what the caches hold
constexpr std::int64_t kStackBytes = 40 << 10;

// A value of one element, in every lane of a group.
void fill_group(char* out, const void* value, int bytes) {
  for (int i = 0; i < kGroup; ++i) std::memcpy(out + i * bytes, value, static_cast<std::size_t>(bytes));
}

struct Machine {
  const Program& program;
  const PointwiseKernels& kernels = pointwise_kernels();
  Layout layout;
  int outputs;
  std::int64_t block;         // elements
  std::int64_t buffer_bytes;  // of a register
  alignas(64) char uniform[kMostUniforms * kUniformBytes];
  alignas(64) char single[kMostOperands * kUniformBytes];  // inputs that are one element
  bool stream[kMostOperands] = {};
  bool chained = false;
  bool straight = false;  // one instruction from arrays to arrays, which needs no blocks

  Machine(const Program& p, const Call& call);
  bool can_chain(const Call& call) const;
  void run_links(std::int64_t begin, std::int64_t end) const;
  void run(std::int64_t begin, std::int64_t end) const;
  void run_block(std::int64_t start, std::int64_t count, char* scratch) const;
  std::int64_t scratch_bytes() const { return buffer_bytes * (program.registers + layout.operands) + block * 8; }
};

ValueType value_type(const Program& p, int operand) {
  const int outputs = static_cast<int>(p.outputs.size());
  return kValueOf[static_cast<int>(operand < outputs ? p.outputs[static_cast<std::size_t>(operand)]
                                                     : p.inputs[static_cast<std::size_t>(operand - outputs)])];
}
Storage storage_of(const Program& p, int operand) {
  const int outputs = static_cast<int>(p.outputs.size());
  return operand < outputs ? p.outputs[static_cast<std::size_t>(operand)]
                           : p.inputs[static_cast<std::size_t>(operand - outputs)];
}

Machine::Machine(const Program& p, const Call& call) : program(p), outputs(static_cast<int>(p.outputs.size())) {
  const int operands = outputs + static_cast<int>(p.inputs.size());
  int bytes[kMostOperands];
  for (int k = 0; k < operands; ++k) bytes[k] = kStorageBytes[static_cast<int>(storage_of(p, k))];
  layout = make_layout(call, operands, bytes, p.uses_index);

  const std::size_t scalars = p.scalars.size();
  for (std::size_t k = 0; k < scalars; ++k) {
    fill_group(uniform + k * kUniformBytes, &call.scalars[k], kValueBytes[static_cast<int>(p.scalars[k])]);
  }
  for (std::size_t k = 0; k < p.constants.size(); ++k) {
    fill_group(uniform + (scalars + k) * kUniformBytes, &p.constants[k],
               kValueBytes[static_cast<int>(p.constant_types[k])]);
  }
  for (const Instruction& i : p.prologue) {
    PointwiseArgs args{uniform + i.out.index * kUniformBytes, {}, {}, 1, 0};
    for (int k = 0; k < i.operands; ++k) args.in[k] = uniform + i.in[k].index * kUniformBytes;
    i.kernel(args);
  }
  chained = can_chain(call);

  int live = p.registers, widest = p.wide ? 8 : 4;
  for (int k = 0; k < operands; ++k) {
    const int value = kValueBytes[static_cast<int>(value_type(p, k))];
    widest = value > widest ? value : widest;
    Access& access = layout.access[k];
    if (access == Access::single && k >= outputs) {
      char* const group = single + k * kUniformBytes;
      kernels.load[static_cast<int>(storage_of(p, k))](group, layout.data[k], 1);
      char first[8];
      std::memcpy(first, group, static_cast<std::size_t>(value));
      fill_group(group, first, value);
      if (chained) fill_group(group, layout.data[k], bytes[k]);  // as in memory: a chain converts by itself
      continue;
    }
    ++live;
    const bool converts = kValueOf[static_cast<int>(storage_of(p, k))] != value_type(p, k) ||
                          kStorageBytes[static_cast<int>(storage_of(p, k))] != value;
    if (access == Access::single) access = Access::strided;  // an output of one element
    if (access == Access::contiguous && !converts && layout.aligned[k]) access = Access::direct;
    if (k < outputs && access == Access::direct) {
      // Several outputs: one that is also an input must not change before all instructions have read it.
      if (call.in_place && outputs > 1) access = Access::contiguous;
      stream[k] = !call.in_place && layout.size * bytes[k] >= kStreamBytes &&
                  reinterpret_cast<std::uintptr_t>(layout.data[k]) % 64 == 0;
      if (stream[k]) access = Access::contiguous;
    }
  }
  straight = p.body.size() == 1;
  for (int k = 0; k < operands; ++k) {
    straight &= layout.access[k] == Access::direct || (k >= outputs && layout.access[k] == Access::single);
  }
  block = kCacheBytes / ((live < 1 ? 1 : live) * widest) / 64 * 64;
  block = block < 128 ? 128 : block > 4096 ? 4096 : block;
  buffer_bytes = block * widest;
}

// The least elements worth another thread: some microseconds of work.
std::int64_t grain_of(const Program& program) {
  const std::int64_t grain = 65536 / program.cost;
  return grain < 4096 ? 4096 : grain;
}

void Machine::run_block(std::int64_t start, std::int64_t count, char* scratch) const {
  const std::int64_t groups = (count + kGroup - 1) / kGroup;
  const bool partial = count % kGroup != 0;
  char* const registers = scratch;
  char* const buffers = scratch + buffer_bytes * program.registers;
  char* const packed = buffers + buffer_bytes * layout.operands;
  const char* place[kMostOperands];
  for (int k = outputs; k < layout.operands; ++k) {
    const Storage storage = storage_of(program, k);
    const int bytes = kStorageBytes[static_cast<int>(storage)];
    char* const buffer = buffers + k * buffer_bytes;
    switch (layout.access[k]) {
      case Access::single:
        place[k] = single + k * kUniformBytes;
        continue;
      case Access::direct:
        place[k] = layout.data[k] + start * bytes;
        if (!partial) continue;
        std::memcpy(buffer, place[k], static_cast<std::size_t>(count * bytes));
        break;
      case Access::contiguous:
        kernels.load[static_cast<int>(storage)](buffer, layout.data[k] + start * bytes, count);
        break;
      case Access::strided: {
        const bool same = kStorageBytes[static_cast<int>(storage)] == kValueBytes[static_cast<int>(value_type(program, k))];
        gather(layout, k, bytes, start, count, same ? buffer : packed);
        if (!same) kernels.load[static_cast<int>(storage)](buffer, packed, count);
        break;
      }
    }
    if (partial) {  // lanes beyond the end hold something harmless
      const int value = kValueBytes[static_cast<int>(value_type(program, k))];
      for (std::int64_t i = count; i < groups * kGroup; ++i) {
        std::memcpy(buffer + i * value, buffer + (count - 1) * value, static_cast<std::size_t>(value));
      }
    }
    place[k] = buffer;
  }
  for (int k = 0; k < outputs; ++k) {
    const bool direct = layout.access[k] == Access::direct && !partial;
    const int bytes = kStorageBytes[static_cast<int>(storage_of(program, k))];
    place[k] = direct ? layout.data[k] + start * bytes : buffers + k * buffer_bytes;
  }

  PointwiseArgs args;
  args.groups = groups;
  args.index = start;
  const auto address = [&](const Slot& slot, std::int64_t& step) -> const char* {
    const int bytes = kValueBytes[static_cast<int>(slot.type)];
    step = kGroup * bytes;
    switch (slot.place) {
      case Place::uniform:
        step = 0;
        return uniform + slot.index * kUniformBytes;
      case Place::reg: return registers + slot.index * buffer_bytes;
      case Place::input:
        if (layout.access[outputs + slot.index] == Access::single) step = 0;
        return place[outputs + slot.index];
      case Place::output: break;
    }
    return place[slot.index];
  };
  for (const Instruction& i : program.body) {
    std::int64_t unused;
    args.out = const_cast<char*>(address(i.out, unused));
    for (int k = 0; k < i.operands; ++k) args.in[k] = address(i.in[k], args.step[k]);
    i.kernel(args);
  }

  for (int k = 0; k < outputs; ++k) {
    const Storage storage = storage_of(program, k);
    const int bytes = kStorageBytes[static_cast<int>(storage)];
    if (layout.access[k] == Access::direct && !partial) continue;
    char* const to = layout.data[k] + start * bytes;
    if (stream[k]) {
      kernels.stream(to, place[k], count * bytes);
    } else if (layout.access[k] != Access::strided) {
      kernels.store[static_cast<int>(storage)](to, place[k], count);
    } else {
      kernels.store[static_cast<int>(storage)](packed, place[k], count);
      scatter(layout, k, bytes, start, count, packed);
    }
  }
}

void Machine::run(std::int64_t begin, std::int64_t end) const {
  alignas(64) char stack[kStackBytes];
  const std::int64_t needed = scratch_bytes();
  char* const scratch = needed <= kStackBytes ? stack : static_cast<char*>(allocate(static_cast<std::size_t>(needed)));
  if (!scratch) throw std::bad_alloc();
  const std::int64_t step = straight ? end - begin : 1;
  for (std::int64_t b = begin; b < end; b += step) {
    const std::int64_t start = b * block, left = layout.size - start;
    const std::int64_t count = left < step * block ? left : step * block;
    // Whole groups straight from and to the arrays, the rest through buffers: every element is computed alike.
    const std::int64_t whole = count / kGroup * kGroup;
    if (whole) run_block(start, whole, scratch);
    if (whole < count) run_block(start + whole, count - whole, scratch);
  }
  if (scratch != stack) deallocate(scratch);
}

// Chains want operands that are contiguous or one element. Several outputs must not overlap inputs: they are written as
// soon as they are known.
bool Machine::can_chain(const Call& call) const {
  if (program.chain.steps.empty() || (call.in_place && outputs > 1)) return false;
  for (int k = 0; k < layout.operands; ++k) {
    if (layout.access[k] == Access::strided || (k < outputs && layout.size > 1 && layout.access[k] == Access::single)) {
      return false;
    }
  }
  return true;
}

// Elements [begin, end), where begin is a multiple of link_elements.
void Machine::run_links(std::int64_t begin, std::int64_t end) const {
  ChainCall call;
  call.uniform = uniform;
  call.uniform_bytes = kUniformBytes;
  const int inputs = layout.operands - outputs;
  call.stream = true;
  for (int k = 0; k < outputs; ++k) {
    call.outputs[k] = layout.data[k];
    call.stream &= stream[k];
  }
  for (int k = 0; k < inputs; ++k) {
    const bool one = layout.access[outputs + k] == Access::single;
    call.inputs[k] = one ? single + (outputs + k) * kUniformBytes : layout.data[outputs + k];
    call.moves[k] = one ? 0 : kArrayMoves;
  }
  const std::int64_t step = kernels.link_elements, whole = begin + (end - begin) / step * step, rest = end - whole;
  if (whole > begin) run_chain(program.chain, call, begin, whole);
  if (rest == 0) return;
  // The last few through buffers: every element is computed alike.
  alignas(64) char buffer[kMostOperands * 4 * kMostLinkElements];
  call.stream = false;
  for (int k = 0; k < layout.operands; ++k) {
    if (k >= outputs && layout.access[k] == Access::single) continue;
    char* const to = buffer + k * 4 * kMostLinkElements;
    const std::int64_t bytes = kStorageBytes[static_cast<int>(storage_of(program, k))];
    if (k < outputs) {
      call.outputs[k] = to;
    } else {
      call.inputs[k - outputs] = to;
      for (std::int64_t i = 0; i < step; i += rest) {  // lanes beyond the end hold something harmless
        const std::int64_t count = step - i < rest ? step - i : rest;
        std::memcpy(to + i * bytes, layout.data[k] + whole * bytes, static_cast<std::size_t>(count * bytes));
      }
    }
  }
  run_chain(program.chain, call, 0, step);
  for (int k = 0; k < outputs; ++k) {
    const std::int64_t bytes = kStorageBytes[static_cast<int>(storage_of(program, k))];
    std::memcpy(layout.data[k] + whole * bytes, call.outputs[k], static_cast<std::size_t>(rest * bytes));
  }
}

}  // namespace

void run_program(const Program& program, const Call& call) {
  Machine machine(program, call);
  if (machine.chained) {
    const std::int64_t size = machine.layout.size, step = machine.kernels.link_elements;
    parallel_for(0, (size + step - 1) / step, grain_of(program) / step, [&](std::int64_t begin, std::int64_t end) {
      machine.run_links(begin * step, end * step < size ? end * step : size);
    });
    return;
  }
  const std::int64_t blocks = (machine.layout.size + machine.block - 1) / machine.block;
  parallel_for(0, blocks, (grain_of(program) + machine.block - 1) / machine.block,
               [&machine](std::int64_t begin, std::int64_t end) { machine.run(begin, end); });
}

}  // namespace pyframe
