"""torchvision, also where its operators were compiled for a CUDA that this torch lacks.

Models, transforms and data sets need none of the operators; torchvision's import needs their names.
"""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library lasts as long as its object


def package() -> ModuleType | None:
    """Import torchvision, if need be without its operators; None where it is missing."""
    if find_spec("torchvision") is None:
        return None
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist"
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _declared.append(library)
        return importlib.import_module("torchvision")
