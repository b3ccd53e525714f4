"""The code on a page of the documentation: found, and run as its reader would run it.

    python -W error tests/support/pages.py docs/tutorial.md

runs the page's python blocks in order, in one module. A block that has lines beginning with
`# >` must print these lines. A block with a title is no code to run but a quotation of that file.
"""

import contextlib
import io
import re
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^```(\w*)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its first line of code."""

    language: str
    title: str | None
    code: str
    line: int

    @property
    def runs(self) -> bool:
        return self.language == "python" and self.title is None

    @property
    def printed(self) -> str:
        return "".join(re.findall(r"^# > ?(.*\n)", self.code, re.MULTILINE))


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(*match.groups(), line=text.count("\n", 0, match.start()) + 2)
        for match in _FENCE.finditer(text)
    ]


def run(page: Path) -> None:
    module = types.ModuleType(f"page_{page.stem}")  # a page about skorch imports skorch
    sys.modules[module.__name__] = module  # the page may import itself by name
    try:
        _run(page, vars(module))
    finally:  # all that the page imported stays: some modules cannot be imported twice
        del sys.modules[module.__name__]


def _run(page: Path, namespace: dict[str, Any]) -> None:
    for block in filter(lambda block: block.runs, blocks(page)):
        # As many empty lines before it as the page has, so that errors name the page's line.
        code = compile("\n" * (block.line - 1) + block.code, page, "exec")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, namespace)
        if block.printed and block.printed != out.getvalue():
            raise AssertionError(
                f"{page}:{block.line} is to print\n{block.printed}and prints\n{out.getvalue()}"
            )
        print(out.getvalue(), end="")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
