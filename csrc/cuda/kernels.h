// Loading and launching kernels, and finding the last block of a grid.
#pragma once

#include <cuda_runtime.h>

#include "argument.h"

namespace lrfused::cuda {
namespace {

// Whether this block is the last of all to come here. The ticket is left at 0.
__device__ bool is_last(uint32_t* ticket) {
  __shared__ bool last;
  __syncthreads();  // what its threads had to read and write is done ...
  if (threadIdx.x == 0) {
    __threadfence();  // ... and seen before the ticket is
    last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  return last;
}

// The device that is launched on, for as long as this lives.
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

const char* said(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

// Load a kernel onto the current device.
template <class Kernel>
const char* load(Kernel* kernel) {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) cudaGetLastError();  // which no launch made
  return said(error);
}

// How many blocks take the items in turn, a warp each.
uint32_t grid_of(const Launch& l, int blocks) {
  int count = 1;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, l.device);
  const uint32_t room = uint32_t(count * blocks);
  const uint32_t wanted = (l.items + kWarps - 1) / kWarps;
  return wanted < 1 ? 1 : wanted < room ? wanted : room;
}

}  // namespace
}  // namespace lrfused::cuda
