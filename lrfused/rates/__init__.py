"""The learning rates of an optimizer's groups."""

from .rates import Rates

__all__ = ["Rates"]
