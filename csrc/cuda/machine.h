// The device and the driver that kernels run on.
#pragma once

#include <cstddef>

namespace lrfused::cuda {

struct Machine {
  char name[256];
  int major, minor;  // of the compute capability
};

// Returns null, or what went wrong.
const char* describe(int device, Machine& machine);

// The newest CUDA that the driver supports: 12010 is 12.1.
int driver_version();

// Whether tensors are a GPU's.
bool on_gpu();

// Bytes of a table in a kernel's argument. All arguments together may take 4,096 bytes, and 32,764
// with a driver of CUDA 12.1 or newer; what is left is for the others.
constexpr size_t kSmall = 3840, kInline = 32512;
constexpr int kLongArguments = 12010;
constexpr size_t room_of(int driver) { return driver < kLongArguments ? kSmall : kInline; }

}  // namespace lrfused::cuda
