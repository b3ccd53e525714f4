"""The demo: a small network trained with each of six schedules, in lock step with torch."""

from .demo import run

__all__ = ["run"]
