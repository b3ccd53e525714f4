"""Validate lrfused against torch bit for bit, then time the optimizer step beside torch's."""

import argparse

from ..arguments import at_least_one, file

CASES = ("resnet50", "resnet50-bf16", "small", "large", "schedule")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options; `run.run` takes what they parse to."""
    parser.add_argument("--quick", action="store_true", help="fewer rounds: noisy numbers")
    parser.add_argument(
        "--threads", type=at_least_one, help="threads for torch and lrfused (default: torch's)"
    )
    parser.add_argument(
        "--case", action="append", choices=CASES, help="only this case (may be repeated)"
    )
    parser.add_argument(
        "--json", type=file, metavar="FILE", help="where to write every number measured"
    )
