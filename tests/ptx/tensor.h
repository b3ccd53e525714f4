// A parameter of a step with its streams: made at random, updated by csrc/sgd.h, and compared.
#pragma once

#include "csrc/cuda/table.h"
#include "stream.h"

namespace lrfused::ptx {

struct Tensor {
  DType dtype, grad_dtype;
  Master kept;
  int32_t group;
  MomentumMode mode;
  Stream param, grad, buffer, master;

  DType buffer_dtype() const { return kept == Master::none ? dtype : DType::float32; }
};

// Of such a kind (csrc/cuda/table.h), in a group with momentum or without it.
Tensor any_tensor(int kind, int32_t group, bool momentum, Random& random);

Slot slot_of(Tensor& tensor, int64_t place);

void add_regions(const Tensor& tensor, size_t number, std::vector<Region>& to);

// What a step reads of its group, and of the device.
struct Update {
  const cuda::Row& row;
  double momentum, rate, scale, clip;

  void operator()(Tensor& tensor) const;
};

// Throws a Fault where they differ.
void check_equal(const Tensor& mine, const Tensor& expected, size_t number);

}  // namespace lrfused::ptx
