"""Compositions of any shape, drawn at random, raced against torch's and resumed on the way."""

import pytest
from cases import Schedule, named
from hypothesis import strategies as st

from lrfused import FusedDecaySGD
from support.bits import assert_same_rates
from support.loops import RATES, Race, groups_of, momenta
from support.twin import rates, sgd

FACTORS = st.floats(0.01, 1.0)
EPOCHS = st.integers(1, 40)


def schedule(kind, **arguments):
    return st.builds(
        lambda kwargs: Schedule(f"{kind}({kwargs})", kind, kwargs), st.fixed_dictionaries(arguments)
    )


LEAVES = st.one_of(
    schedule("StepLR", step_size=EPOCHS, gamma=FACTORS),
    schedule("MultiStepLR", milestones=st.lists(EPOCHS, max_size=5), gamma=FACTORS),
    schedule("ExponentialLR", gamma=FACTORS),
    schedule("ConstantLR", factor=FACTORS, total_iters=EPOCHS),
    schedule("LinearLR", start_factor=FACTORS, end_factor=FACTORS, total_iters=EPOCHS),
    schedule("PolynomialLR", total_iters=EPOCHS, power=st.floats(0, 3)),
    schedule("CosineAnnealingLR", T_max=EPOCHS, eta_min=st.floats(0, 0.1)),
    schedule("CosineAnnealingWarmRestarts", T_0=EPOCHS, T_mult=st.integers(1, 3)),
    schedule(
        "CyclicLR", base_lr=st.floats(0, 0.1), max_lr=FACTORS, step_size_up=EPOCHS,
        mode=st.sampled_from(["triangular", "triangular2", "exp_range"]), gamma=st.floats(0.9, 1),
    ),
    schedule(
        "OneCycleLR", max_lr=FACTORS, total_steps=st.integers(100, 300),
        anneal_strategy=st.sampled_from(["cos", "linear"]), three_phase=st.booleans(),
    ),
    st.sampled_from(named("LambdaLR-root", "LambdaLR-warmup", "MultiplicativeLR-object")),
)  # fmt: skip


@st.composite
def sequences(draw, first):
    members = [draw(first), *draw(st.lists(LEAVES, max_size=3))]
    milestones = sorted(
        draw(st.lists(EPOCHS, min_size=len(members) - 1, max_size=len(members) - 1))
    )
    kwargs = {"schedulers": members, "milestones": milestones}
    return Schedule(f"SequentialLR({kwargs})", "SequentialLR", kwargs)


def chains(member):
    return st.lists(member, min_size=1, max_size=3).map(
        lambda members: Schedule(
            f"ChainedScheduler({members})", "ChainedScheduler", {"schedulers": members}
        )
    )


def deeper(member):
    return sequences(member) | chains(member)


TREES = LEAVES | deeper(LEAVES) | deeper(deeper(LEAVES))


# A tree, the number of groups, `schedule_every`, and the step at which a copy is resumed.
RACES = (TREES, st.integers(1, 2), st.sampled_from([1, 2, None]), st.integers(0, 60))


def race_and_resume(tree, groups, every, point):
    """Compare a hundred steps with torch's, and with those of an optimizer resumed at one."""
    try:
        race = Race([tree], "compiled", RATES[groups], every)
    except (ZeroDivisionError, TypeError) as ours:  # torch's own, where it divides by zero
        with pytest.raises(type(ours)):
            tree.torchs(sgd(groups_of(RATES[groups]), lr=0.5))
        return
    resumed = None
    for step in range(100):
        if step == point:
            state = race.opt.state_dict()
            resumed = FusedDecaySGD(
                groups_of([0.9] * groups), schedule=tree.ours(), schedule_every=every
            )
            resumed.load_state_dict(state)
        race.step()
        if every is None:
            race.advance()
        if resumed is not None:
            resumed.step()
            if every is None:
                resumed.scheduler.step()
            assert_same_rates(rates(resumed), rates(race.opt), f"resumed at {point}, step {step}")
            assert_same_rates(momenta(resumed), momenta(race.opt), f"resumed at {point}, momentum")
