// One launch for the step of all tensors of all groups on a device, and its schedule's.
//
// Warps take items in turn; nothing is shared between them. A block that is done takes a ticket;
// the one that took the last commits, when all others have read the rates of this step.
#include <cuda_runtime.h>

#include "launch.h"
#include "update.h"

namespace lrfused::cuda {
namespace {

constexpr int kThreads = 256;
// On a multiprocessor, so that registers, 80 or 128 a thread, need no spilling.
constexpr int blocks(int only) { return only == kMixed || only == int(DType::float16) ? 2 : 3; }
constexpr int kWarps = kThreads / int(kLanes);

struct Inline {
  alignas(16) char bytes[kInline];
  int32_t groups, count;
  __device__ Table get() const { return {bytes, groups, count}; }
};

struct Resident {
  Table table;
  __device__ Table get() const { return table; }
};

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

template <class Where, int Only>
__global__ void __launch_bounds__(kThreads, blocks(Only))
    step(const __grid_constant__ Where where, const __grid_constant__ Step s, uint32_t items) {
  const bool skipped = s.skipped();
  if (!skipped) {
    const Table table = where.get();
    const Common common{s.schedule.cells, s.scale()};
    for (uint32_t item = blockIdx.x * kWarps + threadIdx.x / kLanes; item < items;
         item += gridDim.x * kWarps)
      update_item<Only>(table, common, item, threadIdx.x % kLanes);
  }
  if (!(s.use || s.advances) || !is_last(s.ticket)) return;
  commit(s.schedule, s.use, s.moves(skipped), threadIdx.x, kThreads);
}

__global__ void __launch_bounds__(kThreads)
    observe(const __grid_constant__ Schedule s, const double* metric) {
  bool cut = false;
  for (int64_t cell = threadIdx.x; cell < 2 * s.groups; cell += kThreads)
    cut |= observe(s, cell, *metric);
  if (threadIdx.x == 0) ++*s.observed;
  if (!__syncthreads_or(cut)) return;
  for (int64_t g = threadIdx.x; g < s.groups; g += kThreads) record(s, g, true);
}

struct Device {
  int before = 0;
  explicit Device(int device) {
    cudaGetDevice(&before);
    if (before != device) cudaSetDevice(device);
    now = device;
  }
  ~Device() {
    if (before != now) cudaSetDevice(before);
  }
  int now;
};

const char* said(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

int multiprocessors(int device) {
  int count = 1;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

template <int Only>
const char* launch_on(const Launch& l, const Step& s) {
  const uint32_t room = uint32_t(multiprocessors(l.device) * blocks(Only));
  const uint32_t wanted = (l.items + kWarps - 1) / kWarps;
  const uint32_t grid = wanted < 1 ? 1 : wanted < room ? wanted : room;
  const auto stream = static_cast<cudaStream_t>(l.stream);
  if (l.inlined) {
    Inline where;
    memcpy(where.bytes, l.table.bytes, size_of(l.table.groups, l.table.count));
    where.groups = l.table.groups;
    where.count = l.table.count;
    step<Inline, Only><<<grid, kThreads, 0, stream>>>(where, s, l.items);
  } else {
    step<Resident, Only><<<grid, kThreads, 0, stream>>>(Resident{l.table}, s, l.items);
  }
  return said(cudaGetLastError());
}

}  // namespace

const char* launch_step(const Launch& l, const Step& s) {
  const Device device(l.device);
  switch (l.only) {
    case int(DType::float32):
      return launch_on<int(DType::float32)>(l, s);
    case int(DType::float64):
      return launch_on<int(DType::float64)>(l, s);
    case int(DType::bfloat16):
      return launch_on<int(DType::bfloat16)>(l, s);
    case int(DType::float16):
      return launch_on<int(DType::float16)>(l, s);
    default:
      return launch_on<kMixed>(l, s);
  }
}

const char* launch_observe(int device, void* stream, const Schedule& schedule,
                           const double* metric) {
  const Device now(device);
  observe<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(schedule, metric);
  return said(cudaGetLastError());
}

bool on_gpu() { return true; }

}  // namespace lrfused::cuda
