"""rn, fma: every rounding the step makes; the twin of csrc/numerics.h.

A tensor's elements are stored as T and computed in opmath: fp64 for fp64, else fp32. `rn(x, T)` is
x rounded once to T's precision, still held in opmath. Kernels are compiled with
enable_fp_fusion=False, so a product and a sum are fused only where `fma` says so.
"""

import triton
import triton.language as tl


@triton.jit
def stored(address, T: tl.constexpr):
    """Give addresses as pointers to T; bfloat16 is plain bits, as the rounding is spelt out."""
    if T == tl.bfloat16:
        pointer = address.to(tl.pointer_type(tl.uint16))
    else:
        pointer = address.to(tl.pointer_type(T))
    return pointer


@triton.jit
def opmath(x, T: tl.constexpr):
    """Round a double once to what T is computed in."""
    if T == tl.float64:
        y = x
    else:
        y = x.to(tl.float32)
    return y


@triton.jit
def widen(x, T: tl.constexpr):
    """Give what is stored as T in opmath."""
    if T == tl.bfloat16:
        y = (x.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif T == tl.float16:
        y = x.to(tl.float32)
    else:
        y = x
    return y


@triton.jit
def narrow(x, T: tl.constexpr):
    """Round to nearest, ties to even; a NaN becomes the canonical quiet one."""
    if T == tl.bfloat16:  # in integers: Triton's interpreter rounds ties away from zero
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        y = tl.where(x != x, 0x7FC0, rounded).to(tl.uint16)
    elif T == tl.float16:
        y = x.to(tl.float16)
    else:
        y = x
    return y


@triton.jit
def rn(x, T: tl.constexpr):
    """Round an opmath number to T's precision."""
    return widen(narrow(x, T), T)


@triton.jit
def fma(a, b, c):
    """Give a * b + c, rounded once."""
    return tl.math.fma(a, b, c)
