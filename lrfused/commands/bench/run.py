"""Validate every contender, then time it; print the tables, and write the numbers if asked."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import (
    CASES,
    QUICK,
    STEPS,
    cases,
    footprint,
    loop,
    models,
    report,
    rounds,
    scaling,
    schedule_cost,
    tables,
    worker,
)
from .contenders import FOR_LOOP, FOREACH, FUSED, LRFUSED, fastest

GROWERS = (LRFUSED, FOR_LOOP, FOREACH, FUSED, "optax on JAX")
# A field of contenders is timed for so long, and for three rounds at least: minutes in all.
SECONDS = {"resnet50": 6.0, "small": 10.0, "loop": 8.0, "threads": 3.0}
SECONDS_ELSEWHERE, SECONDS_QUICK = 1.0, 1.5


def run(options: argparse.Namespace, results: Path | None = None) -> int:
    """Run the cases asked for; return 1 when lrfused's bits are not the oracle's.

    The numbers are written to the file of `--json`; without it, those of a whole run to `results`,
    a folder of a git checkout, if given.
    """
    names = options.case or (QUICK if options.quick else CASES)
    threads = sorted(set(options.threads or (1, torch.get_num_threads())))
    print(
        f"lrfused's {fastest()} backend beside torch {torch.__version__}, "
        f"{' and '.join(map(str, threads))} threads, {report.cpu_model()}"
    )
    try:
        found = measure(names, threads, options.quick, options.shrink)
    except AssertionError as difference:
        print(f"NOT TIMED: {difference}", file=sys.stderr)
        return 1
    tables.everything(found)
    tables.target_lines(report.targets(found))
    whole = set(names) == set(CASES) and not options.quick and options.shrink == 1
    path = options.json or (report.default_path(results) if results and whole else None)
    if path:
        given = {"quick": options.quick, "threads": threads, "cases": list(names)}
        if options.shrink > 1:
            given["shrink"] = options.shrink
        report.save(path, found, given, checkout=results)
        print(f"written to {path}")
    return 0


def measure(names: tuple[str, ...], threads: list[int], quick: bool, shrink: int) -> dict[str, Any]:
    """Return the results of each measurement, in the form that is written."""
    once = quick or shrink > 1
    found: dict[str, Any] = {
        "steps": [], "loop": [], "threads": [], "growth": [], "schedule": [], "memory": []
    }  # fmt: skip
    visits = [_visit(names, threads, quick, shrink)]
    for number in threads:
        for name in STEPS:
            if name in names:
                # A process for each: rivals do not free all memory, which the next may need.
                with worker.process(number) as call:
                    found["steps"].append(_step(call, name, number, quick, shrink))
    if not once:
        visits.append(_visit(names, threads, quick, shrink))
    with worker.process(threads[-1]) as call:
        if "threads" in names and threads[-1] > 1:
            print(f"1 and {threads[-1]} threads ...", flush=True)
            seconds = _seconds(SECONDS["threads"], quick, shrink)
            found["threads"] = call(scaling.measure, threads[-1], seconds, shrink)
        if "growth" in names:
            seconds = _seconds(SECONDS_QUICK, quick, shrink)
            for case in cases.GROWING:
                shown = list(GROWERS)
                print(f"growth: {case.title} ...", flush=True)
                case = case.shrunk(shrink)
                found["growth"].append(call(rounds.run, case, seconds, shown))
        if "schedule" in names:
            print("schedules ...", flush=True)
            found["schedule"] = call(schedule_cost.measure, 0.5 if quick else 4.0)
    if "memory" in names:
        case = cases.CASES["resnet50"].shrunk(shrink)
        for name in footprint.MEASURED:
            print(f"peak memory: {name} ...", flush=True)
            with worker.process(threads[-1]) as call:
                found["memory"].append(call(footprint.peak, name, case))
    if "import" in names:
        print("import ...", flush=True)
        found["import_ms"] = footprint.import_ms()
    if not once:
        visits.append(_visit(names, threads, quick, shrink))
    found["loop"] = [loop.middle(same) for same in zip(*visits, strict=True)]
    return found


def _step(call: Callable[..., Any], name: str, number: int, quick: bool, shrink: int) -> Any:
    case = cases.CASES[name].shrunk(shrink)
    print(f"{case.title}, {number} threads: validating, timing ...", flush=True)
    seconds = SECONDS.get(name.removesuffix("-bf16"), SECONDS_ELSEWHERE)
    begin = time.perf_counter()
    result = call(rounds.run, case, _seconds(seconds, quick, shrink))
    print(f"    {time.perf_counter() - begin:.0f} s", flush=True)
    return result


def _visit(
    names: tuple[str, ...], threads: list[int], quick: bool, shrink: int
) -> list[dict[str, Any]]:
    """Return the results of training each model with each number of threads; none if not asked."""
    if "loop" not in names:
        return []
    return [_loop(lesson, number, quick, shrink) for number in threads for lesson in models.LESSONS]


def _loop(lesson: models.Lesson, number: int, quick: bool, shrink: int) -> Any:
    print(f"training: {lesson.title}, {number} threads ...", flush=True)
    # A test needs no compilers, which take their time for tensors of any size.
    names = list(loop.OWN if shrink > 1 else loop.CONTENDERS)
    with worker.process(number) as call:
        return call(loop.measure, lesson, _seconds(SECONDS["loop"], quick, shrink), names)


def _seconds(usually: float, quick: bool, shrink: int) -> float:
    """Return how long a field is timed; shrunk tensors are for tests, which need no times."""
    if shrink > 1:
        return 0.0
    return min(usually, SECONDS_QUICK) if quick else usually
