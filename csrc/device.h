// The step on a GPU: what of it needs torch. The kernels, in cuda/, do not.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <vector>

#include "cuda/launch.h"
#include "gathered.h"

namespace lrfused {

// Bytes in device memory, uploaded when they are others than before.
class Resident {
 public:
  const char* put(const std::vector<char>& bytes, c10::Device device);

 private:
  at::Tensor there_;
  std::vector<char> known_;
};

// What one device keeps from step to step.
class Device {
 public:
  // Load the kernels, those that this version of the driver takes: cuda/machine.h.
  Device(int64_t index, int driver);

  // The device's copy of program.h's tensors, rows in the order of cells; cuda/commit.h.
  void bind(std::vector<at::Tensor> tensors, int64_t groups, int64_t length);

  // Make room for the norm of parameters of so many elements, so that a capture finds it.
  void reserve(const std::vector<int64_t>& numels);

  void advance(int64_t stream);
  void observe(const at::Tensor& metric, int64_t stream);  // fp64 of one element

 private:
  friend class DeviceStep;
  void launch(cuda::Launch launch, const cuda::Table& table, int only, cuda::Step step);
  void make_room(int64_t pieces, int64_t places);

  c10::Device device_;
  const size_t room_;  // for a table in a kernel's argument
  std::vector<at::Tensor> bound_;
  cuda::Schedule schedule_{};
  at::Tensor ticket_;
  Resident table_, gradients_;
  at::Tensor sums_;                   // fp64: pieces', then parameters'
  at::Tensor counts_;                 // int32, 0 between launches
  at::Tensor clip_;                   // what captured steps write, cuda::Clip
  std::vector<at::Tensor> outgrown_;  // and go on using
  bool captured_ = false;
};

// One step: found, then launched on each device.
class C10_HIDDEN DeviceStep {
 public:
  DeviceStep(const py::list& groups, const py::dict& state, const std::vector<double>& cells,
             Master kept);

  bool valid() const { return gathered_.valid(); }
  int64_t firsts() const { return gathered_.firsts(); }
  std::vector<int64_t> devices() const;
  py::list odd() const { return gathered_.odd(); }

  // Gradients are multiplied by 1 / grad_scale, or else by inv_scale; both tensors are fp32 of one
  // element, on the device, and where found_inf is not 0 no update is made.
  void scale(double inv_scale, std::optional<at::Tensor> grad_scale,
             std::optional<at::Tensor> found_inf);

  // Take the norm of all gradients, which `launch` then clips to max_norm: fp64 of two elements on
  // the device, the norm and the coefficient. While `recording` it is the device's own tensor.
  at::Tensor norm(Device& device, int64_t stream, double max_norm, bool recording);

  // Make momentum buffers and masters for first steps. Nothing is in `state` before `finish`.
  void create();
  // Update what is on a device. `momentum_cells` names each group's cell of a momentum that a
  // schedule moves, or -1. With `finite` a norm that is not makes no update; if `always`, a step
  // without one advances the schedule too. While `recording` into a graph nothing is uploaded.
  void launch(Device& device, int64_t stream, const std::vector<int32_t>& momentum_cells,
              bool advances, bool always, bool finite, bool recording);
  void finish(const py::dict& state);

 private:
  cuda::Scaler scaler_on(const Device& device) const;

  Gathered gathered_;
  std::vector<at::Tensor> created_;
  double inv_scale_ = 1;
  at::Tensor grad_scale_, found_inf_, clip_;
};

}  // namespace lrfused
