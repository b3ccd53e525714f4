"""timm.scheduler, also where the rest of timm cannot be imported for want of a torchvision.

    python tests/support/bare_timm.py examples/timm_schedule.py

runs a script that imports timm.scheduler.
"""

import importlib
import runpy
import sys
from importlib.util import find_spec, module_from_spec


def schedulers():
    """Import timm.scheduler, without the rest where that fails; None where timm is missing."""
    spec = find_spec("timm")
    if spec is None:
        return None
    try:
        return importlib.import_module("timm.scheduler")
    except (ImportError, RuntimeError):  # no torchvision, or one made for another torch
        sys.modules["timm"] = module_from_spec(spec)
        return importlib.import_module("timm.scheduler")


if __name__ == "__main__":
    schedulers()
    runpy.run_path(sys.argv[1], run_name="__main__")
