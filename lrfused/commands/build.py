"""Compile the extension for the torch that is there, before the first optimizer asks for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..extension import build, build_record
from .arguments import CommandError


def run(*, again: bool) -> int:
    """Compile it where the one installed with lrfused does not fit; print which is used."""
    if build_record.reason_not_to_load(build_record.read()) is None:
        print("lrfused build: the extension that was installed with lrfused fits this torch")
        return 0
    try:
        with _progress() as tell:
            path = build.obtain(ahead=True, again=again, tell=tell)
    except (build.NotBuilt, ValueError) as error:
        raise CommandError(str(error)) from error
    print(f"lrfused build: {path}")
    return 0


@contextlib.contextmanager
def _progress() -> Iterator[build.Tell | None]:
    """Yield a function that draws the progress of a build; None without rich."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:  # lrfused[cli] brings it
        yield None
        return
    progress = Progress(console=Console(stderr=True))
    task = progress.add_task("compiling", total=None)

    def tell(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total or None)

    try:
        yield tell
    finally:
        if progress.live.is_started:
            progress.stop()
