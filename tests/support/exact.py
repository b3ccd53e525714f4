"""One element of the update in exact arithmetic: integers, rounded where the formula rounds."""

import math
from typing import Any

import torch

# Precision in bits, and the smallest and the largest exponent of a normal number.
FORMATS = {
    torch.float64: (53, -1022, 1023),
    torch.float32: (24, -126, 127),
    torch.bfloat16: (8, -126, 127),
    torch.float16: (11, -14, 15),
}


def opmath(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which operations on a dtype are computed."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def dyadic(x: float) -> tuple[int, int]:
    """Return m and e with m * 2**e = x."""
    numerator, denominator = x.as_integer_ratio()
    return numerator, 1 - denominator.bit_length()


def nearest(m: int, e: int, dtype: torch.dtype) -> float:
    """Round m * 2**e to the nearest number of a format, ties to even; m is not 0."""
    precision, low, high = FORMATS[dtype]
    size = abs(m)
    last = max(size.bit_length() + e - 1, low) - precision + 1  # exponent of the last place
    drop = last - e
    if drop > 0:
        half = 1 << (drop - 1)
        rest = size & ((1 << drop) - 1)
        size >>= drop
        size += rest > half or (rest == half and size % 2)
        e = last
    value = math.inf if size.bit_length() + e - 1 > high else math.ldexp(size, e)
    return value if m > 0 else -value


def rounded(x: float, dtype: torch.dtype) -> float:
    """Round a double to the nearest number of a format, ties to even."""
    return nearest(*dyadic(x), dtype) if math.isfinite(x) and x != 0 else x


def rn_fma(a: float, b: float, c: float, dtype: torch.dtype) -> float:
    """Return a * b + c rounded once to opmath and then to storage; a is a scalar in opmath."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    if not math.isfinite(c):
        return c
    (ma, ea), (mb, eb), (mc, ec) = dyadic(a), dyadic(b), dyadic(c)
    low = min(ea + eb, ec)
    exact = (ma * mb << (ea + eb - low)) + (mc << (ec - low))
    if exact == 0:
        return a * b + c  # the sign of an exact zero is IEEE's own
    return rounded(nearest(exact, low, opmath(dtype)), dtype)


def element(
    p: float,
    g: float,
    m: float,
    dtype: torch.dtype,
    *,
    first: bool,
    lr: float,
    momentum: float = 0,
    dampening: float = 0,
    weight_decay: float = 0,
    **flags: Any,
) -> tuple[float, float]:
    """Update one element; give the new p and m."""
    wide = opmath(dtype)
    mu, decay, rate, share = (
        rounded(float(x), wide) for x in (momentum, weight_decay, -lr, 1 - dampening)
    )
    if flags.get("maximize"):
        g = -g
    d = rn_fma(decay, p, g, dtype) if weight_decay != 0 else g
    if momentum != 0:
        m = d if first else rn_fma(share, d, rn_fma(mu, m, -0.0, dtype), dtype)
        d = rn_fma(mu, m, d, dtype) if flags.get("nesterov") else m
    return rn_fma(rate, d, p, dtype), m
