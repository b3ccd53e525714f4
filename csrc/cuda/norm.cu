// One launch computes the norm of all gradients on a device, and the clipping coefficient.
//
// Warps take pieces in turn. The warp that completes a tensor adds up its pieces, and the last
// block adds up the tensors. These differ from run to run; the order of the sums does not.
#include "kernels.h"
#include "norm.h"

namespace lrfused::cuda {
namespace {

constexpr int kBlocks = 3;

struct Down {
  __device__ double operator()(double x, int by) const {
    return __shfl_down_sync(0xffffffffu, x, by);
  }
};

// Return the sum of n numbers in lane 0. The whole warp calls this.
__device__ double sum_of(const double* x, int64_t n, int64_t lane) {
  double sums[kSumsPerLane] = {};
  add_numbers(x, n, lane, sums);
  return fold(sums, false, Down());
}

// Write lane 0's sum of a piece; return whether all pieces of the tensor are written.
__device__ bool note(double sum, double* to, uint32_t* count, uint32_t pieces, int64_t lane) {
  bool last = false;
  if (lane == 0) {
    *to = sum;
    __threadfence();                                    // visible before the count is
    last = atomicInc(count, pieces - 1) == pieces - 1;  // the last one leaves the count at 0
    __threadfence();
  }
  last = __shfl_sync(0xffffffffu, last, 0);
  __syncwarp();  // the other lanes read what lane 0 may read
  return last;
}

// Drivers older than CUDA 12.1 take 4,096 bytes of arguments.
static_assert(sizeof(Inline<Gradients, kSmall>) + sizeof(Norm) + sizeof(uint32_t) <= 4096);

template <class Where>
__global__ void __launch_bounds__(kThreads, kBlocks)
    norm(const __grid_constant__ Where where, const __grid_constant__ Norm n, uint32_t items) {
  const Gradients table = where.get();
  const bool ends = n.begin + table.count == n.total;
  if (n.scaler.found()) {  // no norm is taken
    if (ends && blockIdx.x == 0 && threadIdx.x == 0) *n.clip = not_taken();
    return;
  }
  const double scale = n.scaler.scale();
  const int64_t lane = threadIdx.x % kLanes;
  for (uint32_t item = blockIdx.x * kWarps + threadIdx.x / kLanes; item < items;
       item += gridDim.x * kWarps) {
    const int32_t i = tensor_of(table.first(), table.count, items, item);
    const uint32_t first = table.first()[i], pieces = table.first()[i + 1] - first;
    double sums[kSumsPerLane] = {};
    const bool wide = add_piece(table.entry(i), item - first, scale, lane, sums);
    double sum = fold(sums, wide, Down());
    if (pieces > 1) {
      if (!note(sum, n.pieces + item, n.counts + i, pieces, lane)) continue;
      sum = sum_of(n.pieces + first, pieces, lane);
    }
    if (lane == 0) n.sums[n.begin + i] = sum;
  }
  if (!ends || !is_last(n.ticket) || threadIdx.x >= kLanes) return;
  const double sum = sum_of(n.sums, n.total, lane);
  if (lane == 0) *n.clip = clip_of(sum, n.max_norm);
}

}  // namespace

const char* launch_norm(const Launch& l, const Gradients& table, const Norm& n) {
  const DeviceGuard device(l.device);
  pass(l, table, [&](const auto& where) {
    norm<<<grid_of(l, kBlocks), kThreads, 0, static_cast<cudaStream_t>(l.stream)>>>(where, n,
                                                                                    l.items);
  });
  return text_of(cudaGetLastError());
}

const char* load_norm(int index, size_t room) {
  const DeviceGuard device(index);
  const char* error = load(norm<Resident<Gradients>>);
  if (!error) error = load(norm<Inline<Gradients, kSmall>>);
  if (!error && room > kSmall) error = load(norm<Inline<Gradients, kInline>>);
  return error;
}

}  // namespace lrfused::cuda
