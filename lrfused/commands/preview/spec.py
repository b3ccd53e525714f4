"""Read a schedule from a short text, or from a Python file."""

from __future__ import annotations

import ast
import difflib
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ... import schedules
from ...schedules import Schedule
from ...schedules.base import as_schedules
from ..arguments import CommandError

NAMES: dict[str, Callable[..., Schedule]] = {
    name: getattr(schedules, name)
    for name in schedules.__all__
    if name not in ("Adopted", "Schedule")
}
_IN_A_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def read(spec: str) -> tuple[Schedule, ...]:
    """Read `spec`: a call such as "StepLR(30)", a list of calls, or config.py:NAME.

    A call has one of `NAMES`; its arguments are calls, lists and literals. Nothing else is
    evaluated. Raises CommandError.
    """
    place = _IN_A_FILE.fullmatch(spec)
    made = _from_file(*place.groups()) if place else _from_text(spec)
    try:
        found = as_schedules(made)
    except TypeError as error:
        raise CommandError(f"SPEC: {error}") from error
    if found is None:
        raise CommandError(f"SPEC must be a schedule or a list of them, got {spec!r}")
    return found


def _from_text(spec: str) -> Any:
    try:
        return _value(ast.parse(spec.strip(), mode="eval").body)
    except SyntaxError as error:
        raise CommandError(f"SPEC must be a call such as StepLR(30), got {spec!r}") from error
    except (RecursionError, MemoryError) as error:
        raise CommandError("SPEC is nested too deeply") from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return _call(name, node)
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Constant(value=bool() | int() | float() | str() | None):
            return node.value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if name in NAMES:
            raise CommandError(f"SPEC: {name} needs its arguments, as in {name}(...)")
    raise CommandError(
        f"SPEC may hold schedules, lists, numbers and strings, got {ast.unparse(node)}; "
        "what needs more goes into a file: config.py:NAME"
    )


def _call(name: str, node: ast.Call) -> Schedule:
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        raise CommandError(f"SPEC: no schedule is called {name}; {hint}")
    positional = [_value(argument) for argument in node.args]
    keywords = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise CommandError(f"SPEC may not hold **, got {ast.unparse(node)}")
        keywords[keyword.arg] = _value(keyword.value)
    try:
        return NAMES[name](*positional, **keywords)
    except (TypeError, ValueError) as error:
        raise CommandError(f"SPEC: {name}: {one_line(error)}") from error


def _from_file(path: str, name: str) -> Any:
    if not Path(path).is_file():
        raise CommandError(f"SPEC must name a file that exists, got {path}")
    folder = str(Path(path).resolve().parent)
    sys.path.insert(0, folder)  # as for `python file.py`
    try:
        attributes = runpy.run_path(path)
    except (Exception, SystemExit) as error:
        raise CommandError(
            f"SPEC: {path} raised {type(error).__name__}: {one_line(error)}"
        ) from error
    finally:
        sys.path.remove(folder)
    if name not in attributes:
        there = [n for n, v in attributes.items() if isinstance(v, (Schedule, list, tuple))]
        raise CommandError(
            f"SPEC: {path} has no {name}; it has {', '.join(there) or 'no schedule'}"
        )
    return attributes[name]


def one_line(error: BaseException) -> str:
    """Return an error's first line."""
    return str(error).partition("\n")[0]
