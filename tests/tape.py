"""A stand-in for a CUDA graph where there is no GPU, which counts uploads too."""

import pytest
import torch

from lrfused.backends import available

if available()["triton"]:
    reason = f"the triton backend is not available: {available()['triton']}"
    pytest.skip(reason, allow_module_level=True)

from lrfused.backends.device import transfer
from lrfused.backends.triton import launch, mirror, tables

interpreted = [
    pytest.mark.skipif(
        not launch.INTERPRETED, reason="with a GPU, test_triton_gpu.py runs the like of these"
    ),
    pytest.mark.skipif(
        torch.backends.cpu.get_cpu_capability() == "DEFAULT",
        reason="torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and Triton does",
    ),
]


def mirror_of(optimizer):
    (only,) = optimizer._rates.program._mirrors.values()
    return only


def assert_the_device_agrees(program):
    """Compare every device's own copy of the schedule's state with the host's."""
    for device in program._mirrors.values():
        for name, host in program._moving.items():
            there = device[name][: host.numel()].reshape(host.shape)
            if name == "plateau states":
                host = host[program._order]
            assert repr(there.tolist()) == repr(host.tolist()), name


class Tape:
    """Stand in for a CUDA graph: while it records, kernels are noted instead of run."""

    def __init__(self, monkeypatch):
        self.recording, self.calls, self.uploads = False, [], 0
        run, copy = launch.launch, transfer.upload

        def note(*args, **constants):
            if self.recording:
                self.calls.append((args, constants))
            else:
                run(*args, **constants)

        def upload(*args):
            assert not self.recording, "nothing may be uploaded inside a capture"
            self.uploads += 1
            copy(*args)

        monkeypatch.setattr(transfer, "capturing", lambda device: self.recording)
        for module in (tables, mirror):
            monkeypatch.setattr(module, "launch", note)
        monkeypatch.setattr(transfer, "upload", upload)
        self._run = run

    def capture(self, step):
        self.recording, self.calls = True, []
        try:
            step()
        finally:
            self.recording = False

    def replay(self):
        for args, constants in self.calls:
            self._run(*args, **constants)
