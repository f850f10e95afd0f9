#include "pointwise_chain.h"

#include <utility>

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
  bool selects = false;            // by a comparison with a uniform value
  bool swaps = false;              // operands 0 and 1 are the factors of a product or terms of a sum
  int form = 0;                    // of the link
  int loaded = -1;                 // the operand that a link of its own loads into registers
  int others[4], other_count = 0;  // the operands that the link itself looks for
  bool saved = false;              // some user finds it in a slot
  int slot = -1;
};

bool is_one_of(int op, PointwiseOp first, PointwiseOp last) {
  return op >= static_cast<int>(first) && op <= static_cast<int>(last);
}
bool swaps(int op) {
  return op == static_cast<int>(PointwiseOp::add) || op == static_cast<int>(PointwiseOp::mul) ||
         is_one_of(op, PointwiseOp::muladd, PointwiseOp::nmuladd_mul);
}

class Builder {
 public:
  explicit Builder(const Program& program) : p_(program), k_(pointwise_kernels()) {}

  Chain build() {
    Chain chain;
    if (p_.uses_index || p_.body.empty() || !convert_inputs() || !read_instructions()) return chain;
    if (makers_.back().output < 0) return chain;  // the last link must be a store
    place();
    // A single instruction has nothing to hand over. Its own loop keeps constants in registers, but no uniform operands.
    const bool uniform = makers_.back().form == kLinkUniform || makers_.back().selects;
    if (p_.body.size() == 1 && conversions_ == 0 && p_.outputs[0] == Storage::f32 && !uniform) return chain;
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
      m.forms.runs = 1;
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
      m.swaps = swaps(i.op);
      if (is_one_of(i.op, PointwiseOp::select_eq, PointwiseOp::select_ge)) {
        m.selects = m.in[1].kind == ChainOperand::uniform;
        if (!m.selects) split_selection(m, i.op);
      }
      const int self = static_cast<int>(makers_.size());
      if (i.out.place == Place::reg) {
        in_register[i.out.index] = self;
      } else {
        in_output[i.out.index] = self;
        m.output = i.out.index;
        if (!k_.link_store[0][static_cast<int>(p_.outputs[i.out.index])]) return false;
      }
      makers_.push_back(m);
    }
    return true;
  }

  // (a OP b) ? c : d becomes a comparison and a choice.
  void split_selection(Maker& m, int op) {
    const auto forms = [this](int of, ValueType type) { return k_.links[of][static_cast<int>(type)]; };
    Maker test;
    const int comparison = op - static_cast<int>(PointwiseOp::select_eq) + static_cast<int>(PointwiseOp::eq);
    test.forms = forms(comparison, ValueType::f32);
    test.operands = 2;
    for (int n = 0; n < 2; ++n) {
      test.in[n] = m.in[n];
      test.from[n] = m.from[n];
    }
    m.forms = forms(static_cast<int>(PointwiseOp::where), ValueType::f32);
    m.operands = 3;
    m.in[0] = {};
    m.from[0] = static_cast<int>(makers_.size());
    for (int n = 1; n < 3; ++n) {
      m.in[n] = m.in[n + 1];
      m.from[n] = m.from[n + 1];
    }
    makers_.push_back(test);
  }

  // Chooses each maker's link: which operand it finds in registers, and where all others are.
  void place() {
    const int count = static_cast<int>(makers_.size());
    for (int j = conversions_; j < count; ++j) {
      Maker& m = makers_[j];
      const auto kept = [&m, j](int n) { return j > 0 && m.from[n] == j - 1; };
      // What is in a register first, and uniform values last.
      if (m.swaps && !kept(0) && (kept(1) || m.in[0].kind == ChainOperand::uniform)) {
        std::swap(m.from[0], m.from[1]);
        std::swap(m.in[0], m.in[1]);
      }
      choose_form(m, kept);
      list_others(m);
      for (int k = 0; k < m.other_count; ++k) save(m.from[m.others[k]]);
      if (m.loaded >= 0) save(m.from[m.loaded]);
    }
  }
  // The operands that are not in registers, those that must be uniform last.
  static void list_others(Maker& m) {
    const bool twice = m.form == kLinkTwice, sum = m.operands == 4 && !m.selects;  // (a * b + c) * d
    const auto add = [&m](int n) { m.others[m.other_count++] = n; };
    if (m.selects) {
      const bool ends = m.form == kLinkEnds, uniform = ends || m.form == kLinkUniform;
      for (int n : {0, 2, 3}) {
        if (twice || uniform ? n == 0 && !ends : n != m.form) add(n);
      }
      add(1);
      if (uniform) add(2);
      return;
    }
    if (sum && (twice || m.form == kLinkUniform)) {
      add(3);
      if (!twice) add(1);
      return add(2);
    }
    for (int n = twice ? 2 : m.form == kLinkUniform ? 1 : 0; n < m.operands; ++n) {
      if (n != m.form) add(n);
    }
  }
  void save(int maker) {
    if (maker >= 0) makers_[maker].saved = true;
  }

  template <class Kept> static void choose_form(Maker& m, Kept kept) {
    const auto is_uniform = [&m](int n) { return m.in[n].kind == ChainOperand::uniform; };
    const auto same = [&m](int a, int b) {
      return m.from[a] == m.from[b] && m.in[a].kind == m.in[b].kind && m.in[a].index == m.in[b].index;
    };
    const auto take = [&m, kept](int form, int operand) {  // into registers, where it is not there yet
      m.form = form;
      m.loaded = kept(operand) ? -1 : operand;
    };
    if (m.selects && is_uniform(2)) {
      if (m.forms.at[kLinkEnds] && same(0, 3)) return take(kLinkEnds, 0);
      if (!is_uniform(3) && !kept(0)) return take(kLinkUniform, 3);
    }
    if (!m.selects && m.forms.at[kLinkUniform] && is_uniform(1) && (m.operands == 2 || is_uniform(2))) {
      return take(kLinkUniform, 0);
    }
    const bool square = kept(0) && kept(1) && (m.operands == 2 || is_uniform(2));
    if (m.forms.at[kLinkTwice] && (m.selects ? kept(3) && same(0, 2) : square)) {
      m.form = kLinkTwice;
      return;
    }
    for (int n = 0; n < m.operands; ++n) {
      if (!kept(n) || !m.forms.at[n]) continue;
      m.form = n;
      return;
    }
    if (m.forms.at[kLinkFresh]) m.form = kLinkFresh;
    else take(0, 0);
  }

  ChainOperand find(const Maker& m, int n) const {
    if (m.from[n] < 0) return m.in[n];
    return {ChainOperand::slot, static_cast<std::uint8_t>(makers_[m.from[n]].slot)};
  }

  bool emit() {
    int slots = 0;
    const LinkCode load = k_.link_load[static_cast<int>(Storage::f32)];
    const LinkCode save = k_.link_store[0][static_cast<int>(Storage::f32)];
    for (std::size_t j = 0; j < makers_.size(); ++j) {
      Maker& m = makers_[j];
      ChainStep step;
      if (static_cast<int>(j) < conversions_) {
        step.run = m.forms.at[0];
        step.at[0] = m.in[0];
      } else {
        if (m.loaded >= 0) {
          ChainStep before;
          before.run = load;
          before.at[0] = find(m, m.loaded);
          steps_.push_back(before);
        }
        step.run = m.forms.at[m.form];
        for (int k = 0; k < m.other_count; ++k) step.at[k] = find(m, m.others[k]);
      }
      for (int run = 0; run < m.forms.runs; ++run) steps_.push_back(step);
      if (m.saved) {
        m.slot = slots++;
        ChainStep keep;
        keep.run = save;
        keep.at[0] = {ChainOperand::slot, static_cast<std::uint8_t>(m.slot)};
        steps_.push_back(keep);
      }
      if (m.output >= 0) {
        ChainStep out;
        out.run = k_.link_store[j + 1 == makers_.size()][static_cast<int>(p_.outputs[m.output])];
        out.at[0] = {ChainOperand::output, static_cast<std::uint8_t>(m.output)};
        out.streams = p_.outputs[m.output] == Storage::f32;
        steps_.push_back(out);
      }
    }
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
    const bool last = &step == &chain.steps.back();
    link->run = step.streams && call.stream ? k.link_stream[last] : step.run;
    for (int n = 0; n < 4; ++n) {
      const ChainOperand& operand = step.at[n];
      link->moves[n] = 0;
      switch (operand.kind) {
        case ChainOperand::none: link->at[n] = nullptr; break;
        case ChainOperand::uniform: link->at[n] = call.uniform + operand.index * call.uniform_bytes; break;
        case ChainOperand::slot:
          link->at[n] = slots + operand.index * kSlotBytes;
          link->moves[n] = kSlotMoves;
          break;
        case ChainOperand::input:
          link->at[n] = call.inputs[operand.index];
          link->moves[n] = call.moves[operand.index];
          break;
        case ChainOperand::output:
          link->at[n] = call.outputs[operand.index];
          link->moves[n] = kArrayMoves;
          break;
      }
    }
    ++link;
  }
  k.run_links(links, begin, end);
  if (call.stream) k.stream_end();
}

}  // namespace pyframe
