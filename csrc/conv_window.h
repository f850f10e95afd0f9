// What one strip of output pixels needs of the source: a window of padded rows, or the source itself.
#pragma once

#include <cstdint>
#include <vector>

#include "conv.h"
#include "conv_table.h"

namespace pyframe {

// Output pixels that are worked on together: [first, first + count) of each of some images, in C order.
struct ConvStrip {
  std::int64_t image, images, first, count;
};

// Cuts all pixels into strips of about `most`: parts of one image, of a multiple of `unit` pixels, or several whole
// images.
class ConvStrips {
 public:
  ConvStrips(std::int64_t batch, std::int64_t pixels, std::int64_t most, std::int64_t unit);
  std::int64_t count() const { return count_; }
  std::int64_t longest() const { return images_ * part_; }
  std::int64_t images() const { return images_; }
  ConvStrip at(std::int64_t index) const;

 private:
  std::int64_t batch_, pixels_, part_, parts_, images_, count_;
};

// Scratch memory from the caching allocator.
class ConvScratch {
 public:
  explicit ConvScratch(std::int64_t bytes);
  ConvScratch(const ConvScratch&) = delete;
  ConvScratch& operator=(const ConvScratch&) = delete;
  ~ConvScratch();
  template <class T>
  T* as() { return static_cast<T*>(data_); }

 private:
  void* data_;
};

// Starts to bring elements that follow each other to the second-level cache.
template <class T>
inline void fetch_run(const T* from, std::int64_t count) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

// Where source values lie for a strip. The value of tap t for pixel j of image n and channel c is at
//   data()[n * image() + c * channel() + tap(t) + pixel(j)].
//
// A window is laid out as [image][channel] and per dimension [phase][position], where source index = position * step +
// phase + a constant: positions that neighbouring pixels read lie side by side, whatever the step is.
template <class T>
class ConvWindow {
 public:
  // `channels`: how many are read at once. `in_place`: the source is read where it lies if it can be.
  ConvWindow(const Correlation<T>& problem, std::int64_t channels, std::int64_t most_pixels, std::int64_t most_images,
             bool in_place);

  bool in_place() const { return in_place_; }
  std::int64_t taps() const { return static_cast<std::int64_t>(tap_.size()); }

  void move_to(const ConvStrip& strip);
  // Reads channels [first, first + count) of the group.
  void read(std::int64_t group, std::int64_t first, std::int64_t count);

  // Starts to bring what `read` will read for that strip from memory.
  void fetch(const ConvStrip& strip, std::int64_t group, std::int64_t first, std::int64_t count) const;

  const T* data() const { return data_; }
  std::int64_t image() const { return image_; }
  std::int64_t channel() const { return channel_; }
  std::int32_t tap(std::int64_t t) const { return tap_[t]; }

  // Calls run(pixel index within the strip, offset, count) for the pixels of one of its images, row by row; offsets
  // include the image's. Pixels of a run are pixel_step() apart.
  template <class Run>
  void each_row(std::int64_t image, Run run) const {
    const std::int64_t* const size = problem_.out.size;
    std::int64_t at = 0, pixel = strip_.first;
    while (at < strip_.count) {
      const std::int64_t x = pixel % size[2], y = pixel / size[2] % size[1], z = pixel / (size[1] * size[2]);
      const std::int64_t left = size[2] - x, count = left < strip_.count - at ? left : strip_.count - at;
      run(at, image * image_ + (z - low_[0]) * pixel_[0] + (y - low_[1]) * pixel_[1] + (x - low_[2]) * pixel_[2], count);
      at += count, pixel += count;
    }
  }
  std::int64_t pixel_step() const { return pixel_[2]; }

 private:
  void set_range();
  void fill_rows(const T* source, T* target, std::int64_t channels) const;

  const Correlation<T>& problem_;
  const ConvKernels<T>& use_ = conv_kernels_of<T>();
  bool in_place_;
  std::int64_t most_channels_;
  std::int64_t least_[3], span_[3], phases_[3];  // of the taps' places
  std::int64_t low_[3], length_[3];              // first position, positions per phase
  std::int64_t pixel_[3], phase_[3], image_ = 0, channel_ = 0;
  struct Reach {
    std::int64_t x, begin, end;  // source index of position 0; positions inside of the source
  };
  std::vector<Reach> reach_;  // of a row, per phase
  std::vector<std::int32_t> tap_;
  ConvStrip strip_{};
  ConvScratch memory_;
  const T* data_ = nullptr;
};

}  // namespace pyframe
