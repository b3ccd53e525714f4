// What one step is made of: the slots found in the optimizer's groups, and the groups' numbers.
#pragma once

#include <cstdint>
#include <functional>

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
inline const Hyper<float>& Hypers::get<float>() const {
  return single;
}
template <>
inline const Hyper<double>& Hypers::get<double>() const {
  return twice;
}

struct Group {
  Hypers hypers;
  bool scale, decay, momentum, nesterov;
};

// A parameter to update: three streams of numel elements in the same memory order.
struct Slot {
  void* param;
  const void* grad;
  void* buffer;
  int64_t numel;
  int32_t group;
  DType dtype;
  Buffer mode;
  int8_t device = 0;  // index
};

// Update every slot on the CPU, in one parallel region. `fused` as torch's own CPU kernels are;
// `written` is called once for each slot, by some thread.
void update_cpu(const Slot* slots, int64_t count, const Group* groups, bool fused,
                const std::function<void(int64_t)>& written);

}  // namespace lrfused
