// Sliding sums over many small images: a vector holds one pixel of several images. For float only.
#pragma once

#include "conv.h"

namespace pyframe {

// Whether this is the faster way: rows shorter than a vector, and enough images to fill vectors with.
template <class T>
bool fits_batched(const Correlation<T>& problem);

template <class T>
void batched(const Correlation<T>& problem);

}  // namespace pyframe
