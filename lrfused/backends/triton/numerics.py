"""rn: every rounding the step makes; the twin of csrc/numerics.h.

A tensor's elements are stored as T and computed in opmath: fp64 for fp64, else fp32. `rn(x, T)` is
x rounded once to T's precision, still held in opmath. Kernels are compiled with
enable_fp_fusion=False, so a product and a sum are fused only by `tl.fma`.
"""

import triton
import triton.language as tl


@triton.jit
def widen(x, T: tl.constexpr):
    """Return a stored T in opmath; a bfloat16 is stored as its bits, a uint16."""
    if T == tl.bfloat16:
        y = (x.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif T == tl.float16:
        y = x.to(tl.float32)
    else:
        y = x
    return y


@triton.jit
def rn(x, T: tl.constexpr):
    """Round to nearest, ties to even; a bfloat16's NaN becomes the canonical quiet one."""
    if T == tl.bfloat16:  # in integers: Triton's interpreter rounds in ways of its own
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        y = tl.where(x != x, 0x7FC00000, rounded).to(tl.float32, bitcast=True)
    elif T == tl.float16:
        y = x.to(tl.float16).to(tl.float32)
    else:
        y = x
    return y


@triton.jit
def pack(x, T: tl.constexpr):
    """Return an x of T's precision as T is stored."""
    if T == tl.bfloat16:
        y = (x.to(tl.uint32, bitcast=True) >> 16).to(tl.uint16)
    elif T == tl.float16:
        y = x.to(tl.float16)
    else:
        y = x
    return y
