"""The Triton backend scales, clips and updates masters on the device: nobody waits."""

import math

import pytest
import torch
from cases import DTYPES, HYPER
from support.bits import assert_same_bits, assert_same_rates
from support.inside import program_of
from support.masters import Masters, of_each_kind, values_of
from support.tape import assert_the_device_agrees, not_emulated
from support.twin import Twin, assert_same_state, leaf, numbers

from lrfused import ExponentialLR, FusedDecaySGD
from lrfused.arithmetic.gradient_scaling import GradientScaling

if why := not_emulated("triton"):
    pytest.skip(f"triton: {why}", allow_module_level=True)

SIZES = (1, 33, 1025)


@pytest.fixture
def no_reads(monkeypatch):
    """Return a function; after its call, to read a number out of a tensor raises."""

    def refuse(tensor, *args):
        raise AssertionError("a number was read by the host")

    def begin():
        for name in ("item", "tolist", "__float__", "__bool__"):
            monkeypatch.setattr(torch.Tensor, name, refuse)

    yield begin
    monkeypatch.undo()


def compiled_rows(chunks, cols, tile=2048):
    """Return how many rows a tile has on a GPU."""
    return tile // cols


class Scaled:
    """A Triton optimizer with a schedule, and the reference, given the same scaled gradients."""

    def __init__(self, dtype=torch.float32, hyper="nesterov-decay", **kwargs):
        self.both = [
            FusedDecaySGD(
                [leaf(value) for value in values_of(SIZES, dtype)], amp="fused", backend=backend,
                schedule=ExponentialLR(0.9), **{"lr": 0.1, **HYPER[hyper]}, **kwargs,
            )
            for backend in ("triton", "reference")
        ]  # fmt: skip
        self.ours, self.theirs = self.both

    def give(self, step, scale, found):
        for optimizer in self.both:
            for i, p in enumerate(optimizer.param_groups[0]["params"]):
                grad = numbers(*p.shape, dtype=p.dtype, seed=10 * step + i)
                p.grad = grad if p.grad is None else p.grad.copy_(grad)
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(found)

    def check(self, when):
        assert_same_state(self.ours, self.theirs, when)
        assert_same_rates(self.ours.lr_used, self.theirs.lr_used, when)
        assert self.ours.scheduler.last_epoch == self.theirs.scheduler.last_epoch, when


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradscalers_numbers_are_read_on_the_device(dtype, no_reads, monkeypatch):
    pair = Scaled(dtype)
    pair.give(0, 3.0, 0.0)
    for optimizer in pair.both:
        optimizer.step()
    for step, found in enumerate([0.0, 1.0, 0.0, math.nan, 2.0, 0.0], 1):
        pair.give(step, 3.0 + step, found)
        no_reads()
        pair.ours.step()
        monkeypatch.undo()
        pair.theirs.step()
        pair.check(f"step {step}")
        assert_the_device_agrees(program_of(pair.ours))


@pytest.mark.parametrize("found", [1.0, 0.0])
def test_the_host_learns_of_a_step_in_which_the_schedule_rests(found):
    pair = Scaled(advance="on_update")
    for step in range(3):
        pair.give(step, 4.0, found if step == 1 else 0.0)
        for optimizer in pair.both:
            optimizer.step()
        pair.check(f"step {step}")
    assert pair.ours.scheduler.last_epoch == 3 - (found == 1.0)


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_a_captured_step_takes_what_gradscaler_has_found_at_each_replay(tape, first):
    pair = Scaled(momentum=0.9, hyper="decay")
    for step in range(2):
        pair.give(step, 2.0, 0.0)
        for optimizer in pair.both:
            optimizer.step()
    scale, found = torch.tensor(2.0), torch.tensor(first)
    pair.ours.grad_scale, pair.ours.found_inf = scale, found
    tape.capture(pair.ours.step)
    assert len(tape) == 3  # GradScaler's numbers, the update, the schedule
    for replay, (by, inf) in enumerate([(3.0, 0.0), (7.0, 1.0), (0.1, 0.0), (5.0, math.nan)]):
        pair.give(2 + replay, by, inf)
        scale.fill_(by)
        found.fill_(inf)
        tape.replay()
        pair.theirs.step()
        pair.ours.scheduler.get_last_lr()
        pair.check(f"replay {replay}")
    # A step without a scaler, and a replay after it, do not meddle with each other.
    for optimizer in pair.both:
        optimizer.grad_scale = optimizer.found_inf = None
        optimizer.step()
    pair.check("a step without a scaler")
    pair.give(9, 6.0, 0.0)
    scale.fill_(6.0)
    found.fill_(0.0)
    tape.replay()
    pair.theirs.step()
    pair.ours.scheduler.get_last_lr()
    pair.check("another replay")


