// Launching the kernels: the .cu files do it on a GPU, emulated.cpp runs the same code on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "commit.h"
#include "machine.h"
#include "table.h"

namespace lrfused::cuda {

// GradScaler's tensors, read on the device.
struct Scaler {
  double inv_scale;         // gradients are multiplied by it where grad_scale is null
  const float* grad_scale;  // or null
  const float* found_inf;   // no update is made unless it is 0; or null

  LRFUSED_HD bool found() const { return found_inf && !(*found_inf == 0); }
  LRFUSED_HD double scale() const {
    // Rounded as in GradScaler.unscale_.
    return grad_scale ? double(float(1.0 / double(*grad_scale))) : inv_scale;
  }
};

// The result of a norm's launch, read by the update's.
struct Clip {
  double norm, coefficient;
};

// The arguments of a step's launch beside its table.
struct Step {
  Schedule schedule;
  Scaler scaler;
  const Clip* clip;    // or null
  uint32_t* ticket;    // 0 between launches
  bool use, advances;  // whether the last block notes the rates, skipped or not, and advances
  bool always;         // whether a skipped step advances the schedule, too
  bool finite;         // whether a step whose norm is not finite is skipped

  LRFUSED_HD bool skipped() const {
    // x - x is a NaN for infinities and NaNs.
    return scaler.found() || (clip && finite && !(clip->norm - clip->norm == 0));
  }
  LRFUSED_HD double coefficient() const { return clip ? clip->coefficient : 1.0; }
  LRFUSED_HD bool moves(bool skipped) const { return advances && (always || !skipped); }
};

// The arguments of a norm's launch beside its table.
struct Norm {
  Scaler scaler;
  double max_norm;
  double* pieces;        // sums of the pieces of the launch's tensors
  uint32_t* counts;      // of the pieces that are done: 0 between launches
  double* sums;          // of all parameters
  int64_t begin, total;  // the launch's first parameter, and the number of all
  Clip* clip;            // written by the launch that has the last parameter
  uint32_t* ticket;
};

// The place of a launch's table: a small or a large argument of the kernel, or device memory.
enum class Place : uint8_t { small, large, resident };
constexpr Place place_of(bool inlined, size_t bytes) {
  return !inlined ? Place::resident : bytes <= kSmall ? Place::small : Place::large;
}

struct Launch {
  int device;
  void* stream;
  Place place;
  uint32_t items;
};

// Each returns null or an error's text. `only` is the kind of all tensors in the table, or kMixed.
const char* launch_step(const Launch& launch, const Table& table, int only, const Step& step);
const char* launch_norm(const Launch& launch, const Gradients& table, const Norm& norm);
const char* launch_observe(int device, void* stream, const Schedule& schedule,
                           const double* metric);

// Load the kernels of step.cu and norm.cu whose tables fit into `room` bytes: a captured launch
// must not load its kernel.
const char* load_step(int device, size_t room);
const char* load_norm(int device, size_t room);

}  // namespace lrfused::cuda
