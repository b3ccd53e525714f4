"""lrfused verify finds nothing where there is nothing, and one wrong bit where there is one."""

import re

import pytest
import torch

from lrfused import backends
from lrfused.arithmetic import bits
from lrfused.commands import verify
from lrfused.commands.main import main
from lrfused.commands.verify import cases, checks

pytestmark = pytest.mark.backends("host", reason="the command takes other backends in the same way")

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch):
    """Leave a few small cases of each kind."""
    monkeypatch.setattr(cases, "SIZES", (0, 1, 9))
    monkeypatch.setattr(cases, "HYPER", {k: cases.HYPER[k] for k in ("plain", "nesterov-decay")})
    kinds = ("CosineAnnealingLR", "ReduceLROnPlateau", "SequentialLR")
    kept = [r for r in cases.SCHEDULES if r[0].kind in kinds]
    monkeypatch.setattr(cases, "SCHEDULES", kept)


def test_equal_bits_pass(few, backend, capsys):
    assert main(["verify", "--quick", "--backend", backend, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "all equal, bit for bit" in out
    for word in ("float32", "float64", "bfloat16", "float16", "CosineAnnealingLR", backend):
        assert word in out


def flip(tensor, index):
    integers = tensor.detach().view(bits._INTEGERS[tensor.dtype.itemsize])
    integers[index] ^= 1


def test_one_wrong_bit_of_a_parameter_is_found(few, backend, capsys, monkeypatch):
    module = backends.choose(backend)
    right = module.step

    def wrong(groups, *rest):
        right(groups, *rest)
        for p in groups[0]["params"]:
            if p.dtype == torch.float64 and p.numel() == 9 and groups[0]["nesterov"]:
                flip(p, 4)

    monkeypatch.setattr(module, "step", wrong)
    assert main(["verify", "--quick", "--backend", backend]) == 1
    out = capsys.readouterr().out
    place = f"cpu, {backend}, float64, nesterov-decay, 9 elements, step 1: parameter[4] is "
    assert f"first to differ: {place}" in out
    assert re.search(r"parameter\[4\] is \S+ \(0x\w{16}\), should be \S+ \(0x\w{16}\)", out)
    assert out.count("first to differ") == 1
    assert "differ\n" in out


def test_one_wrong_bit_of_a_rate_is_found(few, capsys, monkeypatch):
    module = backends.choose("reference")
    right = module.Program.advance

    def wrong(self, groups=None):
        right(self, groups)
        if self.moved.epochs[0] == 17 and len(self._plateaus) == 0:
            flip(self.moved.cells, 2)
            self.show(groups)

    monkeypatch.setattr(module.Program, "advance", wrong)
    assert main(["verify", "--quick", "--backend", "reference"]) == 1
    assert ", step 17, group 1: lr is " in capsys.readouterr().out


def test_a_case_that_raises_is_a_difference(few, capsys, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such thing\nas a step")

    monkeypatch.setattr(backends.choose("reference"), "step", broken)
    assert main(["verify", "--quick", "--backend", "reference"]) == 1
    assert "plain, RuntimeError: no such thing\n" in capsys.readouterr().out


def test_every_update_case_once(backend):
    for dtype in cases.DTYPES:
        tensors = checks.Tensors.draw(dtype, CPU, steps=2)
        for hyper in cases.HYPER.values():
            found = checks.update(tensors, range(len(tensors.params)), backend, hyper)
            assert not found.differing, found.first
            assert found.values > sum(cases.SIZES)


@pytest.mark.parametrize("rules", cases.SCHEDULES, ids=cases.title)
def test_every_schedule_once(rules, backend):
    found = checks.Schedule(rules, CPU, steps=120).compare(backend)
    assert not found.differing, found.first


def test_every_schedule_of_the_library_is_verified():
    import lrfused

    def kinds(rule):
        yield rule.kind
        for member in rule.arguments.get("schedulers", []):
            yield from kinds(member)

    verified = {kind for rules in cases.SCHEDULES for rule in rules for kind in kinds(rule)}
    others = {"FusedDecaySGD", "Schedule", "check_ranks", "fuse", "update_in_backward"}
    assert verified == set(lrfused.__all__) - others


def test_the_misaligned_view_is_misaligned():
    tensors = checks.Tensors.draw(torch.float32, CPU, steps=1)
    for tensor in (tensors.params[-2], tensors.grads[0][-2]):
        assert tensor.data_ptr() % 16 != 0


@pytest.mark.parametrize(
    ("got", "want", "count"),
    [(0.0, -0.0, 1), (float("nan"), float("nan"), 0), (1.0, 1.0, 0), (1.0, 2.0, 1)],
)
def test_differences_are_of_bits(got, want, count):
    assert bits.difference(torch.tensor([1.0, got]), torch.tensor([1.0, want]))[0] == count
    assert bits.same_rate(got, want) == (count == 0)


@pytest.mark.parametrize("device", ["mps", "nothing", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(device, capsys):
    assert main(["verify", "--device", device]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lrfused verify: --device must be one that is there (cpu")
    assert err.endswith(f"got {device}\n")
    assert err.count("\n") == 1


def test_a_backend_that_is_not_there_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(backends, "available", lambda: dict.fromkeys(backends.names(), "not built"))
    assert main(["verify", "--backend", "reference"]) == 2
    assert capsys.readouterr().err == (
        "lrfused verify: --backend reference cannot be used here: not built\n"
    )


def test_the_threads_are_put_back(few, threads):
    threads(2)
    assert verify.run(quick=True, backend="reference") == 0
    assert torch.get_num_threads() == 2
