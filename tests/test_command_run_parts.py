"""The parts of `lrfused run`: which steps are checked, against what, and what a table shows."""

import gc
import sys
import threading

import pytest
import torch
from support.bits import assert_same_bits
from support.twin import assert_same_state

from lrfused.commands.run import tracebacks
from lrfused.commands.run.followed import Followed, Registry
from lrfused.commands.run.fused import FusedSteps
from lrfused.commands.run.oracle import Expected
from lrfused.commands.run.records import Record, label, take
from lrfused.commands.run.report import report
from lrfused.commands.run.settings import Settings
from lrfused.commands.run.tally import Tally, by_row
from lrfused.reference import ReferenceDecaySGD

pytestmark = pytest.mark.backends("host", reason="the command leaves the backend to the optimizer")

ALL = Settings(main=0, records="", check=1000)
torchs_step = torch.optim.SGD.step


def test_n_steps_are_checked_and_half_as_many_in_each_doubling():
    settings = Settings(main=0, records="", check=8)
    checked = [step for step in range(1, 4097) if settings.is_checked(step)]
    assert checked[:13] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20]
    for n in (8, 16, 512, 2048):
        assert sum(n < step <= 2 * n for step in checked) == 4
    assert not Settings(main=0, records="").is_checked(1)


def parameters(dtype, sizes=(1, 9, 33)):
    made = torch.Generator().manual_seed(0)
    return [torch.randn(n, generator=made).to(dtype).requires_grad_() for n in sizes]


def draw(params, step):
    made = torch.Generator().manual_seed(step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=made).to(p.dtype)


HYPER = [
    {},
    {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True, "maximize": True},
]


@pytest.mark.parametrize("hyper", HYPER, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_step_is_torchs_and_is_checked(dtype, hyper):
    plain = dtype != torch.bfloat16  # torch's result depends on an element's place there
    ours, theirs = (
        kind(parameters(dtype), lr=torch.tensor(0.1), **hyper)
        for kind in (torch.optim.SGD, torch.optim.SGD if plain else ReferenceDecaySGD)
    )
    followed = Followed("SGD", None)
    rate = ours.param_groups[0]["lr"]
    for step in range(1, 6):
        if step == 3:
            for optimizer in (ours, theirs):
                optimizer.add_param_group({"params": parameters(dtype, (5,)), "lr": 0.3})
                optimizer.load_state_dict(optimizer.state_dict())
        for optimizer in (ours, theirs):
            draw([p for g in optimizer.param_groups for p in g["params"]], step)
        ours.param_groups[0]["lr"].mul_(0.9)
        theirs.param_groups[0]["lr"] = ours.param_groups[0]["lr"].clone()
        followed.step(ours, torchs_step, ALL)
        theirs.step()
    tally = followed.tally
    assert (tally.steps, tally.checked, tally.differing, tally.first) == (5, 5, 0, "")
    assert tally.other is None
    assert ours.param_groups[0]["lr"].equal(theirs.param_groups[0]["lr"])
    assert type(rate) is type(ours.param_groups[0]["lr"])
    assert_same_state(ours, theirs)
    assert not plain or repr(ours.state_dict()) == repr(theirs.state_dict())


def test_torch_takes_over_where_a_step_is_refused():
    params = [torch.ones(4, requires_grad=True) for _ in range(2)]
    ours, theirs = optimizers = [torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in params]
    followed = Followed("SGD", None)
    for step in range(1, 5):
        for p, optimizer in zip(params, optimizers, strict=True):
            p.grad = torch.full((4,), 0.3)
            if step == 3:
                own = optimizer.state[p]
                own["momentum_buffer"] = own["momentum_buffer"].double()
        followed.step(ours, torchs_step, ALL)
        theirs.step()
    assert params[0].equal(params[1])
    tally = followed.tally
    assert (tally.steps, tally.checked, tally.differing) == (4, 2, 0)
    assert tally.other.startswith("torch: a parameter of shape (4,) in group 0 has a momentum_")


def test_differentiable_is_torchs():
    followed = Followed("SGD", None)
    p = torch.ones(2)
    p.grad = torch.ones(2)
    followed.step(torch.optim.SGD([p], lr=0.5, differentiable=True), torchs_step, ALL)
    assert p.tolist() == [0.5, 0.5]
    assert (followed.tally.other, followed.tally.checked) == ("torch: differentiable=True", 0)


@pytest.mark.parametrize("check", [0, 1000])
def test_an_error_of_torchs_is_torchs(check):
    def step(make):
        p = torch.ones(4, 2, requires_grad=True)
        p.grad = coo(torch.ones(3, 2))
        optimizer = torch.optim.SGD([p], lr=0.1, weight_decay=0.1)
        with pytest.raises(RuntimeError) as raised:
            make(optimizer)
        assert p.equal(torch.ones(4, 2))
        return str(raised.value)

    followed, settings = Followed("SGD", None), Settings(main=0, records="", check=check)
    ours = step(lambda optimizer: followed.step(optimizer, torchs_step, settings))
    assert ours == step(torchs_step)
    assert followed.tally.other.startswith("torch: ")
    assert (followed.tally.steps, followed.tally.checked) == (1, 0)


def test_an_error_after_something_was_written_is_raised(monkeypatch):
    p = torch.ones(2, requires_grad=True)
    p.grad = torch.ones(2)
    optimizer, followed = torch.optim.SGD([p], lr=0.5), Followed("SGD", None)
    followed.step(optimizer, torchs_step, ALL)

    def fails(*_):
        raise RuntimeError("a device's")

    monkeypatch.setattr(type(followed._fused._fused._internals.backend), "step", fails)
    with pytest.raises(RuntimeError, match="a device's"):
        followed.step(optimizer, torchs_step, ALL)
    assert p.tolist() == [0.5, 0.5]


def normalize(self, group, *lists):
    for p in group["params"]:
        p.grad.div_(p.grad.norm())
    return torch.optim.SGD._init_group(self, group, *lists)


def test_a_compilation_before_it_hides_no_optimizer(after_a_compilation):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    FusedSteps(torch.optim.SGD([p], lr=0.5))


@pytest.fixture
def after_a_compilation():
    """Let torch wrap its optimizers' methods, as its first compilation does."""
    from torch._dynamo.eval_frame import TorchPatcher

    TorchPatcher.patch()


def test_an_init_group_of_its_own_is_torchs():
    class Normalized(torch.optim.SGD):
        _init_group = normalize

    p, q = (torch.ones(4, requires_grad=True) for _ in range(2))
    ours, plain = Normalized([p], lr=0.5), torch.optim.SGD([q], lr=0.5)
    followed, later = Followed("Normalized", None), Followed("SGD", None)
    for _ in range(2):
        p.grad = torch.ones(4)
        followed.step(ours, torchs_step, ALL)
    assert p.tolist() == [0.5] * 4
    for step in range(2):
        q.grad = torch.ones(4)
        if step == 1:  # replaced after a step that lrfused made
            plain._init_group = normalize.__get__(plain)
        later.step(plain, torchs_step, ALL)
    assert q.tolist() == [0.25] * 4
    for tally, checked in ((followed.tally, 0), (later.tally, 1)):
        assert (tally.steps, tally.checked, tally.differing) == (2, checked, 0)
        assert tally.other == "torch: an _init_group of its own"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.complex64], ids=str)
