// The step on a GPU, as far as it needs torch; cpu/step.h is the step on the CPU, phase by phase.
//
// Python calls the phases; only Python handles streams and captures:
//
//     DeviceStep(...)   gather; hold references; find the odd parameters
//     norm(...)         on the device: take the norm, and the clipping coefficient
//     create()          create momentum buffers and masters for first steps
//     launch(...)       on each device: update, note the rates used, advance
//     finish(...)       put the state
#pragma once

#include <optional>
#include <vector>

#include "../gathered.h"
#include "state.h"

namespace lrfused {

class C10_HIDDEN DeviceStep {
 public:
  DeviceStep(const py::list& groups, const py::dict& state, const std::vector<double>& cells,
             MasterForm master_form);

  bool valid() const { return gathered_.valid(); }
  int64_t firsts() const { return gathered_.firsts(); }
  py::list odd() const { return gathered_.odd(); }
  std::vector<int64_t> devices() const;  // the indices of the slots' devices

  // Multiply gradients by 1 / grad_scale, or by inv_scale where it is None; make no update where
  // found_inf is not 0. Both tensors are fp32 of one element, on the device.
  void scale(double inv_scale, std::optional<at::Tensor> grad_scale,
             std::optional<at::Tensor> found_inf);

  // Take the norm of all gradients, which `launch` then clips to max_norm. Returns fp64 of two
  // elements on the device, the norm and the coefficient; while `recording`, always the same tensor
  // of the device's state.
  at::Tensor norm(DeviceState& device, int64_t stream, double max_norm, bool recording);

  // Create momentum buffers and masters. The state has none of them before `finish`.
  void create();

  // Update the slots of one device. `momentum_cells` names each group's cell of a momentum that a
  // schedule moves, or is -1. With `finite` no update is made of an infinite norm; with `always` a
  // step that makes none advances the schedule too. While `recording` into a graph nothing is
  // uploaded.
  void launch(DeviceState& device, int64_t stream, const std::vector<int32_t>& momentum_cells,
              bool advances, bool always, bool finite, bool recording);

  // Put the created tensors into the state.
  void finish(const py::dict& state);

 private:
  cuda::Scaler scaler_on(const DeviceState& device) const;

  Gathered gathered_;
  std::vector<at::Tensor> created_;
  double inv_scale_ = 1;
  at::Tensor grad_scale_, found_inf_, clip_;
};

}  // namespace lrfused
