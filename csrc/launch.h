// Launching a GPU kernel: packs its arguments and calls the driver's cuLaunchKernel, which is given as an address, so
// that nothing of CUDA is needed to build this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pyframe {

constexpr int kMostArguments = 96;

// As the driver declares it (CUDA driver API, cuLaunchKernel); the status is a CUresult.
using LaunchKernel = int (*)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                             unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** arguments,
                             void** extra);

struct LaunchPlan {
  void* function;
  LaunchKernel call;
  std::string codes;  // of the arguments, as Python's struct has them; P: an array's address
};

// Whether `code` is one of those that `store_integer` or `store_number` knows, or P.
bool is_argument(char code);
bool is_number(char code);  // f and d

// Writes a value as the kernel takes it; false where an integer does not fit.
bool store_integer(char code, std::int64_t value, bool above, void* target);
void store_number(char code, double value, void* target);

}  // namespace pyframe
