"""Which architectures the kernels are compiled for, and which GPUs then run them."""

import pytest
import torch
from support.inside import forget_verdicts

from lrfused.backends.cuda.architectures import chosen, covers, flags, uncovered

OLD = ["compute_70", "compute_75", "compute_80", "compute_86", "compute_90"]  # nvcc 12.1's, some
NEW = ["compute_75", "compute_80", "compute_86", "compute_89", "compute_90", "compute_100",
       "compute_103", "compute_110", "compute_120", "compute_121"]  # fmt: skip


@pytest.mark.parametrize(
    ("listed", "known", "archs"),
    [
        (None, NEW, ["8.0", "9.0", "10.0", "12.0+PTX"]),
        (" ", OLD, ["8.0", "9.0+PTX"]),
        ("8.6", NEW, ["8.6"]),
        ("7.0;7.5 8.6+PTX", OLD, ["7.0", "7.5", "8.6+PTX"]),
        ("9.0a,10.0a+PTX", NEW, ["9.0a", "10.0a+PTX"]),
        ("12.1 12.1", NEW, ["12.1"]),
        ("Ampere;Hopper", NEW, ["8.0", "8.6+PTX", "9.0+PTX"]),
        ("5.2 6.1 8.0 9.0+PTX", NEW, ["8.0", "9.0+PTX"]),
        ("Pascal Ampere", NEW, ["8.0", "8.6+PTX"]),
    ],
)
def test_the_list_is_followed_or_the_usual_ones_are_taken(listed, known, archs):
    assert chosen(listed, known) == archs


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        ("6.1", "is '6.1': the kernels need 7.0 or newer"),
        ("8.0 12.0", "'12.0', which this nvcc does not know"),
        ("native", "'native': an architecture must be a compute capability"),
        ("Kepler", "is 'Kepler': the kernels need 7.0 or newer"),
        ("sm_80", "'sm_80': an architecture must be"),
        ("10.0f", "'10.0f': an architecture must be"),
        ("9.0+ptx", "an architecture must be"),
    ],
)
def test_what_is_not_followed_is_refused(listed, words):
    with pytest.raises(ValueError, match="TORCH_CUDA_ARCH_LIST") as refusal:
        chosen(listed, OLD)
    assert words in str(refusal.value)


def test_a_compiler_that_knows_no_usual_one_is_refused():
    with pytest.raises(ValueError, match=r"nvcc compiles for none of 8\.0, 9\.0"):
        chosen(None, ["compute_70"])


def test_machine_code_and_ptx_are_asked_of_nvcc():
    assert flags(["8.0", "9.0a", "12.0+PTX"]) == [
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]


@pytest.mark.parametrize(
    ("archs", "runs", "does_not"),
    [
        (["8.0"], [(8, 0), (8, 6), (8, 9)], [(7, 5), (9, 0), (10, 0)]),
        (["8.6"], [(8, 6), (8, 9)], [(8, 0), (9, 0)]),
        (["8.0+PTX"], [(8, 0), (8, 6), (9, 0), (12, 1)], [(7, 5)]),
        (["9.0a"], [(9, 0)], [(8, 0), (9, 1), (10, 0)]),
        (["9.0a+PTX"], [(9, 0)], [(9, 1), (10, 0)]),
        (["8.0", "12.0+PTX"], [(8, 6), (12, 0), (12, 1), (13, 0)], [(7, 5), (9, 0), (10, 0)]),
        ([], [], [(8, 0)]),
    ],
)
def test_a_gpu_runs_its_majors_older_code_and_any_older_ptx(archs, runs, does_not):
    assert all(covers(archs, capability) for capability in runs)
    assert not any(covers(archs, capability) for capability in does_not)


def test_the_reason_names_the_device_its_capability_and_what_was_compiled():
    assert uncovered("8.0,9.0+PTX", "cuda:0, NVIDIA H100", (9, 0)) is None
    why = uncovered("8.0,9.0+PTX", "cuda:1, Tesla T4", (7, 5))
    assert why.startswith("cuda:1, Tesla T4, has compute capability 7.5, and the kernels were ")
    assert "compiled for 8.0 9.0+PTX" in why
    assert "TORCH_CUDA_ARCH_LIST='7.5'" in why


@pytest.fixture
def driver(monkeypatch):
    """Return the driver module, given these machines instead of CUDA's answer."""
    driver = pytest.importorskip("lrfused.backends.cuda.driver")

    def on(*machines):
        monkeypatch.setattr(driver, "EMULATED", False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(machines))
        monkeypatch.setattr(driver._C, "architectures", lambda: "8.0,9.0+PTX", raising=False)
        monkeypatch.setattr(driver._C, "describe", lambda i: machines[i], raising=False)
        return driver

    return on


H100, T4 = ("NVIDIA H100", 9, 0), ("Tesla T4", 7, 5)


def test_the_backend_is_ready_where_one_gpu_is_covered_and_refuses_the_other(driver):
    of_both = driver(T4, H100)
    assert of_both.unavailable() is None
    assert of_both.unavailable_on(torch.device("cuda", 1)) is None
    why = of_both.unavailable_on(torch.device("cuda", 0))
    assert why.startswith("cuda:0, Tesla T4, has compute capability 7.5")


def test_the_backend_is_not_ready_where_no_gpu_is_covered(driver):
    assert "cuda:0, Tesla T4, has compute capability 7.5" in driver(T4, T4).unavailable()


def test_a_gpu_that_is_not_covered_is_not_trusted_and_no_test_runs_there(driver, monkeypatch):
    driver(T4)
    from lrfused.backends import cuda, trust

    forget_verdicts(monkeypatch)
    monkeypatch.setattr(trust, "_run", lambda *_: pytest.fail("it was launched"))
    monkeypatch.setattr(driver(T4), "TYPE", "cuda")
    verdict = trust.verdict(cuda.backend, torch.device("cuda", 0))
    assert verdict.state == "not run"
    assert "compute capability 7.5" in str(verdict)
