// A device and its driver, described by the CUDA runtime. No call here makes a context.
#include "machine.h"

#include <cuda_runtime.h>

#include <cstring>

namespace lrfused::cuda {

const char* describe(int device, Machine& machine) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) {
    cudaGetLastError();  // or the next launch, on a device that works, would report it
    return cudaGetErrorString(error);
  }
  memcpy(machine.name, properties.name, sizeof(machine.name));
  machine.major = properties.major;
  machine.minor = properties.minor;
  return nullptr;
}

int driver_version() {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) cudaGetLastError();
  return version;
}

bool on_gpu() { return true; }

}  // namespace lrfused::cuda
