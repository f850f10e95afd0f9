// Sorting and choosing by rank along rows: stable, NaN as the largest, -0 and 0 equal.
#pragma once

#include <cstdint>

namespace pyframe {

enum class Sorted : std::uint8_t { f32, f64, i32, i64 };

// Rows of n elements, n below 2^32. Of each: the elements in order (left out if `values` is nullptr) and where they were.
void sort_rows(Sorted type, const void* x, void* values, std::int64_t* indices, std::int64_t rows, std::int64_t n,
               bool descending);

// The first k of them, 0 < k <= n.
void first_of_rows(Sorted type, const void* x, void* values, std::int64_t* indices, std::int64_t rows, std::int64_t n,
                   std::int64_t k, bool descending);

// The k-th of them, counted from 0; the first NaN where there is one if `nan_wins`.
void rank_of_rows(Sorted type, const void* x, void* values, std::int64_t* indices, std::int64_t rows, std::int64_t n,
                  std::int64_t k, bool nan_wins);

}  // namespace pyframe
