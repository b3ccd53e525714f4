// Launching the kernels: the .cu files do it on a GPU, emulated.cpp runs the same code on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>

#include "commit.h"
#include "machine.h"
#include "table.h"

namespace lrfused::cuda {

// What GradScaler says to a step, read on the device.
struct Scaler {
  double inv_scale;         // what gradients are multiplied by, where grad_scale is null
  const float* grad_scale;  // its own, or null
  const float* found_inf;   // other than 0, NaN too, no update is made; or null

  LRFUSED_HD bool found() const { return found_inf && !(*found_inf == 0); }
  LRFUSED_HD double scale() const {
    // As GradScaler.unscale_ does.
    return grad_scale ? double(float(1.0 / double(*grad_scale))) : inv_scale;
  }
};

// What the norm's launch leaves to the update's.
struct Clip {
  double norm, coefficient;
};

// What a launch does beside updating tensors.
struct Step {
  Schedule schedule;
  Scaler scaler;
  const Clip* clip;    // or null
  uint32_t* ticket;    // 0 between launches
  bool use, advances;  // what the last block commits; the former also of a skipped step
  bool always;         // whether a skipped step advances the schedule nevertheless
  bool finite;         // whether a norm that is not is skipped

  LRFUSED_HD bool skipped() const {
    // An infinity or a NaN less itself is a NaN.
    return scaler.found() || (clip && finite && !(clip->norm - clip->norm == 0));
  }
  LRFUSED_HD double coefficient() const { return clip ? clip->coefficient : 1.0; }
  LRFUSED_HD bool moves(bool skipped) const { return advances && (always || !skipped); }
};

// What a launch does beside summing squares.
struct Norm {
  Scaler scaler;
  double max_norm;
  double* pieces;        // of the launch's own tensors
  uint32_t* counts;      // of the pieces that are done: 0 between launches
  double* sums;          // of all parameters
  int64_t begin, total;  // the first of the launch's, and how many there are
  Clip* clip;            // written by the last launch, which has total's last
  uint32_t* ticket;
};

// Where a launch's table goes: into a kernel's argument, of two sizes, or it is on the device.
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

// Each returns null, or what went wrong. `only` is the table's one kind, or kMixed.
const char* launch_step(const Launch& launch, const Table& table, int only, const Step& step);
const char* launch_norm(const Launch& launch, const Gradients& table, const Norm& norm);
const char* launch_observe(int device, void* stream, const Schedule& schedule,
                           const double* metric);

// Load the kernels of step.cu, and of norm.cu, that take arguments of so much room: a launch that
// is captured must not be the one to load its kernel.
const char* load_step(int device, size_t room);
const char* load_norm(int device, size_t room);

}  // namespace lrfused::cuda
