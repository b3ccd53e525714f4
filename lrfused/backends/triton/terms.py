"""The terms of a step, decided on the device so that no host waits for them.

terms  fp64 [3]   a factor that unscales all gradients; one that clips them after that; not 0 in a
                  step without an update
"""

import triton
import triton.language as tl


@triton.jit
def unscale(grad_scale, found_inf, terms):
    """Store the terms that follow from GradScaler's numbers, each of which may be None."""
    inv_scale = tl.full((), 1.0, tl.float64)
    if grad_scale is not None:  # as GradScaler.unscale_ does
        inv_scale = (inv_scale / tl.load(grad_scale).to(tl.float64)).to(tl.float32).to(tl.float64)
    skipped = tl.full((), 0.0, tl.float64)
    if found_inf is not None:
        skipped = tl.where(tl.load(found_inf) == 0, skipped, 1.0)  # a NaN is not 0
    tl.store(terms, inv_scale)
    tl.store(terms + 1, 1.0)
    tl.store(terms + 2, skipped)
