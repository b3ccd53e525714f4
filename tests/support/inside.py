"""The private parts that tests look at, reached from here alone: where they change, this changes.

All else is tested by what a user can see.
"""

from typing import Any

import pytest
import torch

from lrfused import FusedDecaySGD, backends
from lrfused.backends import trust


def program_of(optimizer: FusedDecaySGD) -> Any:
    """Return the program that moves an optimizer's rates, on the host or also on devices."""
    return optimizer._internals.rates.program


def end_the_window(optimizer: FusedDecaySGD) -> None:
    """Let the program of an optimizer have one schedule step left."""
    program = program_of(optimizer)
    getattr(program, "_host_program", program).left = 1


def advance_of(optimizer: FusedDecaySGD) -> Any:
    """Return the call that scheduler.step() makes, for millions of them."""
    return optimizer._internals.rates.advance


def pretend_it_was_on(optimizer: FusedDecaySGD, device: str) -> None:
    """Let an optimizer find at its next step that its model came from another device."""
    optimizer._internals.device = torch.device(device)
    optimizer._internals.rates.direct = None  # it would find parameters that it cannot take


def copies_on_devices(program: Any) -> dict[torch.device, dict[str, torch.Tensor]]:
    """Return each device's copy of the tensors that a program moves; none before a first step."""
    return program._copies


def copy_on_the_host(program: Any) -> dict[str, torch.Tensor]:
    """Return the host's copy of the same tensors, in the order of the devices' copies."""
    return {name: program._as_there(name) for name in program._moving}


def forget_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget which backends passed their self-test, and what was warned of, as a new process."""
    monkeypatch.setattr(trust, "_verdicts", {})
    backends._warn_once.cache_clear()


def verdicts() -> dict[tuple[str, torch.device], trust.Verdict]:
    """Return the verdicts of this process by backend and device; they may be written."""
    return trust._verdicts


def prefer(monkeypatch: pytest.MonkeyPatch, *names: str, device_type: str = "cpu") -> None:
    """Let "auto" try these backends on devices of a type, in this order."""
    right = backends.preferences
    monkeypatch.setattr(
        backends, "preferences", lambda asked: names if asked == device_type else right(asked)
    )


def lock_of_trust() -> Any:
    """Return the lock that a thread holds while it runs a self-test."""
    return trust._lock


def start_without_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register backends, which are forgotten with their verdicts when it ends."""
    monkeypatch.setattr(backends, "_registered", [])
    own = {record.name for record in backends.RECORDS}
    found = {key: verdict for key, verdict in trust._verdicts.items() if key[0] in own}
    monkeypatch.setattr(trust, "_verdicts", found)
