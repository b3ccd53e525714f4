"""Throw junk at everything public, in a process of its own: test_robust.py runs this.

    cd tests && PYTHONPATH=.. python -m support.junk constructors|optimizer|checkpoints|handles

prints the number of cases. A refusal is TypeError, ValueError or another of REFUSED; whatever was
refused must have changed nothing. A crash ends the process, and so the test.
"""

import copy
import faulthandler
import inspect
import sys
import warnings

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import lrfused
from lrfused import FusedDecaySGD
from support.twin import assert_unchanged, leaf, numbers, snapshot

# What a user's lambda or a number beyond fp64 raises is not ours to change.
REFUSED = (TypeError, ValueError, RuntimeError, ArithmeticError, LookupError)
NO_CONSTRUCTORS = {"FusedDecaySGD", "check_ranks", "update_in_backward"}
PLAIN = sorted(set(lrfused.__all__) - NO_CONSTRUCTORS)
CASES = {"constructors": 250, "optimizer": 2_000, "checkpoints": 2_500, "handles": 1_200}

usual = st.one_of(
    st.integers(0, 12),
    st.floats(0, 1),
    st.sampled_from([0.1, 0.5, 0.9, 1, 1.0, 3, 30]),
)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**63, 2**64 + 1, -(2**63) - 1, 10**30, -1]),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.sampled_from(["min", "max", "cos", "linear", "rel", "abs", "exp_range", "cycle", "1-sqrt"]),
    st.lists(st.integers(-3, 9) | st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.builds(lambda: torch.tensor(0.5)),
    st.builds(lambda: torch.tensor([1, 2])),
    st.builds(lambda: numbers(3).to(torch.float16)),
    st.sampled_from([len, float, object(), type, ..., lambda epoch: 0.9, lambda epoch: "fast"]),
)
schedules = st.sampled_from(
    [
        lrfused.StepLR(2),
        lrfused.CosineAnnealingLR(5),
        lrfused.ExponentialLR(0.9),
        lrfused.OneCycleLR(0.2, total_steps=9),
        lrfused.ReduceLROnPlateau(patience=0),
        lrfused.warmup(lrfused.StepLR(3), 2),
        lrfused.ChainedScheduler([lrfused.LinearLR(), lrfused.CyclicLR(0.1, 0.2)]),
    ]
)
members = st.lists(schedules | junk, max_size=3)
lists_of_numbers = st.lists(st.integers(-1, 9), max_size=3)


def arguments(call):
    """Draw keyword arguments: most required ones, few of the others."""
    drawn = {}
    for name, parameter in inspect.signature(call).parameters.items():
        value = usual | usual | junk
        if name in ("schedulers", "schedule"):
            value = members | schedules | junk
        elif name == "milestones":
            value = lists_of_numbers | junk
        elif name == "optimizer":
            value = st.builds(lambda: torch.optim.SGD([leaf(numbers(3))], lr=0.1)) | junk
        elif "lambda" in name or name == "scale_fn":
            value = st.just(lambda epoch: 0.9) | junk
        needed = parameter.default is inspect.Parameter.empty
        absent = st.sampled_from([True] + [False] * (9 if needed else 1))
        drawn[name] = st.tuples(absent, value)
    return st.fixed_dictionaries(drawn).map(
        lambda pairs: {name: value for name, (left_out, value) in pairs.items() if not left_out}
    )


def an_optimizer(schedule=None, **extra):
    groups = [
        {"params": [leaf(numbers(7)), leaf(numbers(33, seed=1))]},
        {"params": [leaf(numbers(5, seed=2))], "lr": 0.3},
    ]
    return FusedDecaySGD(groups, **{"lr": 0.1, "momentum": 0.9, "schedule": schedule, **extra})


