// One element of SGD: the for-loop path of torch.optim.SGD, rounding for rounding.
#pragma once

#include "numerics.h"

namespace lrfused {

// How the step uses a parameter's momentum buffer.
enum class MomentumMode : uint8_t {
  none,   // not at all: momentum is 0
  first,  // in the parameter's first step the buffer becomes the gradient, dampening ignored
  next,   // in later steps the buffer is decayed, and the gradient added
};

// Hyper-parameters of one group, each a Python double rounded once to opmath M.
template <class M>
struct Hyper {
  M grad_scale;  // -1 to maximize, times GradScaler's inverse scale
  M weight_decay;
  M momentum;
  M undamped;  // 1 - dampening
  M minus_lr;
  M clip = 1;  // the clipping coefficient
};

// Compile-time flags of an update; run-time callers pass a struct with the same members.
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov>
struct Parts {
  static constexpr bool scale = Scale, decay = Decay, nesterov = Nesterov;
  static constexpr MomentumMode mode = Mode;
};

template <class T, bool Fused, bool Clip = false, class P>
LRFUSED_HD void sgd(T& param, T grad, T& buffer, const Hyper<opmath_t<T>>& h, const P& parts) {
  using M = opmath_t<T>;
  const M p = widen(param);
  M d = widen(grad);
  if (parts.scale) d = rn<T>(h.grad_scale * d);
  if (Clip) d = rn<T>(h.clip * d);
  if (parts.decay) d = rn<T>(fma<Fused>(h.weight_decay, p, d));
  if (parts.mode != MomentumMode::none) {
    M m = d;
    if (parts.mode == MomentumMode::next)
      m = rn<T>(fma<Fused>(h.undamped, d, rn<T>(h.momentum * widen(buffer))));
    buffer = pack<T>(m);
    d = parts.nesterov ? rn<T>(fma<Fused>(h.momentum, m, d)) : m;
  }
  param = narrow<T>(fma<Fused>(h.minus_lr, d, p));
}

template <class T, bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool Fused,
          bool Clip = false>
LRFUSED_HD void sgd(T& param, T grad, T& buffer, const Hyper<opmath_t<T>>& h) {
  sgd<T, Fused, Clip>(param, grad, buffer, h, Parts<Scale, Decay, Mode, Nesterov>{});
}

}  // namespace lrfused
