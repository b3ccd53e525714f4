// Helpers of the .cu files: the last block of a grid, the current device, loading, the grid's size.
#pragma once

#include <cuda_runtime.h>

#include "argument.h"

namespace lrfused::cuda {
namespace {

// Return whether this block is the last one to call this. The ticket is left at 0.
__device__ bool is_last(uint32_t* ticket) {
  __shared__ bool last;
  __syncthreads();  // the reads and writes of this block are done ...
  if (threadIdx.x == 0) {
    __threadfence();  // ... and visible before the ticket is
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// Makes a device the current one, for as long as this lives.
struct DeviceGuard {
  int before = 0, now;
  explicit DeviceGuard(int device) : now(device) {
    cudaGetDevice(&before);
    if (before != now) cudaSetDevice(now);
  }
  ~DeviceGuard() {
    if (before != now) cudaSetDevice(before);
  }
};

// Return null, or the error's text.
const char* text_of(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Load a kernel onto the current device.
template <class Kernel>
const char* load(Kernel* kernel) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) cudaGetLastError();  // or the next launch would report it
  return text_of(error);
}

// Return the number of blocks: a warp for each item, at most `blocks` on each multiprocessor.
uint32_t grid_of(const Launch& l, int blocks) {
  int count = 1;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, l.device);
  const uint32_t room = uint32_t(count * blocks);
  const uint32_t wanted = (l.items + kWarps - 1) / kWarps;
  return wanted < 1 ? 1 : wanted < room ? wanted : room;
}

}  // namespace
}  // namespace lrfused::cuda
