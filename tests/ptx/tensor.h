// A random parameter with its streams, updated by csrc/sgd.h, and compared.
#pragma once

#include "csrc/cuda/table.h"
#include "stream.h"

namespace lrfused::ptx {

struct Tensor {
  DType dtype, grad_dtype;
  MasterForm master_form;
  int32_t group;
  MomentumMode mode;
  Stream param, grad, buffer, master;

  DType buffer_dtype() const { return master_form == MasterForm::none ? dtype : DType::float32; }
};

// Make a parameter of a kind (csrc/cuda/table.h), in a group with momentum or without.
Tensor any_tensor(int kind, int32_t group, bool momentum, Random& random);

Slot slot_of(Tensor& tensor, int64_t place);

void add_regions(const Tensor& tensor, size_t number, std::vector<Region>& to);

// The update by csrc/sgd.h, with the group's row and the device's values.
struct Update {
  const cuda::Row& row;
  double momentum, rate, scale, clip;

  void operator()(Tensor& tensor) const;
};

// Throws a Fault if they differ.
void check_equal(const Tensor& mine, const Tensor& expected, size_t number);

}  // namespace lrfused::ptx
