"""Compile the extension for the cache when imported: the process that build.py starts.

Its arguments are the folder to compile in, and the entry to publish as.
"""

import os
import sys
from pathlib import Path

from . import cache, compile

os.chdir(cache.CSRC.parent)
folder, entry = map(Path, sys.argv[1:])
compile.build_into(str(folder))
cache.publish(folder / "lrfused", entry)
cache.sweep(entry)
