"""Validate lrfused against torch bit for bit, then time the optimizer step beside torch's."""

import argparse
import sys
from pathlib import Path
from typing import Any

import contenders
import report
import schedule_cost
import shapes
import tables
import torch
from timing import interleave


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [case.name for case in contenders.CASES] + ["schedule"]
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisy numbers")
    parser.add_argument("--threads", type=int, help="threads for torch and lrfused")
    parser.add_argument(
        "--case", action="append", choices=names, help="only this case (may be repeated)"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the results")
    options = parser.parse_args(arguments)
    options.case = options.case or names
    return options


def run_case(case: contenders.Case, seconds: float) -> dict[str, Any]:
    """Validate one case, then time its contenders and the in-place pass together."""
    print(f"{case.title}: validating ...", flush=True)
    field, oracle = contenders.build(case)
    distances = contenders.validate(case, field, oracle)
    ulps = ", ".join(f"{name} {d['max_ulp']:,}" for name, d in distances.items())
    print(f"{case.title}: largest distance to {oracle.name} in ulp: {ulps}; timing ...", flush=True)
    del oracle  # where it is no contender, it need not hold memory
    yardstick = torch.ones(shapes.elements(shapes.resnet50()))
    calls = {report.YARDSTICK: lambda: yardstick.mul_(0.9999999)}
    calls |= {contender.name: contender.step for contender in field}
    return {
        "title": case.title,
        "elements": case.elements,
        "bytes_per_element": case.bytes_per_element,
        "yardstick_elements": yardstick.numel(),
        "distances": distances,
        "timings": interleave(calls, seconds=seconds),
    }


def main() -> int:
    """Run the cases asked for; exit with 1 when lrfused's bits are not the oracle's."""
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    cases: dict[str, dict[str, Any]] = {}
    schedule = None
    try:
        for case in contenders.CASES:
            if case.name in options.case:
                cases[case.name] = run_case(case, seconds=3 if options.quick else 22)
        if "schedule" in options.case:
            print("schedules: validating, timing ...", flush=True)
            schedule = schedule_cost.measure(seconds=0.5 if options.quick else 4)
    except AssertionError as difference:
        print(f"NOT TIMED: {difference}", file=sys.stderr)
        return 1
    path = options.json or report.default_path()
    given = {"quick": options.quick, "threads": options.threads, "cases": options.case}
    report.save(path, cases, schedule, given)
    print()
    if cases:
        tables.step_table(cases)
    if schedule:
        tables.schedule_table(schedule)
    tables.target_lines(report.targets(cases, schedule))
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
