"""A stand-in for a CUDA graph where there is no GPU, which counts uploads too."""

import pytest
import torch

from lrfused.backends import available

if available()["triton"] or available()["cuda"]:
    pytest.skip("the backends triton and cuda are not both available", allow_module_level=True)

from lrfused import _C
from lrfused.backends.cuda import driver
from lrfused.backends.device import transfer
from lrfused.backends.triton import launch, mirror, tables

emulated = [
    pytest.mark.skipif(
        not (launch.INTERPRETED and driver.EMULATED),
        reason="with a GPU, test_gpu.py runs the like of these",
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
        self.recording, self.uploads = False, 0
        self._triton, self._cuda = [], _C.Tape()
        run, copy = launch.launch, transfer.upload

        def note(*args, **constants):
            if self.recording:
                self._triton.append((args, constants))
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

    def __len__(self):
        return len(self._triton) + len(self._cuda)

    def capture(self, step):
        self.recording, self._triton, self._cuda = True, [], _C.Tape()
        _C.record_to(self._cuda)
        try:
            step()
        finally:
            _C.record_to(None)
            self.recording = False

    def replay(self):
        for args, constants in self._triton:
            self._run(*args, **constants)
        self._cuda.replay()
