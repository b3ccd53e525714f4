"""Validate lrfused against torch bit for bit, then time its step and training beside rivals."""

import argparse

from ..arguments import at_least_one, file

STEPS = tuple(
    name + dtype
    for name in ("resnet50", "vit-l16", "gpt2-medium", "small", "large")
    for dtype in ("", "-bf16")
)
OTHERS = ("loop", "threads", "growth", "schedule", "memory", "import")
CASES = (*STEPS, *OTHERS)
QUICK = ("resnet50", "resnet50-bf16", "small", "schedule", "import")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the benchmark's options, which `run.run` takes."""
    parser.add_argument(
        "--quick", action="store_true", help=f"few rounds, noisy numbers; only {', '.join(QUICK)}"
    )
    parser.add_argument(
        "--threads",
        type=at_least_one,
        action="append",
        help="threads of everyone; may be repeated (default: 1, and torch's)",
    )
    parser.add_argument(
        "--case", action="append", choices=CASES, help="only this case; may be repeated"
    )
    parser.add_argument(
        "--json", type=file, metavar="FILE", help="where to write every number measured"
    )
    parser.add_argument("--shrink", type=at_least_one, default=1, help=argparse.SUPPRESS)
