"""Compile the extension for the cache: the process that build.py starts.

python -m lrfused.extension FOLDER ENTRY compiles in a folder and publishes as an entry.
"""

import os
import sys
from pathlib import Path

from . import cache, compile

os.chdir(cache.CSRC.parent)
folder, entry = map(Path, sys.argv[1:])
compile.build_into(str(folder))
cache.publish(folder / "lrfused", entry)
