// Kernels of two to five neighbouring taps by minimal filtering: 3×3 at stride 1 by Winograd's F(2×2, 3×3), with 16
// multiplications instead of 36 for four outputs, 3×3 at stride 2 with 25, 2×2 with 9 of 16, lines of five with 6 of 10.
#pragma once

#include "conv.h"

namespace pyframe {

template <class T>
struct WinogradForm;

// The form that fits and pays, or nullptr.
template <class T>
const WinogradForm<T>* winograd_form(const Correlation<T>& problem);
// Whether one pays for the gradient of the weight.
template <class T>
bool fits_winograd_weight(const Correlation<T>& problem);

// As correlate() and correlate_weight(), for problems that fit.
template <class T>
void winograd(const Correlation<T>& problem, const WinogradForm<T>& form);
template <class T>
void winograd_weight(const Correlation<T>& problem, T* target);

// As winograd(), which calls it, for problems where the weights are the larger part by far. For float only.
template <class T>
bool fits_deep_winograd(const Correlation<T>& problem, const WinogradForm<T>& form);
template <class T>
void deep_winograd(const Correlation<T>& problem);

}  // namespace pyframe
