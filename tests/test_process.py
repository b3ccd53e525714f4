"""The whole process: threads, OpenMP runtimes, instruction sets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import DTYPES, HYPER, SIZES, with_lr
from support.bits import assert_same_bits
from support.twin import leaf, momentum, numbers

from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends("host", reason="threads and instruction sets are the host's")

TESTS = Path(__file__).parent

OPENMP = """
import re, torch
from lrfused import FusedDecaySGD
torch.set_num_threads(2)
params = [torch.randn(n, requires_grad=True) for n in (300_000, 5)]
optimizer = FusedDecaySGD(params, lr=0.1, momentum=0.9, backend="{backend}")
for _ in range(2):
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer.step()
maps = open("/proc/self/maps").read()
print(*sorted(set(re.findall(r"\\S*lib(?:gomp|iomp|omp)\\S*", maps))), sep="\\n")
"""

AS_CPU = """
import sys, pytest, torch
assert torch.backends.cpu.get_cpu_capability() == "{capability}"
sys.exit(pytest.main(sys.argv[1:]))
"""


def trained(backend, dtype, hyper):
    params = [leaf(numbers(n, dtype=dtype, seed=n)) for n in [*SIZES, 300_003]]
    optimizer = FusedDecaySGD(params, backend=backend, **with_lr(HYPER[hyper]))
    for step in range(3):
        for i, p in enumerate(params):
            p.grad = numbers(*p.shape, dtype=dtype, seed=step + 10 * i)
        optimizer.step()
    return [*params, *(m for p in params if (m := momentum(optimizer, p)) is not None)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", ["nesterov-decay", "maximize-all"])
def test_the_thread_number_does_not_matter(backend, threads, hyper, dtype):
    threads(1)
    want = trained(backend, dtype, hyper)
    for number in (2, 3):
        threads(number)
        for i, (got, expected) in enumerate(zip(trained(backend, dtype, hyper), want, strict=True)):
            assert_same_bits(got, expected, f"tensor {i} with {number} threads")


@pytest.mark.parametrize("number", [1, 2])
def test_the_thread_number_is_left_alone(backend, threads, number):
    threads(number)
    trained(backend, torch.float32, "plain")
    assert torch.get_num_threads() == number


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps here")
def test_there_is_one_openmp_runtime(backend):
    done = subprocess.run(
        [sys.executable, "-c", OPENMP.format(backend=backend)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.split()) == 1, done.stdout


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_bits_equal_torchs_on_other_instruction_sets(capability):
    if capability == "avx2" and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    picked = "(every_size or special_values) and (-nesterov-decay or maximize-all) or extreme_rates"
    picked = f"not triton and not cuda and ({picked})"  # whose arithmetic no instruction set is
    done = subprocess.run(
        [sys.executable, "-c", AS_CPU.format(capability=capability.upper())]
        + ["-p", "no:cacheprovider", "-k", picked, "test_update.py"],
        cwd=TESTS,
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
