"""Count the bytes that steps with clipping or masters move and keep, then time them."""

import argparse
import sys
from pathlib import Path

import torch

from lrfused.commands.bench import report, traffic

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=traffic.__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: noisy times")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the numbers")
    options = parser.parse_args()
    path = report.default_path(RESULTS)
    path = path.with_name(path.name.replace("step-", "traffic-", 1))
    try:
        traffic.run(2 if options.quick else 20, options.json or path, checkout=RESULTS)
    except AssertionError as difference:
        print(f"NOT TIMED: {difference}", file=sys.stderr)
        return 1
    print(f"{torch.get_num_threads()} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
