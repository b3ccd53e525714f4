// The step on a GPU, as far as it needs torch; cpu/step.h is the step on the CPU, phase by phase.
//
// Python calls the phases; only Python handles streams and captures:
//
//     DeviceStep(...)   gather; hold references; find the odd parameters
//     norm(...)         on the device: take the norm, and the clipping coefficient
//     create(...)       create momentum buffers and masters for first steps
//     launch(...)       on each device: update, note the rates used, advance
//     finish(...)       put the state
//
// In the common step Python has nothing to decide between them: step_at_once makes it whole.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "../gathered.h"
#include "../images.h"
#include "../program.h"
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

  // Set state.h's Scaling.
  void scale(double inv_scale, std::optional<at::Tensor> grad_scale,
             std::optional<at::Tensor> found_inf);

  // Take the norm of all gradients, to which `launch` then clips: DeviceState::norm.
  at::Tensor norm(DeviceState& device, int64_t stream, double max_norm, bool recording);

  // Create momentum buffers and masters. The state has none of them before `finish`.
  void create(const py::dict& state);

  // Update the slots of one device: DeviceState::update.
  void launch(DeviceState& device, int64_t stream, bool advances, bool always, bool finite,
              bool recording);

  // Put the created tensors into the state.
  void finish(const py::dict& state);

 private:
  Gathered gathered_;
  std::vector<at::Tensor> created_;
  Scaling scaling_;
  at::Tensor clip_;
};

// Make a step outside of a capture, of plain tensors that are all on one device and have their
// state, if the device has the host's numbers: `images`. Return whether it was made, and what
// DeviceState::norm returns if there is a max_norm; for every other step do nothing.
//
// The kernels read GradScaler's numbers on the device. `settled`: whether no decision of the device
// is in flight; the host's program, too, notes the rates used, advances if `advance`, and shows its
// rates. Else the caller keeps that for later. `has_odd` is set if there are odd parameters.
std::pair<bool, std::optional<at::Tensor>> step_at_once(
    const py::list& groups, const py::dict& state, Program& program, DeviceState& device,
    Images& images, MasterForm master_form, std::optional<at::Tensor> grad_scale,
    std::optional<at::Tensor> found_inf, std::optional<double> max_norm, int64_t stream,
    bool advance, bool settled, bool* has_odd = nullptr);

}  // namespace lrfused