def test_one_wrong_bit_is_found_and_named(dtype):
    p = torch.ones(2, 2, dtype=dtype)
    optimizer = torch.optim.SGD([("weight", p)], lr=0.5, momentum=0.9)
    p.grad = torch.ones_like(p)
    expected = Expected(optimizer)
    optimizer.step()
    assert expected.compare(optimizer) == (0, "")
    place = "parameter 0 of group 0, shape (2, 2), weight: momentum buffer"
    buffer = optimizer.state[p].pop("momentum_buffer")
    assert expected.compare(optimizer) == (1, f"{place}, should be one")
    optimizer.state[p]["momentum_buffer"] = buffer.neg()
    count, first = expected.compare(optimizer)
    assert count == (8 if dtype.is_complex else 4)  # the sign of a zero, too
    assert first.startswith(f"{place}[0] is -1.0 (0x")


def coo(values, indices=(0, 2, 2)):
    rows = torch.tensor([indices])
    return torch.sparse_coo_tensor(rows, values, (4, 2), check_invariants=False)


def csr(values):
    return coo(values).to_dense().to_sparse_csr()


SPARSE = {
    f"{name}-{dtype}": (of, make, dtype)
    for name, of, make in (
        ("gradient", torch.Tensor.to_dense, coo),
        ("coo", torch.Tensor.coalesce, coo),
        ("csr", torch.Tensor.clone, csr),
    )
    for dtype in (torch.float32, torch.bfloat16, torch.complex64)
    if (name, dtype) != ("csr", torch.bfloat16)  # torch does not add these
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("of", "make", "dtype"), SPARSE.values(), ids=SPARSE)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_tensors_are_checked(of, make, momentum, dtype):
    def draw(seed):
        made = torch.Generator().manual_seed(seed)
        return make(torch.randn(3, 2, generator=made).to(dtype))

    p, q = params = [of(draw(9)).requires_grad_() for _ in range(2)]
    optimizers = [torch.optim.SGD([x], lr=0.1, momentum=momentum, foreach=False) for x in params]
    followed = Followed("SGD", None)
    for step in range(3):
        for x in params:
            x.grad = draw(step)
        followed.step(optimizers[0], torchs_step, ALL)
        optimizers[1].step()
        assert_same_state(*optimizers)
    tally = followed.tally
    assert (tally.other, tally.checked, tally.differing, tally.first) == (None, 3, 0, "")
    assert_same_bits(p, q)
    expected = Expected(optimizers[0])
    count, first = expected.compare(optimizers[0])
    assert count > 0
    assert ": is " not in first


