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
  M grad_factor;  // -1 to maximize, times GradScaler's inverse scale
  M weight_decay;
  M momentum;
  M one_minus_dampening;
  M minus_lr;
  M clip = 1;  // the clipping coefficient
};

// Compile-time flags of an update; run-time callers pass a struct with the same members.
template <bool Scale, bool Decay, MomentumMode Mode, bool Nesterov>
struct UpdateFlags {
  static constexpr bool scale = Scale, decay = Decay, nesterov = Nesterov;
  static constexpr MomentumMode mode = Mode;
};

template <class T, bool UseFma, bool Clip = false, class Flags>
LRFUSED_HD void sgd(T& param, T grad, T& buffer, const Hyper<opmath_t<T>>& h, const Flags& flags) {
  using M = opmath_t<T>;
  const M p = widen(param);
  M d = widen(grad);
  if (flags.scale) d = rn<T>(h.grad_factor * d);
  if (Clip) d = rn<T>(h.clip * d);
  if (flags.decay) d = rn<T>(fma<UseFma>(h.weight_decay, p, d));
  if (flags.mode != MomentumMode::none) {
    M m = d;
    if (flags.mode == MomentumMode::next)
      m = rn<T>(fma<UseFma>(h.one_minus_dampening, d, rn<T>(h.momentum * widen(buffer))));
    buffer = pack<T>(m);
    d = flags.nesterov ? rn<T>(fma<UseFma>(h.momentum, m, d)) : m;
  }
  param = narrow<T>(fma<UseFma>(h.minus_lr, d, p));
}

template <class T, bool Scale, bool Decay, MomentumMode Mode, bool Nesterov, bool UseFma,
          bool Clip = false>
LRFUSED_HD void sgd(T& param, T grad, T& buffer, const Hyper<opmath_t<T>>& h) {
  sgd<T, UseFma, Clip>(param, grad, buffer, h, UpdateFlags<Scale, Decay, Mode, Nesterov>{});
}

}  // namespace lrfused
