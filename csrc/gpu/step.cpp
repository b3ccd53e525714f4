#include "step.h"

#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>

#include "../create.h"

namespace lrfused {

DeviceStep::DeviceStep(const py::list& groups, const py::dict& state,
                       const std::vector<double>& cells, MasterForm master_form)
    : gathered_(groups, state, cells, master_form, device_type()) {}

std::vector<int64_t> DeviceStep::devices() const {
  std::vector<int64_t> indices;
  for (const Slot& s : gathered_.found.slots)
    if (std::find(indices.begin(), indices.end(), s.device) == indices.end())
      indices.push_back(s.device);
  return indices;
}

void DeviceStep::scale(double inv_scale, std::optional<at::Tensor> grad_scale,
                       std::optional<at::Tensor> found_inf) {
  scaling_ = {inv_scale, grad_scale.value_or(at::Tensor()), found_inf.value_or(at::Tensor())};
}

at::Tensor DeviceStep::norm(DeviceState& device, int64_t stream, double max_norm, bool recording) {
  TORCH_CHECK_VALUE(valid() && odd().empty() && devices().size() == 1,
                    "a norm needs plain tensors on one device");
  clip_ = device.norm(gathered_.found, stream, scaling_, max_norm, recording);
  return clip_;
}

void DeviceStep::create(const py::dict& state) {
  created_ = lrfused::create(gathered_.found, state);
}

void DeviceStep::launch(DeviceState& device, int64_t stream, bool advances, bool always,
                        bool finite, bool recording) {
  device.update(gathered_.found, stream, scaling_, clip_, advances, always, finite, recording);
}

void DeviceStep::finish(const py::dict& state) {
  gathered_.bump_versions();
  put(gathered_.found, created_, state);
}

std::pair<bool, std::optional<at::Tensor>> step_at_once(
    const py::list& groups, const py::dict& state, Program& program, DeviceState& device,
    Images& images, MasterForm master_form, std::optional<at::Tensor> grad_scale,
    std::optional<at::Tensor> found_inf, std::optional<double> max_norm, int64_t stream,
    bool advance, bool settled, bool* has_odd) {
  TORCH_CHECK_VALUE(static_cast<int64_t>(groups.size()) == program.groups(),
                    "the program was compiled for ", program.groups(), " groups, not ",
                    groups.size());
  if (!images.unchanged()) return {false, std::nullopt};
  SpareFound spare;
  Found& found = *spare;
  found.aligned = true;
  gather(groups, state, program.cells(), 1.0, device_type(), master_form, found);
  const bool odd = !found.valid || !found.odd.empty();
  if (has_odd) *has_odd = odd;
  if (odd || found.firsts > 0 || !device.has_all(found)) return {false, std::nullopt};

  // Take the norm, and update. A mode runs Python code where room is made for either.
  const auto held = c10::impl::TorchDispatchModeTLS::any_modes_set() ? hold(found) : Held();
  const bool scaled = grad_scale || found_inf;
  const Scaling scaling{1, grad_scale.value_or(at::Tensor()), found_inf.value_or(at::Tensor())};
  std::optional<at::Tensor> clip;
  if (max_norm) clip = device.norm(found, stream, scaling, *max_norm, /*recording=*/false);
  device.update(found, stream, scaling, clip.value_or(at::Tensor()), advance, /*always=*/true,
                /*finite=*/scaled, /*recording=*/false);
  if (settled) program.use();
  for (const Tensors& t : found.tensors) bump_versions(t);

  // Advance and show.
  if (settled && advance) program.advance();
  if (settled) images.note_moved();
  if (settled && advance) program.show(groups);
  return {true, clip};
}

}  // namespace lrfused
