"""Run `lrfused bench`, and keep the numbers in results/ with the commit they belong to."""

import argparse
import sys
from pathlib import Path

from lrfused.commands import bench
from lrfused.commands.bench import run

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=bench.__doc__)
    bench.add_arguments(parser)
    return run.run(parser.parse_args(), results=RESULTS)


if __name__ == "__main__":
    sys.exit(main())
