// Chains: the fast form of a pointwise program whose values are float32 (or half types in memory) and truth values, on
// operands that are contiguous or one element.
//
// A program's instructions become links that hand eight vectors to each other in registers; only values with more than
// one use are put aside, in slots that never leave the first-level cache. Unlike the block machine (pointwise.cpp) an
// instruction then costs no load and no store: hardswish on 4 MB takes one thread 0.12 ms instead of 0.34.
#pragma once

#include <cstdint>
#include <vector>

#include "pointwise_ops.h"

namespace pyframe {

struct Program;

struct ChainOperand {
  enum Kind : std::uint8_t { none, uniform, slot, input, output } kind = none;
  std::uint8_t index = 0;
};

struct ChainStep {
  LinkCode run = nullptr;
  ChainOperand at[4];
  bool streams = false;  // a store that may go past the caches
};

struct Chain {
  std::vector<ChainStep> steps;  // empty: the program has no such form
};

constexpr int kMostSlots = 32, kMostLinks = 128;
constexpr int kMostLinkElements = 128;  // of any level

Chain make_chain(const Program& program);

// Where a chain finds its operands. `outputs` and `inputs` are what run_links moves over; `moves` is 0 for an input of
// one element, repeated kGroup times.
struct ChainCall {
  char* outputs[32];
  const char* inputs[32];
  std::int64_t moves[32];
  const char* uniform;
  std::int64_t uniform_bytes;  // of one value
  bool stream = false;
};

// Elements [begin, end), a multiple of link_elements.
void run_chain(const Chain& chain, const ChainCall& call, std::int64_t begin, std::int64_t end);

}  // namespace pyframe
