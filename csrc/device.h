// The step on a GPU: what of it needs torch. The kernels, in cuda/, do not.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <vector>

#include "cuda/launch.h"
#include "gather.h"

namespace lrfused {

// What all launches of one step share. The tensors are on their launch's device, or undefined.
struct Scale {
  double inv_scale;                  // where there is no grad_scale
  at::Tensor grad_scale, found_inf;  // fp32 of one element
};

// What one device keeps from step to step.
class Device {
 public:
  explicit Device(int64_t index);

  // The device's copy of program.h's tensors, rows in the order of cells; cuda/commit.h.
  void bind(std::vector<at::Tensor> tensors, int64_t groups, int64_t length);

  void advance(int64_t stream);
  void observe(const at::Tensor& metric, int64_t stream);  // fp64 of one element

 private:
  friend class DeviceStep;
  void launch(cuda::Launch launch, cuda::Step step);
  cuda::Table upload(const std::vector<char>& bytes);

  c10::Device device_;
  std::vector<at::Tensor> bound_;
  cuda::Schedule schedule_{};
  at::Tensor ticket_;
  at::Tensor table_;
  std::vector<char> known_;  // what table_ holds
};

// One step: found, then launched on each device.
class DeviceStep {
 public:
  DeviceStep(const py::list& groups, const py::dict& state, const std::vector<double>& cells);

  bool valid() const { return found_.valid; }
  int64_t firsts() const { return found_.firsts; }
  std::vector<int64_t> devices() const;
  py::list odd() const;  // [(group, param)]; all of them if not valid

  // Make momentum buffers for first steps. Nothing is in `state` before `finish`.
  void create();
  // Update what is on a device. `momentum_cells` names each group's cell of a momentum that a
  // schedule moves, or -1. While `recording` into a graph nothing is uploaded.
  void launch(Device& device, int64_t stream, const std::vector<int32_t>& momentum_cells,
              const Scale& scale, bool advances, bool always, bool recording);
  void finish(const py::dict& state);

 private:
  Found found_;
  std::vector<c10::intrusive_ptr<c10::TensorImpl>> held_;  // Python may drop a gradient meanwhile
  std::vector<at::Tensor> created_;
};

}  // namespace lrfused
