#include "step.h"

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

void DeviceStep::create() { created_ = lrfused::create(gathered_.found); }

void DeviceStep::launch(DeviceState& device, int64_t stream, bool advances, bool always,
                        bool finite, bool recording) {
  device.update(gathered_.found, stream, scaling_, clip_, advances, always, finite, recording);
}

void DeviceStep::finish(const py::dict& state) {
  gathered_.bump_versions();
  put(gathered_.found, created_, state);
}

}  // namespace lrfused
