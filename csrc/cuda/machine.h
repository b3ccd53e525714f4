// The device and its driver.
#pragma once

#include <cstddef>

namespace lrfused::cuda {

struct Machine {
  char name[256];
  int major, minor;  // of the compute capability
};

// Describe a device; return null or an error's text.
const char* describe(int device, Machine& machine);

// Return the newest CUDA that the driver supports: 12010 is 12.1.
int driver_version();

// Return whether the kernels run on a GPU.
bool on_gpu();

// Bytes of a table in a kernel's argument. All arguments together may take 4,096 bytes, or 32,764
// with a driver of CUDA 12.1 or newer; the other arguments take the rest.
constexpr size_t kSmall = 3840, kInline = 32512;
constexpr int kLongArguments = 12010;
constexpr size_t room_of(int driver) { return driver < kLongArguments ? kSmall : kInline; }

}  // namespace lrfused::cuda
