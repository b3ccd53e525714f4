"""Every schedule and composition against torch's schedulers: the rates are equal, bit for bit."""

import inspect

import pytest
from cases import COMPOSITIONS, RESUMED, SCHEDULES, STEPPED, fading, named
from support.bits import assert_same_rates
from support.loops import (
    RATES,
    Race,
    Torchs,
    end_of,
    groups_of,
    leaves,
    momenta,
    parameter,
    product_ids,
    products,
)
from support.twin import rates
from torch.optim import lr_scheduler

import lrfused
from lrfused import FusedDecaySGD, LambdaLR, StepLR

pytestmark = pytest.mark.backends(
    "host", reason="test_device_schedule.py runs schedules on a device"
)

STEPS = {"compiled": 1_200, "reference": 250}  # the compiled one's go past a table's end


def test_every_exported_schedule_has_a_case():
    exported = {
        name
        for name in dir(lrfused)
        if name in lr_scheduler.__all__ and inspect.isclass(getattr(lrfused, name))
    }
    assert exported - {"LRScheduler"} == {case.kind for case in SCHEDULES}
    defined = {
        name
        for name, value in vars(lrfused).items()
        if inspect.isclass(value)
        and value.__module__.startswith("lrfused")
        and hasattr(value, "__init__")
        and name.endswith(("LR", "Scheduler", "Plateau", "Restarts"))
    }
    assert defined == {case.kind for case in SCHEDULES}


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("pair", products(STEPPED), ids=product_ids)
def test_rates_equal_torchs(backend, pair, every):
    case, count = pair
    race = Race([case], backend, RATES[count], every)
    race.run(STEPS[backend] if every == 1 else 100)
    assert race.opt.scheduler.last_epoch == race.torchs.count // every


@pytest.mark.parametrize("pair", products(STEPPED), ids=product_ids)
def test_rates_equal_torchs_when_the_loop_advances(backend, pair):
    case, count = pair
    race = Race([case], backend, RATES[count], every=None)
    for step in range(1, 100):
        race.step()
        for _ in range(step % 3):
            race.advance()
    assert race.opt.scheduler.last_epoch == 99


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cases", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_compositions_equal_torchs_chained_in_order(backend, cases, count):
    Race(cases, backend, RATES[count]).run(STEPS[backend])
    Race(cases, backend, RATES[count], every=4).run(100)


