// The tables, the sums and the schedule that a GPU keeps between steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "../cuda/launch.h"
#include "../gather.h"

namespace lrfused {

// The type of the tensors that the kernels take: emulated.cpp's are on the CPU.
c10::DeviceType device_type();

// Bytes in device memory, uploaded when they differ from the last ones.
class UploadedBytes {
 public:
  const char* put(const std::vector<char>& bytes, c10::Device device);

 private:
  at::Tensor there_;
  std::vector<char> last_;
};

// The factor of the gradients: 1 / grad_scale, or inv_scale where that is undefined. No update is
// made where found_inf is not 0. Both tensors are fp32 of one element, on the device.
struct Scaling {
  double inv_scale = 1;
  at::Tensor grad_scale, found_inf;

  cuda::Scaler on(c10::Device device) const;
};

class DeviceState {
 public:
  // Load the kernels that this version of the driver takes: cuda/machine.h.
  DeviceState(int64_t index, int driver);

  // The device's copy of program.h's tensors, rows in the order of cells: cuda/commit.h.
  // `momentum_cells` names each group's cell of a momentum that a schedule moves, or is -1.
  void bind(std::vector<at::Tensor> tensors, std::vector<int32_t> momentum_cells, int64_t length);

  // Make room for the norm of parameters of these sizes, so that a capture finds it.
  void reserve(const std::vector<int64_t>& numels);

  // Take the norm of the gradients of all slots, which are on this device. Returns fp64 of two
  // elements there, the norm and the coefficient that clips to max_norm; while `recording` into a
  // graph, always the same tensor.
  at::Tensor norm(const Found& found, int64_t stream, const Scaling& scaling, double max_norm,
                  bool recording);

  // Update the slots that are on this device, with a clip that `norm` returned or none; note the
  // rates used; and, if it `advances`, advance. With `finite` no update is made of an infinite
  // norm; with `always` a step that makes none advances, too. While `recording` nothing is
  // uploaded.
  void update(const Found& found, int64_t stream, const Scaling& scaling, const at::Tensor& clip,
              bool advances, bool always, bool finite, bool recording);

  // Return whether all slots are on this device, and there are any.
  bool has_all(const Found& found) const;

  void advance(int64_t stream);                            // one schedule step of every group
  void observe(const at::Tensor& metric, int64_t stream);  // fp64 of one element

 private:
  void launch(cuda::Launch launch, const cuda::Table& table, int only, cuda::Step step);
  void make_room(int64_t pieces, int64_t places);
  bool has(const Slot& slot) const;

  c10::Device device_;
  const size_t room_;  // bytes of a table in a kernel's argument
  std::vector<at::Tensor> bound_;
  std::vector<int32_t> momentum_cells_;
  cuda::Schedule schedule_{};
  at::Tensor ticket_;
  UploadedBytes table_, gradients_;
  at::Tensor sums_;                   // fp64: of pieces, then of parameters
  at::Tensor counts_;                 // int32, 0 between launches
  at::Tensor clip_;                   // written by captured steps: cuda::Clip
  std::vector<at::Tensor> outgrown_;  // sums and counts that captured steps go on using
  bool captured_ = false;
};

}  // namespace lrfused
