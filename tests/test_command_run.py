"""`lrfused run` runs real scripts: their output is their own, and the table says who made steps."""

import __future__

import atexit
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lrfused.commands.main import main
from lrfused.commands.run import launch
from lrfused.commands.run.settings import Settings

pytestmark = pytest.mark.backends("host", reason="the command leaves the backend to the optimizer")

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
RUN = ("-m", "lrfused", "run")


@pytest.fixture
def python(tmp_path):
    """Return a function that writes a script, runs python on it, and returns what was printed."""

    def run(script, *arguments, before=(), last=("script.py",)):
        (tmp_path / "script.py").write_text(script)
        return subprocess.run(
            [sys.executable, *before, *last, *arguments],
            cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run


OPTIMIZERS = """
import atexit, copy, hashlib, inspect, pickle, sys
import torch
from torch.optim import SGD
from torch.optim.sgd import SGD as Same

atexit.register(print, "the script's atexit")
print(sys.argv, sys.path[0], __file__, __name__, sys.modules["__main__"])

class Shaped(SGD):
    def __init__(self, params, rate=0.1):
        super().__init__(params, lr=rate, momentum=0.9, nesterov=True)

class Calls(SGD):
    def step(self, closure=None):
        self.param_groups[0]["lr"] *= 0.99
        return super().step(closure)

class Own(SGD):
    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p -= 0.1 * (0 if p.grad is None else p.grad)

def differentiable(params):
    return Same([p.detach() for p in params], lr=0.1, differentiable=True)

makers = [
    lambda params: torch.optim.SGD(params, lr=0.1),
    lambda params: getattr(torch.optim, "SGD")(params, lr=torch.tensor(0.1), momentum=0.9),
    lambda params: vars(torch.optim)["SGD"](params, 0.1, 0.9, 0.1, 0.01, maximize=True),
    Shaped, lambda params: Calls(params, lr=0.1, momentum=0.9), lambda params: Own(params, lr=0.1),
    differentiable,
]
print(inspect.signature(SGD), inspect.signature(Shaped), inspect.signature(SGD.step))

torch.manual_seed(0)
for make in makers:
    network = torch.nn.Sequential(
        torch.nn.Linear(8, 33), torch.nn.Dropout(0.5), torch.nn.Linear(33, 2)
    )
    optimizer = make(network.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)

    def closure():
        optimizer.zero_grad()
        loss = network(torch.randn(4, 8)).square().mean()
        loss.backward()
        for p in optimizer.param_groups[0]["params"]:
            if p.is_leaf and not p.requires_grad:
                p.grad = torch.ones_like(p)
        return loss

    for i in range(6):
        closure()
        optimizer.step()
        scheduler.step()
        if i == 2:
            optimizer = pickle.loads(pickle.dumps(optimizer)) if make is Own else optimizer
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    print(optimizer.step(closure))
    extra = torch.ones(5)
    optimizer.add_param_group({"params": [extra], "lr": 0.5})
    extra.grad = torch.randn(5)
    optimizer.step()
    assert isinstance(optimizer, torch.optim.SGD)
    twin = copy.deepcopy(optimizer)
    print(type(optimizer), type(twin), type(optimizer).__name__, repr(optimizer))
    print(optimizer.state_dict()["param_groups"])
    tensors = [p for g in optimizer.param_groups for p in g["params"]]
    tensors += [s["momentum_buffer"] for s in optimizer.state.values()]
    print(hashlib.sha1(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest())

before = torch.optim.SGD.step
calls = []
torch.optim.SGD.step = lambda self, closure=None: calls.append(1) or before(self, closure)
SGD([torch.ones(1, requires_grad=True)], lr=1.0).step()
print(calls, torch.randn(3))
"""


def test_a_script_prints_the_same_and_every_step_is_counted(python):
    """Names, subclasses, closures, schedulers, groups, checkpoints, copies, random numbers."""
    plain = python(OPTIMIZERS, "a", "--check", "1", "--", "-m")
    ours = python(OPTIMIZERS, "a", "--check", "1", "--", "-m", before=(*RUN, "--check", "3"))
    assert plain.returncode == ours.returncode == 0, ours.stderr
    assert ours.stdout == plain.stdout
    assert plain.stdout.endswith("the script's atexit\n")
    table = [re.sub(r" +", " ", line).strip() for line in ours.stderr.splitlines()]
    assert table[0] == "lrfused run: 6 of 8 optimizers replaced"
    rows = "\n".join(table)
    assert re.search(r"^4 SGD lrfused, \w+ 25 ", rows, re.MULTILINE)
    assert re.search(r"^Shaped lrfused, \w+ 8 ", rows, re.MULTILINE)
    assert re.search(r"^Calls lrfused, \w+ 8 ", rows, re.MULTILINE)
    assert "Own a step of its own — — — — —" in table
    assert re.search(r"^SGD torch: differentiable=True 8 .*%$", rows, re.MULTILINE)
    assert re.search(
        r"^\d+ of 41 steps compared with torch's for-loop: every bit equal$", rows, re.M
    )


ENDS = """
import atexit, os, signal, sys, time
atexit.register(print, "at the end")
how = sys.argv[1]
if how == "status":
    sys.exit(3)
if how == "_exit":
    os._exit(5)
if how == "signal":
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
"""


@pytest.mark.parametrize(("how", "status"), [("status", 3), ("_exit", 5), ("signal", -2)])
def test_a_script_ends_as_it_would(python, how, status):
    plain, ours = python(ENDS, how), python(ENDS, how, before=RUN)
    assert plain.returncode == ours.returncode == status
    assert ours.stdout == plain.stdout
    assert ours.stderr.startswith(plain.stderr)
    rest = ours.stderr.removeprefix(plain.stderr)
    assert rest == ("" if how == "_exit" else "lrfused run: the script did not import torch\n")


HIDDEN = """
import sitecustomize, sys
print(sitecustomize.MINE, sys.path, sys.warnoptions, sys.flags.optimize, "torch" in sys.modules)
"""


def test_a_sitecustomize_of_the_users_and_pythons_options_stay(python, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "sitecustomize.py").write_text("MINE = 'mine'")
    path = os.pathsep.join([str(tmp_path / "folder"), str(ROOT)])
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", path)
    plain, ours = (python(HIDDEN, before=("-O", "-W", "error", *run)) for run in ((), RUN))
    assert ours.stdout == plain.stdout
    assert plain.stdout.startswith("mine [")


@pytest.mark.parametrize(("version", "entered"), [((3, 9, 18), False), ((3, 10, 0), True)])
def test_an_older_python_runs_only_the_users_sitecustomize(tmp_path, monkeypatch, version, entered):
    (tmp_path / "sitecustomize.py").write_text("MINE = 'mine'")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setenv("LRFUSED_RUN", Settings(main=0, records="").dumps())
    monkeypatch.setitem(sys.modules, "sitecustomize", None)
    registered = []
    monkeypatch.setattr(atexit, "register", registered.append)
    before = len(sys.meta_path)
    startup = Path(launch._STARTUP) / "sitecustomize.py"
    code = compile(startup.read_text(), startup, "exec", dont_inherit=True)
    assert code.co_flags & __future__.annotations.compiler_flag  # they may be of a later Python
    exec(code, {"__name__": "startup", "__file__": str(startup)})
    assert sys.modules["sitecustomize"].MINE == "mine"
    assert (len(sys.meta_path) - before, len(registered)) == (entered, entered)


RAISES = """
import torch
def closure():
    raise KeyError("the script's")
optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
try:
    optimizer.step(closure)
except KeyError as error:
    raise RuntimeError("again") from error
"""


def test_a_traceback_has_no_frame_of_ours(python):
    ours = python(RAISES, before=RUN)
    assert ours.returncode == 1
    assert "commands/run" not in ours.stderr
    assert ours.stderr.count("in closure") == ours.stderr.count("in <module>") - 1 == 1
    assert ours.stderr.endswith("again\nlrfused run: no torch.optim.SGD made a step\n")


WRONG = """
import torch
if __name__ == "__main__":
    p = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.SGD([("bias", p)], lr=0.1, momentum=0.9)
    for step in range(1, 5):
        p.grad = torch.ones(2, 3)
        optimizer.step()
        if step == 2:
            from lrfused import backends
            backend = backends.choose(backends.preferred("cpu"))
            right = type(backend).step
            def wrong(self, groups, *rest):
                made = right(self, groups, *rest)
                groups[0]["params"][0].data.view(torch.int32)[1, 2] ^= 1
                return made
            type(backend).step = wrong
    print("done")
"""


def test_one_wrong_bit_is_told_and_makes_the_status_1(python, tmp_path):
    ours = python(WRONG, before=(*RUN, "--check", "4"), last=("-m", "script"))
    assert (ours.returncode, ours.stdout) == (1, "done\n")
    assert "4 of 4 steps compared with torch's for-loop: 2 values differ\n" in ours.stderr
    value = r"-?\d\.\d+ \(0x\w{8}\)"
    assert re.search(
        r"first to differ: step 3 of SGD, parameter 0 of group 0, shape \(2, 3\), bias:"
        rf"\[5\] is {value}, should be {value}\n$",
        ours.stderr,
    )


TRAINS = """
import torch
optimizer = torch.optim.SGD([torch.ones(9, requires_grad=True)], lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
"""


def test_a_baseline_is_run_first(python):
    both = python(TRAINS, before=(*RUN, "--baseline"))
    assert both.returncode == 0, both.stderr
    assert re.search(r"SGD +lrfused, \w+ +3 ", both.stderr)
    assert re.search(r"SGD +torch, first run +3 ", both.stderr)
    assert re.search(
        r"\nthe whole run: \d+\.\d\d s; with torch's own SGD: \d+\.\d\d s\n$", both.stderr
    )
    failed = python(ENDS, "status", before=(*RUN, "--baseline"))
    assert (failed.returncode, failed.stdout) == (3, "at the end\n")
    assert failed.stderr == (
        "lrfused run: with torch's own SGD the script ends with status 3; it was not run again\n"
    )


@pytest.mark.parametrize(
    ("given", "script"),
    [
        ("--check 3 s.py -- --foo", "s.py -- --foo"),
        ("-m pack.s --check 3 -- -- -m", "pack.s --check 3 -- -- -m"),
        ("s.py a -- b", "s.py a -- b"),
        ("--baseline s.py", "s.py"),
    ],
)
def test_every_argument_after_the_script_is_its_own(monkeypatch, given, script):
    seen = []
    monkeypatch.setattr(launch, "run", lambda args: seen.append(args.script) or 0)
    assert main(["run", *given.split()]) == 0
    assert seen == [script.split()]


def test_a_baseline_of_one_rank_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "--baseline", "script.py"]) == 2
    assert capsys.readouterr().err.startswith("lrfused run: --baseline cannot run one rank twice")


def test_signals_are_as_before_after_a_baseline(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "_execute", lambda *_: os._exit(0))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, *launch._FORWARDED)]
        assert launch._run_first([], "", "") == 0
        after = [signal.getsignal(number) for number in (signal.SIGINT, *launch._FORWARDED)]
        assert after == handlers
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_the_baseline_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('started', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, *RUN, "--baseline", str(script)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert process.stdout.read() == ""