# -- clipping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_clipped_step_is_decided_on_the_device(dtype, no_reads, monkeypatch):
    pair = Scaled(dtype, max_grad_norm=0.5)
    pair.give(0, 3.0, 0.0)
    for optimizer in pair.both:
        optimizer.step()
    bad = {2: math.nan, 4: math.inf}  # infinities that no GradScaler has found
    for step, found in enumerate([0.0, 0.0, 1.0, 0.0, 2.0, 0.0], 1):
        pair.give(step, 3.0 + step, found)
        for optimizer in pair.both:
            if step in bad:
                optimizer.param_groups[0]["params"][1].grad[7] = bad[step]
            if step == 5:  # a number of the host's, as a loop may set it
                optimizer.grad_scale, optimizer.found_inf = 2.0, None
        if step == 5:
            monkeypatch.setattr(
                GradientScaling, "inv_scale", lambda scaling: 0.5
            )  # reads one of its own
        no_reads()
        pair.ours.step()
        monkeypatch.undo()
        pair.theirs.step()
        pair.check(f"step {step}")
        assert_same_bits(pair.ours.grad_norm, pair.theirs.grad_norm)
        assert_the_device_agrees(program_of(pair.ours))


@pytest.mark.parametrize("kwargs", [{"advance": "on_update"}, {"momentum": 0.0}], ids=str)
def test_the_host_learns_of_infinities_where_it_must(kwargs):
    pair = Scaled(hyper="plain", max_grad_norm=0.5, **kwargs)
    for step in range(3):
        pair.give(step, 4.0, 0.0)
        if step == 1:
            for optimizer in pair.both:
                optimizer.param_groups[0]["params"][0].grad[0] = math.inf
        for optimizer in pair.both:
            optimizer.step()
        pair.check(f"step {step}")
    assert pair.ours.scheduler.last_epoch == 3 - ("advance" in kwargs)


def clipped(backend, sizes, missing=(), **kwargs):
    params = [leaf(value) for value in values_of(sizes, torch.float32)]
    for i, p in enumerate(params):
        p.grad = None if i in missing else numbers(*p.shape, seed=i + 1)
    optimizer = FusedDecaySGD(params, lr=0.1, max_grad_norm=0.5, backend=backend, **kwargs)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    ("sizes", "missing"), [([129 * 4096 + 5, 7], ()), ([3, 0, 70] * 50, (0, 4, 130, 149))]
)
def test_the_sum_of_many_pieces_and_of_many_parameters(sizes, missing):
    ours, theirs = (clipped(name, sizes, missing) for name in ("triton", "reference"))
    assert_same_bits(ours.grad_norm, theirs.grad_norm)
    assert_same_state(ours, theirs)


def test_tiles_of_sums_of_the_size_that_is_compiled(monkeypatch):
    monkeypatch.setattr("lrfused.backends.triton.tables.rows_of_a_tile", compiled_rows)
    sizes = (4096, 5000, 0, 1, 8192, 12_289, 4096)
    ours, theirs = (clipped(name, sizes, (3,)) for name in ("triton", "reference"))
    assert_same_bits(ours.grad_norm, theirs.grad_norm)
    assert_same_state(ours, theirs)


def test_a_clipped_step_is_captured(tape):
    pair = Scaled(torch.bfloat16, master_weights=True, max_grad_norm=0.5)
    for step in range(2):
        pair.give(step, 2.0, 0.0)
        for optimizer in pair.both:
            optimizer.step()
    scale, found = torch.tensor(2.0), torch.tensor(0.0)
    pair.ours.grad_scale, pair.ours.found_inf = scale, found
    uploads = tape.uploads
    tape.capture(pair.ours.step)
    assert tape.uploads == uploads
    assert len(tape) == 6  # unscale; pieces, parameters, the norm; the update, the schedule
    norm = pair.ours.grad_norm
    for replay, inf in enumerate([0.0, 1.0, 0.0]):
        pair.give(2 + replay, 3.0 + replay, inf)
        scale.fill_(3.0 + replay)
        found.fill_(inf)
        tape.replay()
        pair.theirs.step()
        pair.ours.scheduler.get_last_lr()
        pair.check(f"replay {replay}")
        assert_same_bits(norm, pair.theirs.grad_norm)


def test_a_capture_with_sums_of_other_parameters_is_refused(tape):
    pair = Scaled(max_grad_norm=0.5)
    params = pair.ours.param_groups[0]["params"]
    for step in range(2):
        pair.give(step, 2.0, 0.0)
        pair.ours.step()
    pair.ours.param_groups[0]["params"] = [*params, leaf(numbers(3))]  # it has no gradient
    with pytest.raises(RuntimeError, match=r"cannot be captured.*moved"):
        tape.capture(pair.ours.step)
    assert not len(tape)


