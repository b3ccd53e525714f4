"""The process that build.py starts."""

import os
import sys
from pathlib import Path

from . import cache, compile


def main() -> None:
    """Compile in the folder that is the first argument; publish as the entry that is the second."""
    folder, entry = map(Path, sys.argv[1:])
    os.chdir(cache.CSRC.parent)
    compile.build_into(str(folder))
    cache.publish(folder / "lrfused", entry)
    cache.sweep(entry)
