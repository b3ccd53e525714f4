"""Become the Python process that runs the script, after a first run with torch's own SGD if asked.

The process is replaced, so the script has its own: arguments, path, signals and exit status.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from ..arguments import CommandError
from .settings import VARIABLE, Settings

_STARTUP = str(Path(__file__).resolve().parent / "startup")
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run(args: argparse.Namespace) -> int:
    """Run the script; return only where a baseline fails."""
    if sys.flags.ignore_environment or sys.flags.no_site:
        raise CommandError("python's -E, -I and -S keep it out of the script's process")
    if args.baseline and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CommandError(
            "--baseline cannot run one rank twice; run the launcher under it instead: "
            "lrfused run --baseline -m torch.distributed.run ... script.py"
        )
    command = _python() + ["-m"] * args.module + args.script
    records = Path(tempfile.gettempdir()) / f"lrfused-run-{secrets.token_hex(8)}"
    baseline = None
    if args.baseline:
        baseline = f"{records}-first"
        status = _run_first(command, str(records), baseline)
        if status != 0:
            print(
                f"lrfused run: with torch's own SGD the script ends with status {status}; "
                "it was not run again",
                file=sys.stderr,
            )
            shutil.rmtree(baseline, ignore_errors=True)
            return status
    _execute(command, Settings(os.getpid(), str(records), args.check, baseline=baseline))


def _python() -> list[str]:
    options: Any = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    unbuffered = ["-u"] if getattr(sys.stdout, "write_through", False) else []
    return [sys.executable, *options, *unbuffered]


def _execute(command: list[str], settings: Settings) -> NoReturn:
    path = [_STARTUP, *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {"PYTHONPATH": os.pathsep.join(path), VARIABLE: settings.dumps()}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], command, {**os.environ, **changed})


def _run_first(command: list[str], records: str, baseline: str) -> int:
    """Run the script with torch's own SGD, which leaves records in a folder, `baseline`."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _execute(command, Settings(os.getpid(), records, torchs=True, baseline=baseline))
    # A terminal sends SIGINT to both; the script decides what it does.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for number in _FORWARDED:
        before[number] = signal.signal(number, lambda received, _: os.kill(child, received))
    _, status = os.waitpid(child, 0)
    for number, handler in before.items():  # nohup ignores SIGHUP, and so does the second run
        signal.signal(number, handler)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as the script did
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
