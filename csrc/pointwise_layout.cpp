#include "pointwise_layout.h"

#include <cstring>

namespace pyframe {

namespace {

std::int64_t magnitude(std::int64_t stride) { return stride < 0 ? -stride : stride; }

// Sorts dimensions by the stride of the first operand (an output), the largest first; stable, for few dimensions.
void sort_dimensions(const Call& call, int* order) {
  for (int i = 1; i < call.dims; ++i) {
    const int moved = order[i];
    int k = i;
    for (; k > 0 && magnitude(call.operands[0].strides[order[k - 1]]) < magnitude(call.operands[0].strides[moved]); --k) {
      order[k] = order[k - 1];
    }
    order[k] = moved;
  }
}

Access access_of(const Layout& layout, int operand, int bytes) {
  std::int64_t expected = bytes;
  bool single = true, contiguous = true;
  for (int d = layout.dims - 1; d >= 0; --d) {
    const std::int64_t stride = layout.strides[operand][d];
    single &= stride == 0;
    contiguous &= stride == expected;
    expected *= layout.shape[d];
  }
  if (layout.size == 1 || single) return Access::single;
  return contiguous ? Access::contiguous : Access::strided;
}

// Calls run(address of the first element, index of it in the block, length) for every stretch of the last dimension.
template <class Run>
void walk(const Layout& layout, int operand, std::int64_t start, std::int64_t count, Run&& run) {
  const int last = layout.dims - 1;
  const std::int64_t* const strides = layout.strides[operand];
  std::int64_t at[kMostDims], rest = start;
  char* data = layout.data[operand];
  for (int d = last; d >= 0; --d) {
    at[d] = rest % layout.shape[d];
    rest /= layout.shape[d];
    data += at[d] * strides[d];
  }
  std::int64_t done = 0;
  while (true) {
    const std::int64_t left = layout.shape[last] - at[last], length = left < count - done ? left : count - done;
    run(data, done, length);
    done += length;
    if (done == count) return;
    data -= at[last] * strides[last];
    at[last] = 0;
    for (int d = last - 1; d >= 0; --d) {
      data += strides[d];
      if (++at[d] < layout.shape[d]) break;
      data -= at[d] * strides[d];
      at[d] = 0;
    }
  }
}

template <int kBytes>
void gather_bytes(const Layout& layout, int operand, std::int64_t start, std::int64_t count, char* to) {
  const std::int64_t stride = layout.strides[operand][layout.dims - 1];
  walk(layout, operand, start, count, [=](const char* data, std::int64_t done, std::int64_t length) {
    char* out = to + done * kBytes;
    if (stride == kBytes) {
      std::memcpy(out, data, static_cast<std::size_t>(length * kBytes));
    } else if (stride == 0) {
      char value[kBytes];
      std::memcpy(value, data, kBytes);
      for (std::int64_t i = 0; i < length; ++i) std::memcpy(out + i * kBytes, value, kBytes);
    } else {
      for (std::int64_t i = 0; i < length; ++i) std::memcpy(out + i * kBytes, data + i * stride, kBytes);
    }
  });
}

template <int kBytes>
void scatter_bytes(const Layout& layout, int operand, std::int64_t start, std::int64_t count, const char* from) {
  const std::int64_t stride = layout.strides[operand][layout.dims - 1];
  walk(layout, operand, start, count, [=](char* data, std::int64_t done, std::int64_t length) {
    const char* in = from + done * kBytes;
    if (stride == kBytes) {
      std::memcpy(data, in, static_cast<std::size_t>(length * kBytes));
    } else {
      for (std::int64_t i = 0; i < length; ++i) std::memcpy(data + i * stride, in + i * kBytes, kBytes);
    }
  });
}

}  // namespace

Layout make_layout(const Call& call, int operands, const int* bytes, bool keep_order) {
  Layout layout;
  layout.operands = operands;
  int order[kMostDims], kept = 0;
  for (int d = 0; d < call.dims; ++d) {
    order[d] = d;
    layout.size *= call.shape[d];
  }
  if (!keep_order) sort_dimensions(call, order);
  for (int k = 0; k < operands; ++k) {
    layout.data[k] = call.operands[k].data;
    layout.aligned[k] = call.operands[k].aligned;
  }
  for (int i = 0; i < call.dims; ++i) {
    const int d = order[i];
    if (call.shape[d] == 1) continue;
    bool merges = kept > 0;
    for (int k = 0; merges && k < operands; ++k) {
      merges = layout.strides[k][kept - 1] == call.operands[k].strides[d] * call.shape[d];
    }
    if (!merges) layout.shape[kept++] = 1;
    layout.shape[kept - 1] *= call.shape[d];
    for (int k = 0; k < operands; ++k) layout.strides[k][kept - 1] = call.operands[k].strides[d];
  }
  if (kept == 0) {
    layout.shape[0] = 1;
    for (int k = 0; k < operands; ++k) layout.strides[k][0] = 0;
    kept = 1;
  }
  layout.dims = kept;
  for (int k = 0; k < operands; ++k) layout.access[k] = access_of(layout, k, bytes[k]);
  return layout;
}

void gather(const Layout& layout, int operand, int bytes, std::int64_t start, std::int64_t count, char* to) {
  switch (bytes) {
    case 1: return gather_bytes<1>(layout, operand, start, count, to);
    case 2: return gather_bytes<2>(layout, operand, start, count, to);
    case 4: return gather_bytes<4>(layout, operand, start, count, to);
    default: return gather_bytes<8>(layout, operand, start, count, to);
  }
}

void scatter(const Layout& layout, int operand, int bytes, std::int64_t start, std::int64_t count, const char* from) {
  switch (bytes) {
    case 1: return scatter_bytes<1>(layout, operand, start, count, from);
    case 2: return scatter_bytes<2>(layout, operand, start, count, from);
    case 4: return scatter_bytes<4>(layout, operand, start, count, from);
    default: return scatter_bytes<8>(layout, operand, start, count, from);
  }
}

}  // namespace pyframe
