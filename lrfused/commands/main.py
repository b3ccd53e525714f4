"""Run lrfused's commands: `lrfused <command>`, or `python -m lrfused <command>`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import backends
from . import arguments, bench
from . import run as run_script
from .arguments import CommandError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command named in `argv` (by default the process's own) and return its exit status."""
    parser = _parser()
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_demo(commands)
    _add_build(commands)
    _add_info(commands)
    _add_verify(commands)
    _add_preview(commands)
    _add_bench(commands)
    _add_run(commands)
    args = parser.parse_args(argv)
    try:
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        # Python must not try again to write the rest when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CommandError as error:
        print(f"lrfused {args.command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in args.needs:
            raise
        print(
            f"lrfused {args.command} needs {missing}: pip install lrfused[{args.extra}]",
            file=sys.stderr,
        )
        return 2


def _parser() -> argparse.ArgumentParser:
    return arguments.Parser(
        prog="lrfused", description="SGD and its learning-rate schedule in one fused step."
    )


def _add_demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "train a small network with each of the six schedules, in lock step with torch"
    parser = commands.add_parser("demo", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--epochs", type=arguments.at_least_one, default=20, help="default: %(default)s"
    )
    parser.add_argument(
        "--out",
        type=arguments.file,
        default=Path("lr-curves.png"),
        metavar="FILE",
        help="where to draw the rates (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(run=_run_demo, extra="demo", needs={"sklearn", "matplotlib", "rich"})


def _add_build(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "compile the extension for this torch now, before the first optimizer does"
    parser = commands.add_parser("build", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--again", action="store_true", help="even if it is compiled already, or failed before"
    )
    parser.set_defaults(run=_run_build, extra="cli", needs=set())


def _run_build(args: argparse.Namespace) -> int:
    from . import build

    return build.run(again=args.again)


def _add_info(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "print which backends are there, which would run where, and why the others would not"
    parser = commands.add_parser("info", help=text, description=text.capitalize() + ".")
    parser.set_defaults(run=_run_info, extra="cli", needs=set())


def _run_info(args: argparse.Namespace) -> int:
    from . import info  # here, since it imports every backend there is

    return info.run()


def _run_demo(args: argparse.Namespace) -> int:
    from . import demo  # here, since it needs the optional packages

    return demo.run(epochs=args.epochs, out=args.out, seed=args.seed)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "compare every backend with torch on this machine and its devices, bit for bit"
    parser = commands.add_parser("verify", help=text, description=text.capitalize() + ".")
    parser.add_argument(
        "--quick", action="store_true", help="fewer steps, one thread: under 30 s on a CPU"
    )
    parser.add_argument(
        "--backend", choices=backends.names(), help="only this one (default: all there are)"
    )
    parser.add_argument(
        "--device", help="only this one, cpu or cuda:0, say (default: all there are)"
    )
    parser.set_defaults(run=_run_verify, extra="cli", needs={"rich"})


def _run_verify(args: argparse.Namespace) -> int:
    from . import verify  # here, since it needs the optional packages

    return verify.run(quick=args.quick, backend=args.backend, device=args.device)


def _add_preview(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "draw the learning rate of any schedule, before a run is paid for"
    parser = commands.add_parser(
        "preview",
        help=text,
        description=text.capitalize() + ": in the terminal, or with --out to a file.",
        epilog="SPEC is a call such as 'CosineAnnealingLR(100)' or 'warmup(StepLR(30), 5)', with "
        "lrfused's names; a list of calls, applied in order; or config.py:NAME, a schedule or a "
        "list of them in a file, where functions may be used too.",
    )
    parser.add_argument("spec", metavar="SPEC", help="what to draw, see below")
    parser.add_argument(
        "--lr", type=arguments.rate, default=0.1, help="the initial rate (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=arguments.at_least_one,
        help="schedule steps to draw (default: to the schedule's end, or 100 where it has none)",
    )
    parser.add_argument(
        "--out",
        type=arguments.picture,
        metavar="FILE",
        help="draw to this .png or .svg with matplotlib, not in the terminal",
    )
    parser.add_argument("--log", action="store_true", help="rates on a logarithmic axis")
    parser.set_defaults(run=_run_preview, extra="plot", needs={"matplotlib"})


def _run_preview(args: argparse.Namespace) -> int:
    from . import preview

    return preview.run(args.spec, lr=args.lr, steps=args.steps, out=args.out, log=args.log)


def _add_bench(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "validate, then time the optimizer step beside torch's, on this machine"
    parser = commands.add_parser("bench", help=text, description=text.capitalize() + ".")
    bench.add_arguments(parser)
    parser.set_defaults(run=_run_bench, extra="cli", needs=set())


def _run_bench(args: argparse.Namespace) -> int:
    from .bench import run

    return run.run(args)


def _add_run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    text = "run a training script unedited, with FusedDecaySGD making its SGD's steps"
    parser = commands.add_parser("run", help=text, description=f"{text[0].upper()}{text[1:]}.")
    run_script.add_arguments(parser)
    parser.set_defaults(run=_run_script, extra="cli", needs=set())


def _run_script(args: argparse.Namespace) -> int:
    from .run import launch

    return launch.run(args)
