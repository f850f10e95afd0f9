// 3×3 kernels with stride 1 by Winograd's F(2×2, 3×3): 16 multiplications instead of 36 for four outputs.
#pragma once

#include "conv.h"

namespace pyframe {

// Whether the transforms pay: they cost about as much as sixteen channels on either side.
template <class T>
bool fits_winograd(const Correlation<T>& problem);

// As correlate() and correlate_weight(), for problems that fit.
template <class T>
void winograd(const Correlation<T>& problem);
template <class T>
void winograd_weight(const Correlation<T>& problem, T* target);

// As winograd(), which calls it, for problems where the weights are the larger part by far.
template <class T>
bool fits_deep_winograd(const Correlation<T>& problem);
template <class T>
void deep_winograd(const Correlation<T>& problem);

}  // namespace pyframe
