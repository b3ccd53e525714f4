"""Run measurements in processes of their own: threads and memory peaks belong to a process."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def process(threads: int) -> Iterator[Callable[..., Any]]:
    """Start a process for so many threads; yield a function that calls another one there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_settle, initargs=(threads,)) as pool:

        def call(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
            return pool.submit(function, *args, **kwargs).result()

        yield call


def _settle(threads: int) -> None:
    """Set the number of threads of torch, and of JAX once it is imported."""
    torch.set_num_threads(threads)
    os.environ["PJRT_NPROC"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