def give(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = numbers(*p.shape, dtype=p.dtype, seed=9)


def use(optimizer, steps=3):
    for _ in range(steps):
        give(optimizer)
        optimizer.step()


def attempt(call):
    try:
        return call()
    except REFUSED:
        return None


def unchanged_if_refused(optimizer, call):
    """Return whether the call was accepted; assert that a refused one has changed nothing."""
    before = snapshot(optimizer)
    try:
        call()
    except REFUSED:
        assert_unchanged(optimizer, before)
        return False
    return True


def over(count, number, **drawn):
    """Run a function over `count` cases drawn by the seed `number`, and count them."""

    def decorate(function):
        counted = 0

        @seed(number)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(**drawn)
        def run(**kwargs):
            nonlocal counted
            counted += 1
            function(**kwargs)

        run()
        return counted

    return decorate


def constructors(count, number):
    total = 0
    for name in PLAIN:
        call = getattr(lrfused, name)

        def one(kwargs, call=call):
            made = attempt(lambda: call(**kwargs))
            if isinstance(made, tuple):  # fuse() gives an optimizer and its handle
                attempt(lambda: use(made[0]))
            elif made is not None:
                attempt(lambda: use(an_optimizer(made)))

        total += over(count, number, kwargs=arguments(call))(one)
    return total


def optimizer(count, number):
    hyper = arguments(FusedDecaySGD).map(lambda drawn: {**drawn, "differentiable": False})

    def one(kwargs, group):
        kwargs.pop("params", None)
        made = attempt(lambda: an_optimizer(**kwargs))
        if made is not None:
            attempt(lambda: use(made, 2))
            unchanged_if_refused(made, lambda: made.add_param_group(group))

    groups = st.one_of(
        junk,
        st.fixed_dictionaries(
            {"params": junk | st.builds(lambda: [leaf(numbers(3))])},
            optional={"lr": usual | junk, "momentum": usual | junk, "schedule": schedules | junk},
        ),
    )
    return over(count, number, kwargs=hyper, group=groups)(one)


def places(value, path=()):
    """List the paths to everything inside nested dicts and lists."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            found += places(value[index], (*path, index))
    return found


def spoil(state, changes):
    """Put junk in some places of a state, or take them away."""
    for where, how, value in changes:
        everywhere = places(state)
        if not everywhere:
            return state
        *path, last = everywhere[where % len(everywhere)]
        inner = state
        for key in path:
            inner = inner[key]
        if how == "remove":
            del inner[last]
        elif how == "add" and isinstance(inner, dict):
            inner["stranger"] = value
        else:
            inner[last] = value
    return state


changes = st.lists(
    st.tuples(
        st.integers(0, 1_000), st.sampled_from(["put", "put", "remove", "add"]), usual | junk
    ),
    min_size=1,
    max_size=3,
)


def checkpoints(count, number):
    def one(schedule, changes, override):
        donor = an_optimizer(schedule)
        use(donor, 2)
        state = spoil(copy.deepcopy(donor.state_dict()), changes)
        receiver = an_optimizer(schedule)
        use(receiver, 1)
        load = receiver.load_state_dict
        if unchanged_if_refused(receiver, lambda: load(state, override=override)):
            attempt(lambda: use(receiver, 2))

    return over(
        count, number, schedule=schedules | st.none(), changes=changes, override=st.booleans()
    )(one)


def handles(count, number):
    def one(schedule, changes, metric):
        donor = an_optimizer(schedule)
        use(donor, 2)
        state = spoil(copy.deepcopy(donor.scheduler.state_dict()), changes)
        receiver = an_optimizer(schedule)
        use(receiver, 1)
        unchanged_if_refused(receiver, lambda: receiver.scheduler.step(metric))
        unchanged_if_refused(receiver, lambda: receiver.scheduler.load_state_dict(state))
        attempt(lambda: use(receiver, 2))

    return over(count, number, schedule=schedules, changes=changes, metric=usual | junk)(one)


KINDS = {
    "constructors": constructors,
    "optimizer": optimizer,
    "checkpoints": checkpoints,
    "handles": handles,
}


def main(kind):
    faulthandler.enable()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(KINDS[kind](CASES[kind], 1))


if __name__ == "__main__":
    main(sys.argv[1])
