// The data of a step: a slot for each parameter to update, and the groups' hyper-parameters.
#pragma once

#include <cstdint>

#include "sgd.h"

namespace lrfused {

enum class DType : uint8_t { float32, float64, bfloat16, float16 };

// A group's hyper-parameters in both opmaths, so that groups may mix dtypes.
struct Hypers {
  Hyper<float> fp32;
  Hyper<double> fp64;
  template <class M>
  const Hyper<M>& get() const;
};
template <>
LRFUSED_HD const Hyper<float>& Hypers::get<float>() const {
  return fp32;
}
template <>
LRFUSED_HD const Hyper<double>& Hypers::get<double>() const {
  return fp64;
}

struct Group {
  Hypers hypers;
  bool scale, decay, momentum, nesterov;
};

// The form in which a 16-bit parameter's fp32 master is kept. With a master the update is made in
// fp32, on the master.
enum class MasterForm : uint8_t {
  none,       // there is no master
  whole,      // as fp32
  remainder,  // as the 16 bits that a bfloat16 lacks: master.h
};

// A parameter to update: addresses of streams of numel elements in one memory order.
struct Slot {
  void* param;
  const void* grad;
  void* buffer;
  void* master;
  int64_t numel;
  int64_t place;  // among all parameters, with a gradient or without
  int32_t group;
  DType dtype, grad_dtype;  // differ only beside a master
  MomentumMode mode;
  MasterForm master_form;
  int8_t device = 0;  // index
};

LRFUSED_HD constexpr int64_t itemsize(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}

}  // namespace lrfused
