"""The learning rates of an optimizer's groups: who moves them, and who shows them."""

from .rates import Rates

__all__ = ["Rates"]
