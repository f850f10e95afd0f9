// wgmma: products of 64 × 16 and 16 × N matrices of half types by a warpgroup, accumulated in float32.
//
// Descriptors and fragments are those of the PTX ISA ("Asynchronous Warpgroup Level Matrix Shared Memory Layout",
// "Register Fragments for wgmma.mma_async.m64nNk16"). From the product to its wait, the accumulators hold NaN.
#include "asynchronous.h"
#include "internal.h"
#include "platform/pyframe/arithmetic.h"

#include <algorithm>
#include <cstring>

namespace pf_emulator {
namespace {

constexpr unsigned kRows = 64, kDepth = 16, kMostColumns = 256;

struct Issued {
  Product product;
  float* d;
  unsigned group;
};

// Accumulators with products under way.
struct Chain {
  float* d;
  unsigned n;
  std::vector<float> values;  // what they hold as far as products have landed
};

struct UnderWay {
  std::vector<Issued> issued;
  std::vector<Chain> chains;
  unsigned group = 0;
  bool fenced = false;
};

std::vector<UnderWay> states;  // by thread

struct Descriptor {
  std::uint64_t start, leading, stride;
  unsigned span;  // bytes of the swizzle: 16 (none), 32, 64, 128

  explicit Descriptor(std::uint64_t bits)
      : start((bits & 0x3fff) << 4), leading((bits >> 16 & 0x3fff) << 4), stride((bits >> 32 & 0x3fff) << 4) {
    const unsigned mode = bits >> 62;
    span = mode == 0 ? 16 : 256u >> mode;
  }

  // Where element `r` of the rows (of B: columns) and `k` lies.
  std::uint64_t offset(unsigned r, unsigned k, bool across) const {
    std::uint64_t at = start;
    if (span == 16) {
      at += across ? r % 8 * 2 + r / 8 * stride + k % 8 * 16 + k / 8 * leading
                   : r % 8 * 16 + r / 8 * stride + k % 8 * 2 + k / 8 * leading;
      return at;
    }
    const unsigned wide = span / 2;  // elements of a span
    at += across ? r % wide * 2 + r / wide * leading + k % 8 * span + k / 8 * stride
                 : r % 8 * span + r / 8 * stride + k * 2;
    return swizzle_offset(at, span);
  }
};

// The hardware reads the operands at any time between the product and its wait.
void operands_are_read(const Product& p, const char* site) {
  const unsigned first = current->number % kWarpgroup / kWarp * 16;
  const auto matrix = [site](std::uint64_t bits, unsigned from, unsigned to, bool across) {
    const Descriptor descriptor(bits);
    // Eight elements along the contiguous dimension are 16 bytes in a row.
    for (unsigned r = from; r < to; r += across ? 8 : 1) {
      for (unsigned k = 0; k < kDepth; k += across ? 1 : 8) {
        async_read(shared_area().data + descriptor.offset(r, k, across), 16, site);
      }
    }
  };
  matrix(p.a, first, first + 16, p.a_across);
  matrix(p.b, 0, p.n, p.b_across);
}

float value(std::uint64_t offset, bool brain) {
  unsigned short bits;
  std::memcpy(&bits, shared_area().data + offset, 2);
  return brain ? __uint_as_float(static_cast<unsigned>(bits) << 16) : pf::half_bits_to_float(bits);
}

bool is_poison(const Chain& chain) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(chain.d);
  return std::all_of(bytes, bytes + chain.n / 2 * sizeof(float), [](unsigned char b) { return b == kPoison; });
}

Chain* chain_of(UnderWay& state, const float* d) {
  for (Chain& chain : state.chains) {
    if (chain.d == d) return &chain;
  }
  return nullptr;
}

// One product for the 32 lanes of a warp, in double precision, rounded once.
void land_product(const Product& p, unsigned first_thread, std::size_t index) {
  static double a[16][kDepth], b[kMostColumns][kDepth];
  const Descriptor left(p.a), right(p.b);
  const unsigned row0 = first_thread % kWarpgroup / kWarp * 16;
  for (unsigned k = 0; k < kDepth; ++k) {
    for (unsigned r = 0; r < 16; ++r) a[r][k] = value(left.offset(row0 + r, k, p.a_across), p.brain);
    for (unsigned c = 0; c < p.n; ++c) b[c][k] = value(right.offset(c, k, p.b_across), p.brain);
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    UnderWay& state = states[first_thread + lane];
    std::vector<float>& values = chain_of(state, state.issued[index].d)->values;
    for (unsigned i = 0; i < p.n / 2; ++i) {
      const unsigned row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      double sum = p.accumulate ? values[i] : 0.0;
      for (unsigned k = 0; k < kDepth; ++k) sum += a[row][k] * b[column][k];
      values[i] = static_cast<float>(sum);
    }
  }
}

bool same(const Product& x, const Product& y) {
  return x.a == y.a && x.b == y.b && x.n == y.n && x.a_across == y.a_across && x.b_across == y.b_across &&
         x.accumulate == y.accumulate && x.brain == y.brain;
}

// Gives the warp of the running thread the results that `most_pending` groups do not hold back.
void land_products(unsigned most_pending, const char* site) {
  const UnderWay& mine = states[current->number];
  const auto due = [most_pending](const UnderWay& of) {
    const auto landed = [&](const Issued& one) { return one.group + most_pending < of.group; };
    return static_cast<std::size_t>(std::count_if(of.issued.begin(), of.issued.end(), landed));
  };
  const std::size_t landing = due(mine);
  if (!landing) return;  // nothing to wait for, or another lane was here before
  const unsigned first = current->number / kWarp * kWarp;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const UnderWay& other = states[first + lane];
    bool agree = other.issued.size() == mine.issued.size() && due(other) == landing;
    for (std::size_t i = 0; agree && i < landing; ++i) agree = same(other.issued[i].product, mine.issued[i].product);
    if (!agree) fail("%s: lane %u has issued other products than this one", site, lane);
    for (const Chain& chain : other.chains) {
      if (!is_poison(chain)) fail("%s: the accumulators of a product under way were changed", site);
    }
  }
  for (std::size_t i = 0; i < landing; ++i) {
    operands_are_read(mine.issued[i].product, site);
    land_product(mine.issued[i].product, first, i);
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    UnderWay& other = states[first + lane];
    other.issued.erase(other.issued.begin(), other.issued.begin() + static_cast<std::ptrdiff_t>(landing));
    const auto over = [&](const Chain& chain) {
      for (const Issued& one : other.issued) {
        if (one.d == chain.d) return false;
      }
      std::copy(chain.values.begin(), chain.values.end(), chain.d);
      return true;
    };
    const auto left = std::remove_if(other.chains.begin(), other.chains.end(), over);
    if (left != other.chains.end()) other.fenced = false;
    other.chains.erase(left, other.chains.end());
  }
}

}  // namespace

