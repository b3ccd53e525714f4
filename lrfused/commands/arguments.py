"""Read the arguments of a command line; an error is one line."""

import argparse
import math
from pathlib import Path
from typing import NoReturn


class CommandError(Exception):
    """Report in one line why a command cannot be carried out: the argument and the rule."""


class Parser(argparse.ArgumentParser):
    """Parse arguments; an error is one line on stderr, without the usage, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least_one(text: str) -> int:
    """Read an integer above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def rate(text: str) -> float:
    """Read a learning rate: finite, and not below 0."""
    number = float(text)
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"must be finite and at least 0, got {text}")
    return number


def file(text: str) -> Path:
    """Read the path of a file that can be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, got {text}")
    return path


def picture(text: str) -> Path:
    """Read the path of a picture that can be written, .png or .svg."""
    path = file(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"must end in .png or .svg, got {text}")
    return path
