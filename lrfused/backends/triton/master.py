"""fp32 masters of 16-bit parameters, read and written; the twin of csrc/master.h.

    master's bits = (parameter's bits << 16) + remainder,  a signed 16-bit number

With `inside`, a mask, only those elements of a tile are touched; all of them where it is None.
"""

import triton
import triton.language as tl

from .numerics import pack, rn, widen

# Kept beside a parameter; csrc/slot.h.
OWN = tl.constexpr(0)  # nothing: it is its own master
WHOLE = tl.constexpr(1)  # its master
REMAINDER = tl.constexpr(2)  # the 16 bits of its master that a bfloat16 lacks


@triton.jit
def join(param, remainder):
    """Return the master of a bfloat16, given as its bits, and its remainder."""
    low = remainder.to(tl.int32).to(tl.uint32, bitcast=True)
    return ((param.to(tl.uint32) << 16) + low).to(tl.float32, bitcast=True)


@triton.jit
def split(master):
    """Return the bits of a master's bfloat16, and the remainder; the NaN is canonical."""
    bits = tl.where(master != master, 0x7FC00000, master.to(tl.uint32, bitcast=True))
    return ((bits + 0x8000) >> 16).to(tl.uint16), bits.to(tl.int16)


@triton.jit
def read(param, master, inside, T: tl.constexpr, KEPT: tl.constexpr):
    """Load the parameter, or its master if it has one, in opmath."""
    if KEPT == WHOLE:
        x = tl.load(master, inside)
    elif KEPT == REMAINDER:
        x = join(tl.load(param, inside), tl.load(master, inside))
    else:
        x = widen(tl.load(param, inside), T)
    return x


@triton.jit
def write(x, param, master, inside, T: tl.constexpr, KEPT: tl.constexpr):
    """Store the parameter, and its master if it has one; the parameter is the master rounded."""
    if KEPT == WHOLE:
        tl.store(master, x, inside)
        tl.store(param, pack(rn(x, T), T), inside)
    elif KEPT == REMAINDER:
        bits, remainder = split(x)
        tl.store(param, bits, inside)
        tl.store(master, remainder, inside)
    else:
        tl.store(param, pack(x, T), inside)
