"""Kill a training run many times and see what it left: test_robust.py runs this.

    cd tests && PYTHONPATH=.. python -m support.kills FOLDER KILLS STEPS SEED

The run is examples/atomic_checkpoint.py's. Each life is a fork of this process, which has imported
torch already; it is killed after a random time. Prints how many kills met a half-written file.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from support.twin import assert_same_state

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import atomic_checkpoint as example  # noqa: E402


def live(folder, steps):
    """Fork a run; give its process."""
    child = os.fork()
    if child == 0:
        try:
            example.train(folder, steps)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def main(folder, kills, steps, seed):
    torch.set_num_threads(1)
    moments = random.Random(seed)
    folder, beside = Path(folder), Path(folder + "-beside")
    folder.mkdir()
    beside.mkdir()
    example.train(beside, 2)  # imports, and the state that a first step makes
    begin = time.monotonic()
    example.train(beside, 7)
    longest = 2 * (time.monotonic() - begin)  # some steps, however busy the machine is
    halves, done = 0, 0
    while done < kills:
        child = live(folder, steps)
        time.sleep(moments.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the run ended by itself: {status}"
        done += 1
        halves += len(list(folder.glob("*.partial")))
        path = max(folder.glob("step-*.pt"), default=None)
        if path is not None:  # what has a checkpoint's name is whole
            torch.load(path, weights_only=True)
    path = max(folder.glob("step-*.pt"))
    goal = torch.load(path, weights_only=True)["step"] + 5
    _, killed = example.train(folder, goal)
    _, whole = example.train(beside, goal)
    assert_same_state(killed, whole, f"after {kills} kills, at step {goal},")
    assert killed.scheduler.state_dict() == whole.scheduler.state_dict()
    print(f"{kills} kills, {halves} half-written files, {goal} steps")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
