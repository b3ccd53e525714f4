"""The Triton backend: its uploads and launches, and the choice of it."""

import pytest
import torch
from cases import DTYPES, HYPER, named
from support.inside import pretend_it_was_on, program_of
from support.loops import RATES, Race
from support.tape import not_emulated
from support.twin import Twin, leaf, numbers

from lrfused import FusedDecaySGD, backends

if why := not_emulated("triton"):
    pytest.skip(f"triton: {why}", allow_module_level=True)

from lrfused.backends.triton import program, tables

HYPERS = {name: HYPER[name] for name in ("plain", "nesterov-decay")}


# -- uploads and launches ------------------------------------------------------------------------


def test_only_what_changed_is_uploaded(tape):
    twin = Twin([numbers(1025), numbers(7, seed=1)], "triton", HYPER["momentum-decay"])
    twin.run(2)
    grads = twin.draw()

    def uploads_of_a_step():
        before = tape.uploads
        for params in (twin.mine, twin.other):
            for p, grad in zip(params, grads, strict=True):
                p.grad.copy_(grad)
        for optimizer in twin.both:
            optimizer.step()
        twin.check()
        return tape.uploads - before

    assert uploads_of_a_step() == 0
    for change in ({"lr": 0.05}, {"momentum": 0.8}, {"weight_decay": 0.1}):
        for optimizer in twin.both:
            optimizer.param_groups[0].update(change)
        assert uploads_of_a_step() == 1, change
        assert uploads_of_a_step() == 0, change
    for params in (twin.mine, twin.other):
        params[0].grad = params[0].grad.clone()
    assert uploads_of_a_step() == 1, "a gradient moved"


def test_one_launch_for_all_tensors_of_a_dtype(tape):
    params = [leaf(numbers(n, dtype=d, seed=n)) for n in (3, 1025, 0, 70) for d in DTYPES]
    groups = [{"params": params[:7]}, {"params": params[7:], "lr": 0.3, "momentum": 0.0}]
    for p in params:
        p.grad = numbers(*p.shape, dtype=p.dtype)
    opt = FusedDecaySGD(groups, lr=0.1, momentum=0.9, nesterov=True, backend="triton")
    opt.step()
    opt.step()
    tape.capture(opt.step)
    assert len(tape) == len(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("hyper", HYPERS.values(), ids=HYPERS)
def test_tiles_of_the_size_that_is_compiled(monkeypatch, hyper, dtype):
    monkeypatch.setattr(tables, "rows_of_a_tile", lambda chunks, cols, tile=2048: tile // cols)
    Twin([numbers(n, dtype=dtype, seed=n) for n in (1, 2049, 5000, 1024)], "triton", hyper).run(2)
    Twin([numbers(n, dtype=dtype, seed=n) for n in (1, 65, 33, 64)], "triton", hyper).run(2)


@pytest.mark.parametrize("numels", [[0], [1], [64] * 9, [0, 1, 64, 65], [5000, 0, 1024, 1025]])
def test_chunks_cover_every_element_once(numels):
    cols, chunks = tables.cut(torch.tensor(numels))
    covered = [0] * len(numels)
    for slot, piece in chunks.tolist():
        assert piece * cols == covered[slot]
        covered[slot] = min(numels[slot], covered[slot] + cols)
    assert covered == numels


# -- the choice ----------------------------------------------------------------------------------


def test_the_backend_is_chosen_by_the_device():
    first = "reference" if backends.available()["compiled"] else "compiled"
    assert backends.preferred("cpu") == first


def test_a_model_that_was_moved_takes_its_schedule_along(monkeypatch):
    race = Race(named("CosineAnnealingLR-ten"), "auto", RATES[2])
    race.run(5)
    kind = type(program_of(race.opt))
    pretend_it_was_on(race.opt, "cuda:0")
    trusted, there = backends.trusted, [torch.device("xpu:0")]
    monkeypatch.setattr(backends, "trusted", lambda name, _: trusted(name, there))
    race.run(5)
    assert type(program_of(race.opt)) is program.Program is not kind