@pytest.mark.parametrize("cases", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_compositions_equal_torchs_chained_scheduler(backend, cases):
    opt = FusedDecaySGD([parameter()], lr=0.1, schedule=[c.ours() for c in cases], backend=backend)
    torchs = Torchs([parameter()], cases, every=None, lr=0.1)
    chained = lr_scheduler.ChainedScheduler(torchs.schedulers)
    for step in range(100):
        opt.step()
        torchs.step()
        chained.step()
        assert_same_rates(rates(opt), chained.get_last_lr(), f"step {step}")


def test_a_tuple_is_a_list_and_a_list_of_one_is_the_one(backend):
    (case,) = named("StepLR-third")
    runs = []
    for schedule in (case.ours(), [case.ours()], (case.ours(),)):
        opt = FusedDecaySGD([parameter()], lr=0.1, schedule=schedule, backend=backend)
        runs.append([])
        for _ in range(40):
            opt.step()
            runs[-1].append(rates(opt)[0])
    assert runs[0] == runs[1] == runs[2]
    assert runs[0][-1] < 0.1


@pytest.mark.parametrize("case", [c for c in STEPPED if c.groups is None], ids=str)
def test_ten_thousand_epochs(case):
    opt = FusedDecaySGD(groups_of(RATES[2]), schedule=case.ours(), schedule_every=None)
    torchs = Torchs(groups_of(RATES[2]), [case], every=None)
    for optimizer in (opt, torchs.opt):
        optimizer.step()
    handle, (scheduler,) = opt.scheduler, torchs.schedulers
    last = min([10_500, *map(end_of, leaves(case))])
    for epoch in range(1, last + 1):
        handle.step()
        scheduler.step()
        assert_same_rates(rates(opt), rates(torchs.opt), f"epoch {epoch}")
    assert_same_rates(momenta(opt), momenta(torchs.opt), "momentum at the end")


@pytest.mark.parametrize("pair", products(STEPPED), ids=product_ids)
def test_rates_written_by_hand(backend, pair):
    case, count = pair
    race = Race([case], backend, RATES[count])
    writes = {0: 0.2, 4: 1.0, 5: 3e-4, 12: 0.5, 30: 0.125, 31: 0.125, 77: 2, 78: 0.0, 90: 0.1}
    for step in range(150):
        if step in writes:
            race.write(writes[step], group=step % count)
            assert rates(race.opt) == rates(race.torchs.opt)
        race.step()


@pytest.mark.parametrize("cases", COMPOSITIONS.values(), ids=COMPOSITIONS)
def test_rates_written_by_hand_under_a_composition(backend, cases):
    race = Race(cases, backend, RATES[2])
    for step in range(150):
        if step % 17 == 5:
            race.write(0.3 + step / 7, group=step % 2)
        race.step()


def test_the_present_rate_written_again_changes_nothing(backend):
    race = Race(named("CosineAnnealingLR-floor"), backend, RATES[2])
    for _ in range(120):
        for optimizer in race.both:
            for group in optimizer.param_groups:
                group["lr"] = float(group["lr"])
        race.step()


@pytest.mark.parametrize("case", [c for c in STEPPED if c.groups is None], ids=str)
def test_an_initial_rate_given_by_the_user(backend, case):
    race = Race([case], backend, [0.05, 0.02], initial_lr=0.1)
    race.run(150)
    ours, theirs = ([g["initial_lr"] for g in o.param_groups] for o in race.both)
    assert ours == theirs
    if case.keeps_the_base:
        assert ours == [0.1, 0.1]


@pytest.mark.parametrize("case", [c for c in STEPPED if c.groups is None], ids=str)
def test_the_initial_rate_is_kept_in_the_group(backend, case):
    race = Race([case], backend, RATES[2])
    race.run(3)
    ours, theirs = ([g.get("initial_lr") for g in o.param_groups] for o in race.both)
    assert ours == theirs
    if case.keeps_the_base:
        assert ours == RATES[2]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("case", RESUMED, ids=str)
def test_a_schedule_that_begins_at_a_later_epoch(backend, case, count):
    race = Race([case], backend, RATES[count], initial_lr=0.1)
    assert race.opt.scheduler.last_epoch == case.kwargs["last_epoch"] + 1
    race.run(60)


def test_a_later_epoch_needs_the_initial_rate_as_in_torch(backend):
    with pytest.raises(KeyError) as theirs:
        Torchs(groups_of([0.1]), RESUMED[:1])
    with pytest.raises(KeyError) as ours:
        FusedDecaySGD(groups_of([0.1]), schedule=RESUMED[0].ours(), backend=backend)
    assert str(ours.value) == str(theirs.value)


PER_GROUP = {
    "different": [named("StepLR-third"), named("CosineAnnealingLR-ten"), named("LambdaLR-warmup")],
    "one-without": [named("ExponentialLR-usual"), [], named("StepLR-each")],
    "compositions": [COMPOSITIONS["step-exponential"], [], COMPOSITIONS["lambda-step"]],
}


def one_or_list(cases):
    if not cases:
        return None
    return cases[0].ours() if len(cases) == 1 else [case.ours() for case in cases]


@pytest.mark.parametrize("every", [1, 3, None])
@pytest.mark.parametrize("per_group", PER_GROUP.values(), ids=PER_GROUP)
def test_a_schedule_per_group(backend, per_group, every):
    lrs = [0.1, 0.037, 0.5]
    groups = groups_of(lrs)
    for group, cases in zip(groups, per_group, strict=True):
        group["schedule"] = one_or_list(cases)
    opt = FusedDecaySGD(groups, lr=0.7, backend=backend, schedule_every=every)
    alone = [
        Torchs(groups_of([lr]), cases, every) for lr, cases in zip(lrs, per_group, strict=True)
    ]
    for step in range(200):
        opt.step()
        for torchs in alone:
            torchs.step()
        if every is None and step % 2:
            opt.scheduler.step()
            for torchs in alone:
                torchs.advance()
        assert_same_rates(rates(opt), [rates(torchs.opt)[0] for torchs in alone], f"step {step}")


def test_a_groups_own_schedule_wins_over_the_one_for_all(backend):
    groups = groups_of([0.1, 0.037, 0.5])
    groups[1]["schedule"] = StepLR(2, gamma=0.5)
    groups[2]["schedule"] = None
    opt = FusedDecaySGD(groups, lr=0.7, backend=backend, schedule=LambdaLR(fading))
    first = Torchs(groups_of([0.1]), named("LambdaLR-fading"))
    for step in range(1, 20):
        opt.step()
        first.step()
        want = [rates(first.opt)[0], 0.037 * 0.5 ** (step // 2), 0.5]
        assert_same_rates(rates(opt), want, f"step {step}")
