// Reading and writing at places that an index names. Every place receives its values in the order of the index, so
// results do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace pyframe {

// Types that can be added; the others are only moved.
enum class Sum : std::uint8_t { none, f32, f64, i32, i64 };

// A negative index counts from the end; all are in range.

// out[a][j] = x[a][index[j]] for a < outer and j < count: rows of `bytes` bytes, of which x[a] has n.
void take_rows(const char* x, const std::int64_t* index, char* out, std::int64_t outer, std::int64_t n,
               std::int64_t count, std::int64_t bytes);

// The reverse: out[a][index[j]] = src[a][j], or += of `width` items. The values of one place come in the order of j.
void put_rows(char* out, const std::int64_t* index, const char* src, std::int64_t outer, std::int64_t n,
              std::int64_t count, std::int64_t width, std::int64_t item, Sum sum);

// out[a][k][b] = x[a][index[a][k][b]][b] for k < count and b < inner.
void take_elements(const char* x, const std::int64_t* index, char* out, std::int64_t outer, std::int64_t n,
                   std::int64_t count, std::int64_t inner, std::int64_t item);

// out[a][index[a][k][b]][b] = src[a][k][b], or +=; one item for all of them if `single`.
void put_elements(char* out, const std::int64_t* index, const char* src, bool single, std::int64_t outer,
                  std::int64_t n, std::int64_t count, std::int64_t inner, std::int64_t item, Sum sum);

// The least and the greatest of count > 0 numbers.
void index_range(const std::int64_t* index, std::int64_t count, std::int64_t* least_and_greatest);

// places[i] = the number in C order of the element (index[0][i], index[1][i], ...) of an array with `dims` lengths.
void flat_places(const std::int64_t* index, const std::int64_t* lengths, std::int64_t dims, std::int64_t count,
                 std::int64_t* places);

// Bytes that are not 0: ends[b] = how many in the first b + 1 blocks of kMaskBlock; then where they are.
constexpr std::int64_t kMaskBlock = 16 << 10;
void count_true(const std::uint8_t* mask, std::int64_t count, std::int64_t* ends);
void true_places(const std::uint8_t* mask, std::int64_t count, const std::int64_t* ends, std::int64_t* places);

// The reverse of flat_places, for ascending places: out[i * step + d * dim_step] = index along dimension d.
void coordinates(const std::int64_t* places, std::int64_t count, const std::int64_t* lengths, std::int64_t dims,
                 std::int64_t* out, std::int64_t step, std::int64_t dim_step);

}  // namespace pyframe
