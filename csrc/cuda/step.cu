// One launch (several, in a capture whose tables exceed the kernel argument) updates all tensors of
// all groups on a device, and advances the schedule.
//
// Warps take items in turn and share nothing. A block that is done takes a ticket; the block with
// the last ticket commits, as all others have then read the rates of this step.
#include "kernels.h"
#include "update.h"

namespace lrfused::cuda {
namespace {

// Return the blocks on a multiprocessor: few enough that registers, 64 or 80 a thread, do not
// spill.
constexpr int blocks(int only) { return only == kMixed || only > kFloat16 ? 4 : 3; }

// Drivers older than CUDA 12.1 take 4,096 bytes of arguments.
static_assert(sizeof(Inline<Table, kSmall>) + sizeof(Step) + sizeof(uint32_t) <= 4096);

template <class Where, int Only>
__global__ void __launch_bounds__(kThreads, blocks(Only))
    step(const __grid_constant__ Where where, const __grid_constant__ Step s, uint32_t items) {
  const bool skipped = s.skipped();
  if (!skipped) {
    const Table table = where.get();
    const Common common{s.schedule.cells, s.scaler.scale(), s.coefficient()};
    for (uint32_t item = blockIdx.x * kWarps + threadIdx.x / kLanes; item < items;
         item += gridDim.x * kWarps)
      update_item<Only>(table, common, items, item, threadIdx.x % kLanes);
  }
  if (!(s.use || s.advances) || !is_last(s.ticket)) return;
  commit(s.schedule, s.use, s.moves(skipped), threadIdx.x, kThreads);
}

__global__ void __launch_bounds__(kThreads)
    observe(const __grid_constant__ Schedule s, const double* metric) {
  bool cut = false;
  for (int64_t cell = threadIdx.x; cell < 2 * s.groups; cell += kThreads)
    cut |= feed(s, cell, *metric);
  if (threadIdx.x == 0) ++*s.observed;
  if (!__syncthreads_or(cut)) return;
  for (int64_t g = threadIdx.x; g < s.groups; g += kThreads)
    record(s, g, s.recorded[g], s.epochs[g], s.cells[2 * g], true);
}

}  // namespace

const char* launch_step(const Launch& l, const Table& table, int only, const Step& s) {
  const DeviceGuard device(l.device);
  with_kind(only, [&](auto kind) {
    constexpr int Only = decltype(kind)::value;
    pass(l, table, [&](const auto& where) {
      step<std::decay_t<decltype(where)>, Only>
          <<<grid_of(l, blocks(Only)), kThreads, 0, static_cast<cudaStream_t>(l.stream)>>>(where, s,
                                                                                           l.items);
    });
  });
  return text_of(cudaGetLastError());
}

const char* launch_observe(int device, void* stream, const Schedule& schedule,
                           const double* metric) {
  const DeviceGuard now(device);
  observe<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(schedule, metric);
  return text_of(cudaGetLastError());
}

const char* load_step(int index, size_t room) {
  const DeviceGuard device(index);
  const char* error = load(observe);
  for (const int only : kKinds) {
    if (error) break;
    error = with_kind(only, [&](auto kind) {
      constexpr int Only = decltype(kind)::value;
      const char* error = load(step<Resident<Table>, Only>);
      if (!error) error = load(step<Inline<Table, kSmall>, Only>);
      if (!error && room > kSmall) error = load(step<Inline<Table, kInline>, Only>);
      return error;
    });
  }
  return error;
}

}  // namespace lrfused::cuda
