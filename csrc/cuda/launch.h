// Launching the kernels: step.cu does it on a GPU, emulated.cpp runs the same code on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "commit.h"
#include "table.h"

namespace lrfused::cuda {

// A kernel's arguments may take 32,764 bytes from CUDA 12.1 on; the rest of them needs some.
constexpr size_t kInline = 32512;

// What a launch does beside updating tensors.
struct Step {
  Schedule schedule;
  double inv_scale;         // what gradients are multiplied by, where grad_scale is null
  const float* grad_scale;  // GradScaler's, on the device, or null
  const float* found_inf;   // likewise: other than 0, NaN too, the step is skipped
  uint32_t* ticket;         // 0 between launches
  bool use, advances;       // what the last block commits; the former also of a skipped step
  bool always;              // whether a skipped step advances the schedule nevertheless

  LRFUSED_HD bool skipped() const { return found_inf && !(*found_inf == 0); }
  LRFUSED_HD double scale() const {
    // As GradScaler.unscale_ does.
    return grad_scale ? double(float(1.0 / double(*grad_scale))) : inv_scale;
  }
  LRFUSED_HD bool moves(bool skipped) const { return advances && (always || !skipped); }
};

struct Launch {
  int device;
  void* stream;
  int only;     // the table's one dtype, or kMixed
  Table table;  // in host memory if it is `inlined`, else in the device's
  bool inlined;
  uint32_t items;
};

// Each returns null, or what went wrong.
const char* launch_step(const Launch& launch, const Step& step);
const char* launch_observe(int device, void* stream, const Schedule& schedule,
                           const double* metric);

// Whether tensors are a GPU's.
bool on_gpu();

}  // namespace lrfused::cuda
