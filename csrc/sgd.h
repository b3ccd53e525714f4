// One element of SGD: the for-loop path of torch.optim.SGD, rounding for rounding.
#pragma once

#include "numerics.h"

namespace lrfused {

// What the step does with a parameter's momentum buffer.
enum class Buffer : uint8_t {
  none,   // momentum is 0
  first,  // the parameter's first step: the buffer becomes the gradient, dampening ignored
  next,
};

// Hyper-parameters of one group, each a Python double rounded once to opmath M.
template <class M>
struct Hyper {
  M grad_scale;  // -1 to maximize, times what GradScaler unscales by
  M weight_decay;
  M momentum;
  M undamped;  // 1 - dampening
  M minus_lr;
};

template <class T, bool Scale, bool Decay, Buffer B, bool Nesterov, bool Fused>
LRFUSED_HD void sgd(T& param, T grad, T& buffer, const Hyper<opmath_t<T>>& h) {
  using M = opmath_t<T>;
  const M p = widen(param);
  M d = widen(grad);
  if (Scale) d = rn<T>(h.grad_scale * d);
  if (Decay) d = rn<T>(fma<Fused>(h.weight_decay, p, d));
  if (B != Buffer::none) {
    M m = d;
    if (B == Buffer::next) m = rn<T>(fma<Fused>(h.undamped, d, rn<T>(h.momentum * widen(buffer))));
    buffer = pack<T>(m);
    d = Nesterov ? rn<T>(fma<Fused>(h.momentum, m, d)) : m;
  }
  param = narrow<T>(fma<Fused>(h.minus_lr, d, p));
}

}  // namespace lrfused
