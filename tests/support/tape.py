"""A stand-in for a CUDA graph where there is no GPU, which counts uploads too."""

import torch

from lrfused import backends
from lrfused.backends.device import transfer
from support.inside import copies_on_devices, copy_on_the_host


def not_emulated(backend):
    """Return why a backend's kernels cannot be run on the CPU here, or None."""
    if torch.cuda.is_available():
        return "with a GPU, test_gpu.py runs the like of these"
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        return "torch itself does not fuse with ATEN_CPU_CAPABILITY=default, and the kernels do"
    return backends.available()[backend]


def assert_the_device_agrees(program):
    """Compare every device's own copy of the schedule's state with the host's."""
    for device in copies_on_devices(program).values():
        for name, host in copy_on_the_host(program).items():
            there = device[name][: host.numel()].reshape(host.shape)
            assert repr(there.tolist()) == repr(host.tolist()), name


class TritonTape:
    """Launches of Triton's kernels; while it records they are noted instead of run."""

    def __init__(self, monkeypatch):
        from lrfused.backends.triton import launch, schedule_copy, tables

        self._recording, self._noted, self._run = False, [], launch.launch
        for module in (tables, schedule_copy):
            monkeypatch.setattr(module, "launch", self._launch)

    def _launch(self, *args, **constants):
        if self._recording:
            self._noted.append((args, constants))
        else:
            self._run(*args, **constants)

    def __len__(self):
        return len(self._noted)

    def begin(self):
        self._recording, self._noted = True, []

    def end(self):
        self._recording = False

    def replay(self):
        for args, constants in self._noted:
            self._run(*args, **constants)


class CudaTape:
    """Launches of the emulated CUDA kernels; while it records they are noted instead of run."""

    def __init__(self):
        from lrfused import _C

        self._extension, self._noted = _C, _C.Tape()

    def __len__(self):
        return len(self._noted)

    def begin(self):
        self._noted = self._extension.Tape()
        self._extension.record_to(self._noted)

    def end(self):
        self._extension.record_to(None)

    def replay(self):
        self._noted.replay()


class Tape:
    """Stand in for a CUDA graph: while it records, kernels are noted instead of run."""

    def __init__(self, monkeypatch):
        self.recording, self.uploads = False, 0
        self._tapes = []
        if not_emulated("triton") is None:
            self._tapes.append(TritonTape(monkeypatch))
        if not_emulated("cuda") is None:
            self._tapes.append(CudaTape())
        copy = transfer.upload

        def upload(*args):
            assert not self.recording, "nothing may be uploaded inside a capture"
            self.uploads += 1
            copy(*args)

        monkeypatch.setattr(transfer, "capturing", lambda device: self.recording)
        monkeypatch.setattr(transfer, "upload", upload)

    def __len__(self):
        return sum(len(tape) for tape in self._tapes)

    def capture(self, step):
        self.recording = True
        for tape in self._tapes:
            tape.begin()
        try:
            step()
        finally:
            for tape in self._tapes:
                tape.end()
            self.recording = False

    def replay(self):
        for tape in self._tapes:
            tape.replay()
