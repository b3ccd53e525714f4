"""Run the drawn tests with seeds of their own, one after another, until the time is over.

    cd tests && PYTHONPATH=.. python -m support.fuzz --seconds 60
    cd tests && PYTHONPATH=.. python -m support.fuzz --part beside-torch-compiled --seed 7

The suite draws the same cases each time; here each round draws others. A round prints its part and
its seed before it begins, so that one which crashes the process can be run again too. With --seed
hypothesis also shrinks the case that it finds, which may take minutes.
"""

import argparse
import faulthandler
import os
import random
import sys
import time
import traceback
import warnings
from functools import partial

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton
os.environ.setdefault("LRFUSED_EMULATE_CUDA", "1")

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from lrfused import backends
from support import junk
from support.beside_torch import BesideTorch
from support.compositions import RACES, race_and_resume

BACKENDS = ("compiled", "reference", "cuda")  # Triton's interpreter takes minutes for a round
ROUND = settings(
    max_examples=40, stateful_step_count=30, deadline=None, database=None, print_blob=False,
    report_multiple_bugs=False, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
)  # fmt: skip
SHRUNK = settings(ROUND, phases=[Phase.generate, Phase.shrink])


def beside_torch(backend, number, how):
    """Let a FusedDecaySGD on a backend and torch's loop do what a user may do to both."""
    kind = type("BesideTorch", (BesideTorch,), {"backend": backend})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_state_machine_as_test(seed(number)(kind), settings=how)


def compositions(number, how):
    """Race compositions of any shape against torch's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, of schedulers stepped first
        seed(number)(how(given(*RACES)(race_and_resume)))()


def throw_junk(kind, number, how):
    """Throw junk at one kind of public thing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        junk.KINDS[kind](20 if kind == "constructors" else 200, number)


PARTS = {
    **{f"beside-torch-{name}": partial(beside_torch, name) for name in BACKENDS},
    "compositions": compositions,
    **{f"junk-{kind}": partial(throw_junk, kind) for kind in junk.KINDS},
}


def run(part, number, how=ROUND):
    """Run one round; return whether it found nothing."""
    print(f"{part}, seed {number}", flush=True)
    try:
        PARTS[part](number, how)
    except Exception:
        traceback.print_exc()
        print(f'again: make fuzz ARGS="--part {part} --seed {number}"', flush=True)
        return False
    return True


def main(arguments=None):
    """Read the command line, run rounds, and return how many found something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--part", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument("--seed", type=int, help="run one round of each part, with this seed")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    missing = {name for name in BACKENDS if backends.available()[name] is not None}
    parts = options.part or [p for p in PARTS if p.rpartition("-")[2] not in missing]
    if options.seed is not None:
        return sum(not run(part, options.seed, SHRUNK) for part in parts)
    end, rounds, found = time.monotonic() + options.seconds, 0, 0
    while time.monotonic() < end:
        part = parts[rounds % len(parts)]
        rounds, found = rounds + 1, found + (not run(part, random.SystemRandom().getrandbits(32)))
    print(f"{rounds} rounds, {found} of them found something")
    return found


if __name__ == "__main__":
    faulthandler.enable()
    sys.exit(min(main(), 1))