@pytest.mark.parametrize("change", [0.25, math.inf])
def test_another_bound_is_uploaded_and_never_in_a_capture(tape, change):
    pair = Scaled(max_grad_norm=0.5)
    for step in range(4):
        pair.give(step, 2.0, 0.0)
        for optimizer in pair.both:
            optimizer.max_grad_norm = change if step == 3 else 0.5
        if step == 3:
            with pytest.raises(RuntimeError, match=r"cannot be captured.*clipping"):
                tape.capture(pair.ours.step)
            before = tape.uploads
        for optimizer in pair.both:
            optimizer.step()
        pair.check(f"step {step}")
    assert tape.uploads == before + 1


# -- masters -------------------------------------------------------------------------------------


@of_each_kind
def test_masters_are_updated_in_a_captured_step(tape, dtype, kind):
    pair = Masters(values_of(SIZES, dtype), kind, "triton", HYPER["nesterov-decay"])
    pair.step(0)
    pair.step(1)
    for p in pair.mine:
        p.grad = numbers(*p.shape, dtype=dtype)
    pair.ours.step()
    for p, q in zip(pair.mine, pair.other, strict=True):
        q.grad = p.grad.float()
    pair.theirs.step()
    tape.capture(pair.ours.step)
    assert len(tape) == 1
    for replay in range(3):
        for p, q in zip(pair.mine, pair.other, strict=True):
            p.grad.copy_(numbers(*p.shape, dtype=dtype, seed=replay))
            q.grad.copy_(p.grad)
        tape.replay()
        pair.theirs.step()
        pair.check(f"replay {replay}")


def test_a_capture_that_would_make_masters_is_refused(tape):
    p = leaf(numbers(9, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    optimizer = FusedDecaySGD([p], lr=0.1, master_weights=True, backend="triton")
    with pytest.raises(RuntimeError, match=r"cannot be captured.*masters"):
        tape.capture(optimizer.step)
    assert not optimizer.state


@of_each_kind
def test_tensors_that_moved_are_found_where_they_are(tape, dtype, kind):
    pair = Masters(values_of(SIZES, dtype), kind, "triton", HYPER["momentum-decay"])
    pair.step(0)
    pair.step(1)
    for p in pair.mine:
        own = pair.ours.state[p]
        own.update({key: tensor.clone() for key, tensor in own.items()})
    before = tape.uploads
    pair.step(2)
    assert tape.uploads == before + 1  # the slots with their addresses, and no chunks
    del pair.ours.state[pair.mine[1]]  # starts anew, its master as its parameter
    fresh = pair.mine[1].detach().float()
    del pair.theirs.state[pair.other[1]]
    pair.other[1].data.copy_(fresh)
    pair.step(3)
    pair.step(4, wide=True)


@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
@pytest.mark.parametrize("master_weights", [False, True])
def test_parameters_of_all_kinds_in_one_step(master_weights, max_grad_norm):
    def made(backend):
        # Dtypes take turns, so that the parameters of one launch are not neighbours in the sum.
        params = [leaf(numbers(n, dtype=dtype, seed=n)) for n in (70, 5000) for dtype in DTYPES]
        groups = [{"params": params[:3]}, {"params": params[3:], "lr": 0.3, "maximize": True}]
        return FusedDecaySGD(
            groups, lr=0.1, momentum=0.9, master_weights=master_weights,
            max_grad_norm=max_grad_norm, backend=backend,
        )  # fmt: skip

    ours, theirs = made("triton"), made("reference")
    for step in range(3):
        for optimizer in (ours, theirs):
            for group in optimizer.param_groups:
                for i, p in enumerate(group["params"]):
                    p.grad = numbers(*p.shape, dtype=p.dtype, seed=10 * step + i)
            optimizer.step()
        assert_same_bits(ours.grad_norm, theirs.grad_norm)
        assert_same_state(ours, theirs, f"step {step}")


@of_each_kind
def test_tiles_of_the_size_that_is_compiled(monkeypatch, dtype, kind):
    monkeypatch.setattr("lrfused.backends.triton.tables.rows_of_a_tile", compiled_rows)
    for sizes in ((1, 2049, 5000, 1024), (1, 65, 33, 64)):
        pair = Masters(values_of(sizes, dtype), kind, "triton", HYPER["nesterov-decay"])
        for step in range(2):
            pair.step(step, wide=step == 1)


def test_a_twin_without_any_of_it_reads_nothing(no_reads, monkeypatch):
    twin = Twin([numbers(33)], "triton", HYPER["momentum-decay"])
    twin.run(2)
    twin.give(twin.draw())
    no_reads()
    twin.opt.step()
    monkeypatch.undo()
    twin.oracle.step()
    twin.check()
