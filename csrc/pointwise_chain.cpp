#include "pointwise_chain.h"

#include "pointwise.h"

namespace pyframe {
namespace {

// What makes one value: the conversion of an input, or an instruction.
struct Maker {
  LinkForms forms{};
  ChainOperand in[4];
  int from[4] = {-1, -1, -1, -1};  // the maker of an operand
  int operands = 0;
  int output = -1;                 // the output it is
  int kept_in = -1;                // the register operand: its position, or kLinkTwice; -1: it must be loaded
  bool saved = false;              // some user finds it in a slot
  int slot = -1;
};

class Builder {
 public:
  explicit Builder(const Program& program) : p_(program), k_(pointwise_kernels()) {}

  Chain build() {
    Chain chain;
    if (p_.uses_index || p_.body.empty() || !convert_inputs() || !read_instructions()) return chain;
    // A single instruction has nothing to hand over, and its own loop keeps constants in registers.
    if (p_.body.size() == 1 && conversions_ == 0 && p_.outputs[0] == Storage::f32) return chain;
    place();
    if (!emit()) steps_.clear();
    chain.steps = std::move(steps_);
    return chain;
  }

 private:
  static bool fits(ValueType type) { return type == ValueType::f32 || type == ValueType::b8; }

  // Inputs that are no float32 are values of their own; that of the first instruction comes last.
  bool convert_inputs() {
    converted_.assign(p_.inputs.size(), -1);
    for (std::size_t n = 0; n < p_.inputs.size(); ++n) {
      const LinkCode load = k_.link_load[static_cast<int>(p_.inputs[n])];
      if (!load) return false;
      if (p_.inputs[n] == Storage::f32) continue;
      Maker m;
      m.forms.at[0] = load;
      m.in[0] = {ChainOperand::input, static_cast<std::uint8_t>(n)};
      m.operands = 1;
      converted_[n] = static_cast<int>(makers_.size());
      makers_.push_back(m);
    }
    conversions_ = static_cast<int>(makers_.size());
    return true;
  }

  bool read_instructions() {
    std::vector<int> in_register(256, -1), in_output(p_.outputs.size(), -1);
    for (const Instruction& i : p_.body) {
      Maker m;
      m.forms = k_.links[i.op][static_cast<int>(i.type)];
      if (!m.forms.at[0] || !fits(i.out.type)) return false;
      m.operands = i.operands;
      for (int n = 0; n < i.operands; ++n) {
        const Slot& slot = i.in[n];
        if (!fits(slot.type)) return false;
        switch (slot.place) {
          case Place::uniform:
            // A truth value is one byte there; and a power with one exponent for all elements has its own shortcuts.
            if (slot.type == ValueType::b8 || i.op == static_cast<int>(PointwiseOp::pow)) return false;
            m.in[n] = {ChainOperand::uniform, slot.index};
            break;
          case Place::input:
            m.in[n] = {ChainOperand::input, slot.index};
            m.from[n] = converted_[slot.index];
            break;
          case Place::reg: m.from[n] = in_register[slot.index]; break;
          case Place::output: m.from[n] = in_output[slot.index]; break;
        }
        if (m.from[n] < 0 && m.in[n].kind == ChainOperand::none) return false;
      }
      const int self = static_cast<int>(makers_.size());
      if (i.out.place == Place::reg) {
        in_register[i.out.index] = self;
      } else {
        in_output[i.out.index] = self;
        m.output = i.out.index;
        if (!k_.link_store[static_cast<int>(p_.outputs[i.out.index])]) return false;
      }
      makers_.push_back(m);
    }
    return true;
  }

