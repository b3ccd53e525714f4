"""Run lrfused's commands: `lrfused <command>`, or `python -m lrfused <command>`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named in `argv` (by default the process's own) and give its exit status."""
    parser = argparse.ArgumentParser(
        prog="lrfused", description="SGD and its learning-rate schedule in one fused step."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_demo(commands)
    _add_info(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in args.needs:
            raise
        print(
            f"lrfused {args.command} needs {missing}: pip install lrfused[{args.extra}]",
            file=sys.stderr,
        )
        return 2


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "train a small network with each of the six schedules, in lock step with torch"
    parser = commands.add_parser("demo", help=text, description=text.capitalize() + ".")
    parser.add_argument("--epochs", type=_at_least_one, default=20, help="default: %(default)s")
    parser.add_argument(
        "--out",
        type=_file,
        default=Path("lr-curves.png"),
        metavar="FILE",
        help="where to draw the rates (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(run=_run_demo, extra="demo", needs={"sklearn", "matplotlib", "rich"})


def _add_info(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "print which backends are there, which would run where, and why the others would not"
    parser = commands.add_parser("info", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=_run_info, extra="demo", needs=set())


def _run_info(args: argparse.Namespace) -> int:
    from lrfused import info  # here, since it imports every backend there is

    return info.run()


def _run_demo(args: argparse.Namespace) -> int:
    from lrfused import demo  # here, since it needs the optional packages

    return demo.run(epochs=args.epochs, out=args.out, seed=args.seed)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text}")
    return path


if __name__ == "__main__":
    sys.exit(main())
