#include "conv_window.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>

#include "allocator.h"

namespace pyframe {

using std::int64_t;

namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

ConvStrips::ConvStrips(int64_t batch, int64_t pixels, int64_t most, int64_t unit) : batch_(batch), pixels_(pixels) {
  if (pixels > most) {
    images_ = 1;
    part_ = std::min(pixels, ceil_div(ceil_div(pixels, ceil_div(pixels, most)), unit) * unit);
  } else {
    images_ = std::min(batch, std::max<int64_t>(1, most / std::max<int64_t>(1, pixels)));
    part_ = pixels;
  }
  parts_ = ceil_div(pixels, std::max<int64_t>(1, part_));
  count_ = images_ == 1 ? batch * parts_ : ceil_div(batch, images_);
}

ConvStrip ConvStrips::at(int64_t index) const {
  if (images_ > 1) return {index * images_, std::min(images_, batch_ - index * images_), 0, pixels_};
  const int64_t first = index % parts_ * part_;
  return {index / parts_, 1, first, std::min(part_, pixels_ - first)};
}

ConvScratch::ConvScratch(int64_t bytes) : data_(bytes ? allocate(static_cast<std::size_t>(bytes)) : nullptr) {
  if (bytes && !data_) throw std::bad_alloc();
}
ConvScratch::~ConvScratch() { deallocate(data_); }

// The most bytes a window takes, for strips of at most so many pixels.
template <class T>
static int64_t window_bytes(const Correlation<T>& p, int64_t channels, int64_t pixels, int64_t images) {
  const int64_t* const size = p.out.size;
  int64_t positions = 1, inner = 1;
  for (int d = 2; d >= 0; --d) {
    const auto [least, most] = std::minmax_element(p.place[d].begin(), p.place[d].end());
    const int64_t span = *most - *least;
    // A strip that can go on in the next row needs all of this dimension, else what its pixels cross.
    const bool whole = images > 1 || (d > 0 && size[0] > 1) || (d > 1 && size[1] > 1);
    const int64_t rows = whole ? size[d] : std::min(size[d], (pixels - 2) / inner + 2);
    positions *= (rows + span / p.step[d]) * std::min(p.step[d], span + 1);
    inner *= size[d];
  }
  return (images * channels * positions + 2 * 64) * static_cast<int64_t>(sizeof(T));
}

template <class T>
static bool reads_in_place(const Correlation<T>& p, int64_t channels, int64_t images) {
  int64_t reach = 0;
  for (int d = 0; d < 3; ++d) {
    const auto [least, most] = std::minmax_element(p.place[d].begin(), p.place[d].end());
    if (*least < 0 || (p.out.size[d] - 1) * p.step[d] + *most >= p.source.size[d]) return false;
    const int64_t stride = p.source.stride[d];
    if (stride < 0) return false;
    reach += stride * p.source.size[d];
  }
  if (p.source.channel < 0 || p.source.image < 0) return false;
  reach += p.source.channel * channels + p.source.image * images;
  return reach < std::numeric_limits<std::int32_t>::max();
}

template <class T>
ConvWindow<T>::ConvWindow(const Correlation<T>& problem, int64_t channels, int64_t most_pixels, int64_t most_images,
                          bool in_place)
    : problem_(problem),
      in_place_(in_place && reads_in_place(problem, channels, most_images)),
      most_channels_(channels),
      memory_(in_place_ ? 0 : window_bytes(problem, channels, most_pixels, most_images)) {
  for (int d = 0; d < 3; ++d) {
    const auto [least, most] = std::minmax_element(problem.place[d].begin(), problem.place[d].end());
    least_[d] = *least, span_[d] = *most - *least;
    phases_[d] = std::min(problem.step[d], span_[d] + 1);
  }
  tap_.resize(problem.place[0].size() * problem.place[1].size() * problem.place[2].size());
}

template <class T>
void ConvWindow<T>::set_range() {
  const int64_t* const size = problem_.out.size;
  const int64_t first = strip_.first, last = strip_.first + strip_.count - 1;
  // The last dimension in which the strip stays within one index restricts those before it.
  int64_t inner = 1;
  bool whole[3];
  for (int d = 2; d >= 0; --d) {
    // Indices of dimension d are a range if all dimensions before it have one index.
    whole[d] = first / (inner * size[d]) != last / (inner * size[d]);
    inner *= size[d];
  }
  inner = 1;
  for (int d = 2; d >= 0; --d) {
    const int64_t low = first / inner % size[d], high = last / inner % size[d];
    low_[d] = whole[d] ? 0 : low;
    length_[d] = (whole[d] ? size[d] : high - low + 1) + span_[d] / problem_.step[d];
    inner *= size[d];
  }
}

template <class T>
void ConvWindow<T>::move_to(const ConvStrip& strip) {
  strip_ = strip;
  int64_t offset[3];  // per unit of place, for a source in place
  if (in_place_) {
    image_ = problem_.source.image, channel_ = problem_.source.channel;
    for (int d = 0; d < 3; ++d) {
      low_[d] = 0;
      offset[d] = problem_.source.stride[d];
      pixel_[d] = offset[d] * problem_.step[d];
    }
  } else {
    set_range();
    int64_t total = 1;
    for (int d = 2; d >= 0; --d) {
      pixel_[d] = total;
      phase_[d] = total *= length_[d];
      total *= phases_[d];
    }
    channel_ = total;
    image_ = total * most_channels_;
    reach_.clear();
    for (int64_t xp = 0; xp < phases_[2]; ++xp) {
      const int64_t step = problem_.step[2], size = problem_.source.size[2], x = low_[2] * step + xp + least_[2];
      const int64_t begin = x < 0 ? ceil_div(-x, step) : 0;
      const int64_t end = x < size ? std::min((size - 1 - x) / step + 1, length_[2]) : 0;
      if (begin < end) reach_.push_back({x, begin, end});
      else reach_.push_back({x, 0, 0});
    }
  }
  int64_t t = 0;
  const auto place = [&](int d, int64_t at) {
    if (in_place_) return at * offset[d];
    const int64_t from = at - least_[d];
    return from % problem_.step[d] * phase_[d] + from / problem_.step[d] * pixel_[d];
  };
  for (int64_t z : problem_.place[0]) {
    const int64_t here = place(0, z);
    for (int64_t y : problem_.place[1]) {
      const int64_t row = here + place(1, y);
      for (int64_t x : problem_.place[2]) tap_[t++] = static_cast<std::int32_t>(row + place(2, x));
    }
  }
}

// All rows of one image, for some channels that lie channel_ apart in the window.
template <class T>
void ConvWindow<T>::fill_rows(const T* source, T* target, int64_t channels) const {
  const Images<const T>& s = problem_.source;
  const int64_t* const step = problem_.step;
  const bool together = s.channel == 1 && s.stride[2] != 1 && channels > 1;
  const int64_t outer = together ? 1 : channels, inner = together ? channels : 1;
  for (int64_t c = 0; c < outer; ++c) {
    T* to = target + c * channel_;
    const T* const from = source + c * s.channel;
    for (int64_t zp = 0; zp < phases_[0]; ++zp) {
      for (int64_t zi = 0; zi < length_[0]; ++zi) {
        const int64_t z = (low_[0] + zi) * step[0] + zp + least_[0];
        for (int64_t yp = 0; yp < phases_[1]; ++yp) {
          for (int64_t yi = 0; yi < length_[1]; ++yi) {
            const int64_t y = (low_[1] + yi) * step[1] + yp + least_[1];
            const bool inside = z >= 0 && z < s.size[0] && y >= 0 && y < s.size[1];
            for (int64_t xp = 0; xp < phases_[2]; ++xp, to += length_[2]) {
              // Positions [begin, end) of the row lie inside of the source.
              const auto [x, first, stop] = reach_[static_cast<std::size_t>(xp)];
              const int64_t begin = inside ? first : 0, end = inside ? stop : 0;
              const T* const row = from + z * s.stride[0] + y * s.stride[1] + (x + begin * step[2]) * s.stride[2];
              if (!together) {
                use_.fill_row(row, step[2] * s.stride[2], begin, end, length_[2], to);
                continue;
              }
              for (int64_t i = 0; i < inner; ++i) {
                T* const here = to + i * channel_;
                for (int64_t k = 0; k < begin; ++k) here[k] = 0;
                for (int64_t k = end; k < length_[2]; ++k) here[k] = 0;
              }
              if (begin < end) use_.copy_channels(row, step[2] * s.stride[2], inner, end - begin, to + begin, channel_);
            }
          }
        }
      }
    }
  }
}

template <class T>
void ConvWindow<T>::read(int64_t group, int64_t first, int64_t count) {
  const Images<const T>& s = problem_.source;
  const T* const source = s.data + strip_.image * s.image + (group * problem_.ins + first) * s.channel;
  if (in_place_) {
    data_ = source;
    return;
  }
  T* const window = memory_.template as<T>();
  for (int64_t n = 0; n < strip_.images; ++n) fill_rows(source + n * s.image, window + n * image_, count);
  // Whole vectors are read from the last rows.
  std::memset(static_cast<void*>(window + (strip_.images - 1) * image_ + count * channel_), 0, 64 * sizeof(T));
  data_ = window;
}

template <class T>
void ConvWindow<T>::fetch(const ConvStrip& strip, int64_t group, int64_t first, int64_t count) const {
  const Images<const T>& s = problem_.source;
  const int64_t width = s.size[2], rows = s.size[0] * s.size[1];
  // Only where an image's rows follow each other; it is about these bytes, not about exact ones.
  if (s.stride[2] != 1 || (s.size[1] > 1 && s.stride[1] != width) || (s.size[0] > 1 && s.stride[0] != s.size[1] * width)) {
    return;
  }
  const auto row_of = [&](int64_t pixel, int64_t tap_z, int64_t tap_y) {
    const int64_t row = pixel / problem_.out.size[2], y = row % problem_.out.size[1], z = row / problem_.out.size[1];
    const int64_t at = (z * problem_.step[0] + tap_z) * s.size[1] + y * problem_.step[1] + tap_y;
    return std::min(std::max<int64_t>(at, 0), rows - 1);
  };
  const int64_t begin = row_of(strip.first, least_[0], least_[1]) * width;
  const int64_t end = (row_of(strip.first + strip.count - 1, least_[0] + span_[0], least_[1] + span_[1]) + 1) * width;
  for (int64_t n = 0; n < strip.images; ++n) {
    const T* from = s.data + (strip.image + n) * s.image + (group * problem_.ins + first) * s.channel;
    for (int64_t c = 0; c < count; ++c, from += s.channel) fetch_run(from + begin, end - begin);
  }
}

template class ConvWindow<float>;
template class ConvWindow<double>;

}  // namespace pyframe