void warpgroups_start_block() { states.assign(block_shape.count(), {}); }

std::uint64_t matrix_descriptor(const void* start, unsigned leading, unsigned stride, unsigned swizzle) {
  const auto offset = static_cast<std::uint64_t>(static_cast<const char*>(start) - shared_area().data);
  const std::uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
  return (offset & 0x3ffff) >> 4 | std::uint64_t{leading >> 4} << 16 | std::uint64_t{stride >> 4} << 32 | mode << 62;
}

void fence_products() { states[current->number].fenced = true; }

void multiply(float* d, const Product& product, const char* site) {
  if (running->cooperative) fail("%s: the emulator has no wgmma in a cooperative launch", site);
  UnderWay& state = states[current->number];
  const unsigned end = (current->number / kWarpgroup + 1) * kWarpgroup;
  if (block_shape.count() < end) fail("%s: the warpgroup is not whole", site);
  if (product.n % 8 || product.n > kMostColumns) fail("%s: %u columns", site, product.n);
  Chain* const under_way = chain_of(state, d);
  if (under_way && (under_way->n != product.n || !is_poison(*under_way))) {
    fail("%s: the accumulators of a product under way were changed", site);
  }
  if (!under_way) {
    if (!state.fenced) fail("%s: no wgmma.fence since the accumulators were used otherwise", site);
    state.chains.push_back({d, product.n, std::vector<float>(d, d + product.n / 2)});
    std::memset(d, kPoison, product.n / 2 * sizeof(float));
  }
  if (current->number % kWarp == 0) operands_are_read(product, site);
  state.issued.push_back({product, d, state.group});
}

void commit_products() { ++states[current->number].group; }

void wait_for_products(unsigned most_pending, const char* site) {
  exchange(0xffffffffu, nullptr, 0, site);  // all lanes are here; the first to go on does the work of all
  land_products(most_pending, site);
  exchange(0xffffffffu, nullptr, 0, site, true);
}

void products_at_exit() {
  const std::size_t left = states[current->number].issued.size();
  if (left) fail("ends with %zu products of wgmma that it did not wait for", left);
}

}  // namespace pf_emulator
