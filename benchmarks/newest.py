"""Find the newest results of `bench_step.py`."""

import hashlib
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def newest(folder: Path = RESULTS) -> tuple[dict[str, Any], str]:
    """Return the newest results of a folder, and the digest of their file."""
    read = [(json.loads(path.read_text()), path) for path in folder.glob("step-*.json")]
    content, path = max(read, key=lambda pair: pair[0]["date"])
    return content, hashlib.sha256(path.read_bytes()).hexdigest()
