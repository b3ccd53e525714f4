"""Validate every contender, then time it; print the tables, and keep the numbers if asked."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import CASES, contenders, report, schedule_cost, shapes, tables
from .timing import interleave


def run_case(case: contenders.Case, seconds: float) -> dict[str, Any]:
    """Validate one case, then time its contenders and the in-place pass together."""
    print(f"{case.title}: validating ...", flush=True)
    field, oracle = contenders.build(case)
    distances = contenders.validate(case, field, oracle)
    ulps = ", ".join(f"{name} {d['max_ulp']:,}" for name, d in distances.items())
    print(f"{case.title}: largest distance to {oracle.name} in ulp: {ulps}; timing ...", flush=True)
    del oracle  # where it is no contender, it need not hold memory
    yardstick = torch.ones(shapes.elements(shapes.resnet50()))
    calls: dict[str, Callable[[], object]] = {c.name: c.step for c in field}
    calls[report.YARDSTICK] = lambda: yardstick.mul_(0.9999999)
    return {
        "title": case.title,
        "elements": case.elements,
        "bytes_per_element": case.bytes_per_element,
        "yardstick_elements": yardstick.numel(),
        "distances": distances,
        "timings": interleave(calls, seconds=seconds),
    }


def run(options: argparse.Namespace, results: Path | None = None) -> int:
    """Run the cases asked for; return 1 when lrfused's bits are not the oracle's.

    `results` is a folder of a git checkout, where the numbers go unless `--json` says otherwise;
    without it they are written only where that says.
    """
    names = options.case or list(CASES)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads or before)
    try:
        return _run(options, names, results)
    finally:
        torch.set_num_threads(before)


def _run(options: argparse.Namespace, names: list[str], results: Path | None) -> int:
    print(
        f"lrfused's {contenders.fastest()} backend beside torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {report.cpu_model()}"
    )
    cases: dict[str, dict[str, Any]] = {}
    schedule = None
    try:
        for case in contenders.CASES:
            if case.name in names:
                cases[case.name] = run_case(case, seconds=3 if options.quick else 22)
        if "schedule" in names:
            print("schedules: validating, timing ...", flush=True)
            schedule = schedule_cost.measure(seconds=0.5 if options.quick else 4)
    except AssertionError as difference:
        print(f"NOT TIMED: {difference}", file=sys.stderr)
        return 1
    path = options.json or (results and report.default_path(results))
    print()
    if cases:
        tables.step_table(cases)
    if schedule:
        tables.schedule_table(schedule)
    tables.target_lines(report.targets(cases, schedule))
    if path:
        given = {"quick": options.quick, "threads": options.threads, "cases": names}
        report.save(path, cases, schedule, given, checkout=results)
        print(f"written to {path}")
    return 0
