"""Compile torch schedulers to segments; maps.py holds the formula of each.

A schedule step of any torch scheduler is one affine map of the rate, or a few in a row,

    lr = x * (lr - a) + b        (relative)
    lr = x * a + b               (absolute)

applied at the epochs begin, begin + every, ... below end, with x a constant or a table by epoch.
The expressions for x, a and b are torch's own, so the results are torch's to the last bit. Closed
forms would give other bits, and so would the cosines of another libm. csrc/schedule.h runs them.
"""

from .compositions import (
    compile,
    compiles,
    copied,
    cycles_momentum,
    forward,
    last_epoch,
    set_counters,
    set_last_epoch,
    show_rates,
    unknown,
)
from .plateau import plateau_row, plateau_state, set_plateau_state
from .recording import record
from .segment import FOREVER, CompiledSchedule, Segment
from .tables import ProgramTables, pack, rows

__all__ = [
    "FOREVER",
    "CompiledSchedule",
    "ProgramTables",
    "Segment",
    "compile",
    "compiles",
    "copied",
    "cycles_momentum",
    "forward",
    "last_epoch",
    "pack",
    "plateau_row",
    "plateau_state",
    "record",
    "rows",
    "set_counters",
    "set_last_epoch",
    "set_plateau_state",
    "show_rates",
    "unknown",
]
