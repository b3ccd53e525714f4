"""One element of SGD: the for-loop path of torch.optim.SGD; the twin of csrc/sgd.h.

Where the C++ is compiled once for each combination of a group's flags, this selects: one launch
holds the tensors of all groups, and the step waits for memory, not for arithmetic.
"""

import triton
import triton.language as tl

from .numerics import rn

# Modes of a parameter's momentum buffer.
NONE = tl.constexpr(0)  # momentum is 0
FIRST = tl.constexpr(1)  # the first step: the buffer becomes the gradient, dampening ignored
NEXT = tl.constexpr(2)


@triton.jit
def sgd(
    p, grad, buffer, mode,
    grad_factor, clip, weight_decay, momentum, one_minus_dampening, minus_lr,
    unscale, clips, decay, nesterov,
    T: tl.constexpr,
):  # fmt: skip
    """Return the new parameter and momentum buffer, in opmath."""
    d = grad_factor * grad
    d = tl.where(unscale, rn(d, T), d)
    d = tl.where(clips, rn(clip * d, T), d)
    d = tl.where(decay, rn(tl.fma(weight_decay, p, d), T), d)
    m = tl.where(mode == NEXT, rn(tl.fma(one_minus_dampening, d, rn(momentum * buffer, T)), T), d)
    n = tl.where(nesterov, rn(tl.fma(momentum, m, d), T), m)
    d = tl.where(mode == NONE, d, n)
    return rn(tl.fma(minus_lr, d, p), T), m
