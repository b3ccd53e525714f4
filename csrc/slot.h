// What one step is made of: the slots found in the optimizer's groups, and the groups' numbers.
#pragma once

#include <cstdint>

#include "sgd.h"

namespace lrfused {

enum class DType : uint8_t { float32, float64, bfloat16, float16 };

// A group's hyper-parameters in both opmaths, so that groups may mix dtypes.
struct Hypers {
  Hyper<float> single;
  Hyper<double> twice;
  template <class M>
  const Hyper<M>& get() const;
};
template <>
LRFUSED_HD const Hyper<float>& Hypers::get<float>() const {
  return single;
}
template <>
LRFUSED_HD const Hyper<double>& Hypers::get<double>() const {
  return twice;
}

struct Group {
  Hypers hypers;
  bool scale, decay, momentum, nesterov;
};

// What is kept of a 16-bit parameter's fp32 master. With one, the update is fp32's, on the master.
enum class Master : uint8_t {
  none,
  whole,      // the master
  remainder,  // what a bfloat16 lacks of it: master.h
};

// A parameter to update: streams of numel elements in the same memory order.
struct Slot {
  void* param;
  const void* grad;
  void* buffer;
  void* master;
  int64_t numel;
  int64_t place;  // among all parameters, with a gradient or without
  int32_t group;
  DType dtype, grad_dtype;  // they may differ where there is a master
  MomentumMode mode;
  Master kept;
  int8_t device = 0;  // index
};

LRFUSED_HD constexpr int64_t itemsize(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

}  // namespace lrfused
