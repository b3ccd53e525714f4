// One launch for the step of all tensors of all groups on a device, and its schedule's.
//
// Warps take items in turn; nothing is shared between them. A block that is done takes a ticket;
// the one that took the last commits, when all others have read the rates of this step.
#include "kernels.h"
#include "update.h"

namespace lrfused::cuda {
namespace {

// On a multiprocessor, so that registers, 80 or 128 a thread, need no spilling.
constexpr int blocks(int only) { return only == kMixed || only > kFloat16 ? 4 : 3; }

template <class Where, int Only>
__global__ void __launch_bounds__(kThreads, blocks(Only))
    step(const __grid_constant__ Where where, const __grid_constant__ Step s, uint32_t items) {
  const bool skipped = s.skipped();
  if (!skipped) {
    const Table table = where.get();
    const Common common{s.schedule.cells, s.scaler.scale(), s.coefficient()};
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

template <int Only>
const char* launch_on(const Launch& l, const Table& table, const Step& s) {
  const uint32_t grid = grid_of(l, blocks(Only));
  const auto stream = static_cast<cudaStream_t>(l.stream);
  if (l.inlined)
    step<Inline<Table>, Only><<<grid, kThreads, 0, stream>>>(Inline(table), s, l.items);
  else
    step<Resident<Table>, Only><<<grid, kThreads, 0, stream>>>(Resident(table), s, l.items);
  return said(cudaGetLastError());
}

}  // namespace

const char* launch_step(const Launch& l, const Table& table, int only, const Step& s) {
  const Device device(l.device);
  switch (only) {
    case kFloat32:
      return launch_on<kFloat32>(l, table, s);
    case kFloat64:
      return launch_on<kFloat64>(l, table, s);
    case kBFloat16:
      return launch_on<kBFloat16>(l, table, s);
    case kFloat16:
      return launch_on<kFloat16>(l, table, s);
    case kBFloat16Whole:
      return launch_on<kBFloat16Whole>(l, table, s);
    case kFloat16Whole:
      return launch_on<kFloat16Whole>(l, table, s);
    case kBFloat16Remainder:
      return launch_on<kBFloat16Remainder>(l, table, s);
    default:
      return launch_on<kMixed>(l, table, s);
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
