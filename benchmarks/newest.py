"""Find the newest results of `bench_step.py`."""

import hashlib
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def newest_path(folder: Path = RESULTS) -> Path:
    """Return the file of a folder's newest results."""
    return max(folder.glob("step-*.json"), key=lambda path: json.loads(path.read_text())["date"])


def newest(folder: Path = RESULTS) -> tuple[dict[str, Any], str]:
    """Return the newest results of a folder, and the digest of their file."""
    content = newest_path(folder).read_bytes()
    return json.loads(content), hashlib.sha256(content).hexdigest()