def test_a_wrong_sparse_buffer_is_found():
    p = torch.ones(4, 2, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.5, momentum=0.9)
    p.grad = coo(torch.ones(3, 2))
    expected = Expected(optimizer)
    optimizer.step()
    assert expected.compare(optimizer) == (0, "")
    own = optimizer.state[p]
    for wrong, count, how in (
        (coo(torch.ones(3, 2) * 2), 6, "[0] is 2.0 (0x40000000), should be 1.0 (0x3f800000)"),
        (coo(torch.ones(3, 2), (0, 2, 3)), 1, " has other indices"),
        (torch.ones(4, 2), 1, " is torch.strided, should be torch.sparse_coo"),
    ):
        own["momentum_buffer"] = wrong
        where = "parameter 0 of group 0, shape (4, 2): momentum buffer"
        assert expected.compare(optimizer) == (count, where + how)


def test_a_scalers_infinity_leaves_everything():
    p = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([p], lr=0.5, momentum=0.9, fused=True)
    p.grad = torch.full((3,), 4.0)
    followed = Followed("SGD", None)
    for found, want in ((1.0, 1.0), (0.0, 0.0)):
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(found)
        followed.step(optimizer, torchs_step, ALL)
        assert p.tolist() == [want] * 3
    assert (followed.tally.checked, followed.tally.differing) == (2, 0)


def test_a_class_is_judged_by_what_its_optimizers_do():
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    registry = Registry(None)
    first, second = (Own([torch.ones(1, requires_grad=True)], lr=0.1) for _ in range(2))
    registry.note_own_step(first)
    registry.note_own_step(second)
    assert [row.optimizers for row in by_row(registry.tallies)] == [2]
    assert registry.tallies[0].other == "a step of its own"
    registry.at_step(first).step(first, torchs_step, ALL)
    assert [(t.steps, t.other) for t in registry.tallies] == [(1, None)]


def test_optimizers_are_told_apart_without_a_hash():
    class Equal(torch.optim.SGD):
        __hash__ = None

        def __eq__(self, other):
            return True

    registry = Registry(None)
    made = [Equal([torch.ones(1, requires_grad=True)], lr=0.1) for _ in range(2)]
    for optimizer in (*made, made[0]):
        registry.at_step(optimizer).step(optimizer, torchs_step, ALL)
        registry.add_zero_grad(optimizer, 1.0)
    assert [(t.steps, t.zero_grad) for t in registry.tallies] == [(2, 2.0), (1, 1.0)]
    del made, optimizer
    gc.collect()
    assert registry._followed == {}


def test_records_come_back_and_are_removed(tmp_path):
    folder = tmp_path / "records"
    kept = [Record(f"rank {i}", 2.0, [Tally("SGD", None, "compiled", steps=i)]) for i in (10, 9)]
    for i, record in enumerate(kept):
        record.write(folder / f"{i}.json")
    assert take(folder) == kept[::-1]
    assert list(tmp_path.iterdir()) == []
    assert take(folder) == []


def test_other_ranks_print_one_line(capfd, monkeypatch):
    tally = Tally(
        "SGD", None, "compiled", steps=3, first_step=2.0, checked=3, differing=1, first="x"
    )
    monkeypatch.setenv("RANK", "2")
    report(4.0, [Record(label(), 4.0, [tally])], [])
    assert capfd.readouterr().err == (
        "lrfused run, rank 2: 1 of 1 optimizer replaced; 3 of 3 steps compared with torch's "
        "for-loop: 1 values differ; first to differ: x\n"
    )


def test_without_rich_the_table_is_text(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delenv("RANK", raising=False)
    tallies = [Tally("SGD", None, "compiled", steps=3, first_step=2.0, zero_grad=1e-3)] * 2
    report(4.0, [Record(label(), 40.0, by_row(tallies))], [])
    assert capfd.readouterr().err == (
        "lrfused run: 2 of 2 optimizers replaced\noptimizer: 2 SGD  steps made by: lrfused, "
        "compiled  steps: 6  first: 4.00 s  later: 0.0 ms  zero_grad: 2.0 ms  share: 10.0%\n"
    )


@pytest.mark.parametrize("threaded", [False, True])
def test_frames_of_ours_are_left_out(monkeypatch, threaded):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, traceback: shown.append(traceback))
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_traceback))
    tracebacks.hide_our_frames()

    def fails(*_):
        raise KeyError

    def steps():
        p = torch.ones(1, dtype=torch.float32, requires_grad=True)
        Followed("SGD", "torch").step(torch.optim.SGD([p], lr=0.1), fails, ALL)

    if threaded:
        thread = threading.Thread(target=steps)
        thread.start()
        thread.join()
    else:
        try:
            steps()
        except KeyError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    names = []
    while shown[0] is not None:
        names.append(shown[0].tb_frame.f_code.co_name)
        shown[0] = shown[0].tb_next
    assert names[-2:] == ["steps", "fails"]
    assert "step" not in names
