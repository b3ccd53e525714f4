"""A FusedDecaySGD with masters, beside torch's for-loop over fp32 copies."""

import pytest
import torch
from cases import with_lr

from lrfused import FusedDecaySGD
from lrfused.arithmetic.masters import join, split
from support.bits import assert_same_bits
from support.twin import allow_gradient, leaf, momentum, numbers, sgd

KINDS = [(torch.bfloat16, True), (torch.float16, True), (torch.bfloat16, "remainder")]
of_each_kind = pytest.mark.parametrize(("dtype", "kind"), KINDS, ids=str)


def master(optimizer, p):
    """Return a parameter's fp32 master, as it was kept."""
    own = optimizer.state[p]
    return join(p.detach(), own["master_remainder"]) if "master_remainder" in own else own["master"]


def rounded(wide, dtype, kind):
    return split(wide)[0] if kind == "remainder" else wide.to(dtype)


class Masters:
    """A FusedDecaySGD with masters, beside torch's for-loop over fp32 copies."""

    def __init__(self, values, kind, backend, hyper, **kwargs):
        self.kind = kind
        self.mine = [leaf(value) for value in values]
        self.other = [leaf(value.float()) for value in values]
        self.ours = FusedDecaySGD(
            self.mine, master_weights=kind, backend=backend, **with_lr(hyper), **kwargs
        )
        self.theirs = sgd(self.other, **with_lr(hyper))

    def step(self, step, missing=(), wide=False):
        for i, (p, q) in enumerate(zip(self.mine, self.other, strict=True)):
            p.grad = q.grad = None
            if i in missing:
                continue
            dtype = allow_gradient(p, torch.float32 if wide else p.dtype)
            p.grad = numbers(*p.shape, dtype=dtype, seed=100 * step + i + 1)
            q.grad = p.grad.float()
        self.ours.step()
        self.theirs.step()
        self.check(f"step {step}")

    def check(self, when=""):
        for i, (p, q) in enumerate(zip(self.mine, self.other, strict=True)):
            assert_same_bits(p, rounded(q.detach(), p.dtype, self.kind), f"{when}, parameter {i}")
            if p not in self.ours.state:
                continue
            assert_same_bits(master(self.ours, p), q, f"{when}, master {i}")
            want, got = momentum(self.theirs, q), momentum(self.ours, p)
            assert (got is None) == (want is None)
            if want is not None:
                assert_same_bits(got, want, f"{when}, momentum {i}")


def values_of(sizes, dtype):
    return [numbers(n, dtype=dtype, seed=n) for n in sizes]