  // Which operand each maker finds in registers; all others must be in slots.
  void place() {
    const int count = static_cast<int>(makers_.size());
    for (int j = conversions_; j < count; ++j) {
      Maker& m = makers_[j];
      const bool first = m.from[0] == j - 1, second = m.from[1] == j - 1;
      if (j > 0 && first && second && m.operands == 2 && m.forms.at[kLinkTwice]) m.kept_in = kLinkTwice;
      for (int n = 0; j > 0 && n < m.operands && m.kept_in < 0; ++n) {
        if (m.from[n] == j - 1 && m.forms.at[n]) m.kept_in = n;
      }
      for (int n = 0; n < m.operands; ++n) {
        if (m.from[n] >= 0 && m.kept_in != n && m.kept_in != kLinkTwice) makers_[m.from[n]].saved = true;
      }
    }
  }

  ChainOperand find(const Maker& m, int n) const {
    if (m.from[n] < 0) return m.in[n];
    return {ChainOperand::slot, static_cast<std::uint8_t>(makers_[m.from[n]].slot)};
  }

  bool emit() {
    int slots = 0;
    const LinkCode load = k_.link_load[static_cast<int>(Storage::f32)];
    const LinkCode save = k_.link_store[static_cast<int>(Storage::f32)];
    for (std::size_t j = 0; j < makers_.size(); ++j) {
      Maker& m = makers_[j];
      ChainStep step;
      if (static_cast<int>(j) < conversions_) {
        step.run = m.forms.at[0];
        step.at[0] = m.in[0];
      } else {
        int kept = m.kept_in;
        if (kept < 0) {
          kept = 0;
          ChainStep before;
          before.run = load;
          before.at[0] = find(m, 0);
          steps_.push_back(before);
        }
        step.run = m.forms.at[kept];
        int at = 0;
        for (int n = 0; n < m.operands && kept != kLinkTwice; ++n) {
          if (n != kept) step.at[at++] = find(m, n);
        }
      }
      steps_.push_back(step);
      if (m.saved) {
        m.slot = slots++;
        ChainStep keep;
        keep.run = save;
        keep.at[0] = {ChainOperand::slot, static_cast<std::uint8_t>(m.slot)};
        steps_.push_back(keep);
      }
      if (m.output >= 0) {
        ChainStep out;
        out.run = k_.link_store[static_cast<int>(p_.outputs[m.output])];
        out.at[0] = {ChainOperand::output, static_cast<std::uint8_t>(m.output)};
        out.streams = p_.outputs[m.output] == Storage::f32;
        steps_.push_back(out);
      }
    }
    ChainStep last;
    last.run = k_.link_end;
    steps_.push_back(last);
    return slots <= kMostSlots && steps_.size() <= kMostLinks;
  }

  const Program& p_;
  const PointwiseKernels& k_;
  std::vector<Maker> makers_;
  std::vector<int> converted_;
  std::vector<ChainStep> steps_;
  int conversions_ = 0;
};

}  // namespace

Chain make_chain(const Program& program) { return Builder(program).build(); }

void run_chain(const Chain& chain, const ChainCall& call, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kSlotBytes = 4 * kMostLinkElements;
  const PointwiseKernels& k = pointwise_kernels();
  alignas(64) char slots[kMostSlots * kSlotBytes];
  Link links[kMostLinks];
  Link* link = links;
  for (const ChainStep& step : chain.steps) {
    link->run = step.streams && call.stream ? k.link_stream : step.run;
    for (int n = 0; n < 3; ++n) {
      const ChainOperand& operand = step.at[n];
      link->moves[n] = 0;
      switch (operand.kind) {
        case ChainOperand::none: link->at[n] = nullptr; break;
        case ChainOperand::uniform: link->at[n] = call.uniform + operand.index * call.uniform_bytes; break;
        case ChainOperand::slot: link->at[n] = slots + operand.index * kSlotBytes; break;
        case ChainOperand::input:
          link->at[n] = call.inputs[operand.index];
          link->moves[n] = call.moves[operand.index];
          break;
        case ChainOperand::output:
          link->at[n] = call.outputs[operand.index];
          link->moves[n] = -1;
          break;
      }
    }
    ++link;
  }
  k.run_links(links, begin, end);
  if (call.stream) k.stream_end();
}

}  // namespace pyframe
