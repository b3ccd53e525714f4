// The tables, the sums and the schedule that a GPU keeps between steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "../cuda/launch.h"

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

class DeviceState {
 public:
  // Load the kernels that this version of the driver takes: cuda/machine.h.
  DeviceState(int64_t index, int driver);

  // The device's copy of program.h's tensors, rows in the order of cells: cuda/commit.h.
  void bind(std::vector<at::Tensor> tensors, int64_t groups, int64_t length);

  // Make room for the norm of parameters of these sizes, so that a capture finds it.
  void reserve(const std::vector<int64_t>& numels);

  void advance(int64_t stream);                            // one schedule step of every group
  void observe(const at::Tensor& metric, int64_t stream);  // fp64 of one element

 private:
  friend class DeviceStep;
  void launch(cuda::Launch launch, const cuda::Table& table, int only, cuda::Step step);
  void make_room(int64_t pieces, int64_t places);

  c10::Device device_;
  const size_t room_;  // bytes of a table in a kernel's argument
  std::vector<at::Tensor> bound_;
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
