"""Run a training script unedited; FusedDecaySGD makes the steps of its torch.optim.SGD."""

import argparse

from ..arguments import at_least_one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options, which `launch.run` takes."""
    parser.add_argument(
        "--check",
        type=at_least_one,
        default=0,
        metavar="N",
        help="compare every bit of the first N steps, and of N/2 more in each doubling of the "
        "run, with torch's for-loop; exit status 1 if any differs",
    )
    parser.add_argument(
        "--baseline", action="store_true", help="run the script with torch's own SGD first"
    )
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is a module's name")
    parser.add_argument(  # one positional: argparse would drop a `--` between two
        "script",
        nargs=argparse.PARSER,
        metavar="SCRIPT",
        help="a file, as for python, and its own arguments",
    )
