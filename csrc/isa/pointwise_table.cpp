// The table of pointwise kernels of this level.
#include "isa/pointwise_loops.h"

namespace pyframe {
namespace PYFRAME_ISA {

namespace {
void fill(PointwiseKernels& kernels) {
  add_arithmetic(kernels);
  add_integer(kernels);
  add_double(kernels);
  add_single(kernels);
  add_memory(kernels);
  add_links(kernels);
}
}  // namespace

extern const PointwiseTable pointwise_table;  // a constant would be local to this file
const PointwiseTable pointwise_table = {fill};

}  // namespace PYFRAME_ISA
}  // namespace pyframe
