"""Marks and helpers of the tests on a GPU; their fixtures are in conftest.py."""

import pytest
import torch
from cases import HYPER

from lrfused import FusedDecaySGD
from support.twin import leaf, numbers, sgd

MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
    pytest.mark.usefixtures("tensors_are_on_the_gpu"),
]


def pair(
    kernels, shapes=((1025,), (33,), (64, 3, 7, 7)), dtype=torch.float32, schedule=None, **kwargs
):
    hyper = HYPER["nesterov-decay"]
    mine = [leaf(numbers(*shape, dtype=dtype, seed=i)) for i, shape in enumerate(shapes)]
    other = [leaf(p) for p in mine]
    for params in (mine, other):
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, dtype=dtype, seed=i + 50)
    ours = FusedDecaySGD(mine, lr=0.1, schedule=schedule, backend=kernels, **hyper, **kwargs)
    return ours, sgd(other, lr=0.1, **hyper)


def capture(train):
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        train()
    return graph
