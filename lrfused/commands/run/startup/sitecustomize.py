"""Enter every Python process of `lrfused run`: Python imports a module of this name at its start.

Until torch is imported, only the standard library is used: the script decides when that is, and
sets environment variables before. A script may start an older Python, which also comes here.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import sys
import time
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_STARTED = time.monotonic()
_HERE = Path(__file__).resolve().parent
_ROOT = str(_HERE.parents[3])  # the folder that has the package lrfused
_OLDEST = (3, 10)  # of the Pythons that lrfused supports
_SETTINGS = os.environ.get("LRFUSED_RUN") if sys.version_info >= _OLDEST else None


class _AfterTorch:
    """Find torch as the other finders do, and install `lrfused run` after its import."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return torch's spec, None for any other module; scripts call this to look for torch."""
        if name != "torch":
            return None
        others = (finder for finder in sys.meta_path if finder is not cls)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            cls._wrap(spec.loader)
        return spec

    @classmethod
    def _wrap(cls, loader: Any) -> None:
        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            loader.exec_module(module)
            if cls in sys.meta_path:
                sys.meta_path.remove(cls)
                _process().install(json.loads(_SETTINGS or ""), _STARTED)

        loader.exec_module = exec_module


def _process() -> Any:
    # The script's own path need not have lrfused, or may have another.
    sys.path.insert(0, _ROOT)
    try:
        return importlib.import_module("lrfused.commands.run.process")
    finally:
        sys.path.remove(_ROOT)


def _finish() -> None:
    settings = json.loads(_SETTINGS or "")
    main = settings["main"] == os.getpid()
    installed = _AfterTorch not in sys.meta_path
    if installed or (main and Path(settings["records"]).is_dir()):
        process = _process()
        if not installed:
            process.install(settings, _STARTED)
        process.finish()
    elif main and not settings["torchs"]:
        print("lrfused run: the script did not import torch", file=sys.__stderr__)


def _run_the_next() -> None:
    """Run the sitecustomize that this one hides."""
    spec = PathFinder.find_spec("sitecustomize")
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


sys.path[:] = [folder for folder in sys.path if folder != str(_HERE)]
if _SETTINGS is not None:
    atexit.register(_finish)  # the first to be registered is the last to run
    sys.meta_path.insert(0, _AfterTorch)
_run_the_next()
