"""A device uses what the host's numbers are made between two steps, by whatever way."""

import copy

import numpy as np
import pytest
import torch
from support.inside import copies_on_devices, program_of
from support.tape import assert_the_device_agrees
from support.twin import assert_same_state, leaf, numbers

from lrfused import CyclicLR, ExponentialLR, FusedDecaySGD, ReduceLROnPlateau, StepLR
from lrfused.backends.device.images import Images, ImagesInPython

PLATEAU = {"patience": 1, "factor": 0.5}


def exponential():
    return {"schedule": ExponentialLR(0.9)}


def plateau():
    return {"schedule": [ExponentialLR(0.9), ReduceLROnPlateau(**PLATEAU)]}


def cycle():
    return {"schedule": CyclicLR(0.01, 0.1, step_size_up=4, base_momentum=0.2)}


def live():
    return {**exponential(), "capturable": True}


def tensor_rate():
    return {**exponential(), "lr": torch.tensor(0.1)}


def by_hand():
    return {**exponential(), "schedule_every": None}


def group(optimizer):
    return optimizer.param_groups[0]


def as_numpy(optimizer):
    group(optimizer)["lr"].numpy()[()] = np.float64(0.3)


def load_the_handle(optimizer):
    state = optimizer.scheduler.state_dict()
    optimizer.scheduler.load_state_dict({**state, "last_epoch": 1})


def load_another(optimizer):
    other = FusedDecaySGD([leaf(numbers(9)), leaf(numbers(5))], lr=0.7, **exponential())
    for p in group(other)["params"]:
        p.grad = numbers(*p.shape, seed=7)
    other.step()
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))


def add_a_group(optimizer):
    optimizer.add_param_group({"params": [leaf(numbers(3))], "lr": 0.3})


def replace_the_dict(optimizer):
    optimizer.param_groups[0] = {**group(optimizer), "lr": 0.3}


def feed(metric):
    return lambda o: o.scheduler.step(metric)


WRITES = {
    "rate": (exponential, lambda o: group(o).update(lr=0.3)),
    "rate in a cell": (live, lambda o: group(o).update(lr=0.3)),
    "momentum": (exponential, lambda o: group(o).update(momentum=0.3)),
    "cycled momentum": (cycle, lambda o: group(o).update(momentum=0.3)),
    "decay": (exponential, lambda o: group(o).update(weight_decay=0.3)),
    "filled cell": (live, lambda o: group(o)["lr"].fill_(0.3)),
    "a cell's data": (live, lambda o: group(o)["lr"].data.fill_(0.3)),
    "a cell in numpy": (live, as_numpy),
    "filled tensor rate": (tensor_rate, lambda o: group(o)["lr"].fill_(0.3)),
    "attribute": (exponential, lambda o: setattr(o.scheduler, "gamma", 0.5)),
    "epoch": (exponential, lambda o: setattr(o.scheduler, "last_epoch", 7)),
    "epoch of a plateau": (plateau, lambda o: setattr(o.scheduler, "num_bad_epochs", 3)),
    "number": (plateau, feed(2.0)),
    "tensor": (plateau, feed(torch.tensor(2.0))),
    "schedule step": (by_hand, lambda o: o.scheduler.step()),
    "epoch to go to": (by_hand, lambda o: o.scheduler.step(5)),
    "the handle's checkpoint": (exponential, load_the_handle),
    "checkpoint": (exponential, load_another),
    "another schedule": (exponential, lambda o: group(o).update(schedule=StepLR(2, 0.5))),
    "no schedule": (exponential, lambda o: group(o).update(schedule=None)),
    "added group": (exponential, add_a_group),
    "new dict": (exponential, replace_the_dict),
}


def both(device, settings):
    """Make an optimizer on a device and its reference."""
    for backend in (device, "reference"):
        params = [leaf(numbers(9)), leaf(numbers(5))]
        yield FusedDecaySGD(
            params, **{"lr": 0.1, "momentum": 0.9, "backend": backend, **settings()}
        )


def step(optimizers, seed):
    for optimizer in optimizers:
        for g in optimizer.param_groups:
            for p in g["params"]:
                p.grad = numbers(*p.shape, seed=seed)
        optimizer.step()


def agree(ours, reference):
    assert_same_state(ours, reference)
    assert ours.lr_used == reference.lr_used
    assert repr(ours.lr_history()) == repr(reference.lr_history())  # NaN before a group joined
    assert copies_on_devices(program_of(ours))
    assert_the_device_agrees(program_of(ours))


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")
@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_between_steps_is_used(device, write):
    settings, change = WRITES[write]
    optimizers = list(both(device, settings))
    for turn in range(3):
        for seed in range(3):
            step(optimizers, 3 * turn + seed)
            agree(*optimizers)
        if turn == 0 or write != "added group":
            for optimizer in optimizers:
                change(optimizer)


def test_a_step_uploads_nothing_where_nothing_was_written(device, tape):
    (optimizer, _) = both(device, plateau)
    for p in group(optimizer)["params"]:
        p.grad = numbers(*p.shape)
    for _ in range(2):
        optimizer.step()
        optimizer.scheduler.step(torch.tensor(1.0))
    before = tape.uploads
    for metric in (1.0, 2.0, 3.0, 4.0):
        optimizer.step()
        optimizer.scheduler.step(torch.tensor(metric))
    assert tape.uploads == before
    group(optimizer)["lr"] = 0.3
    optimizer.step()
    assert tape.uploads == before + 1


def test_the_rates_of_a_step_that_the_host_skips_outlive_replays(device, tape):
    optimizers = list(both(device, live))
    for seed in range(2):
        step(optimizers, seed)
    tape.capture(optimizers[0].step)
    tape.replay()
    optimizers[1].step()
    for optimizer in optimizers:
        optimizer.found_inf = 1.0  # a number: the host decides
        optimizer.step()
        optimizer.found_inf = None
    assert optimizers[0].lr_used == optimizers[1].lr_used
    step(optimizers, 2)
    agree(*optimizers)


# -- images --------------------------------------------------------------------------------------

KINDS = [ImagesInPython, *{Images} - {ImagesInPython}]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def images(request):
    return request.param()


def test_images_find_each_tensor_that_has_other_numbers(images):
    first, second, empty = torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(0, 5)
    images.watch([first, second, empty], anew=False)
    assert images.changed() == [0, 1, 2], "nothing was noted"
    images.note_moved()
    assert images.changed() == [0, 1, 2], "a device that had nothing has moved nothing"
    for i in range(3):
        images.note(i)
    assert images.unchanged()
    first[1], second[2] = -0.0, 1
    assert images.changed() == [0, 1]
    assert not images.unchanged()
    images.note(0)
    assert images.changed() == [1]
    images.note_moved()
    assert images.changed() == []


def test_images_follow_other_tensors(images):
    one = torch.zeros(2)
    images.watch([one], anew=False)
    images.note(0)
    images.watch([one.clone()], anew=False)
    assert images.unchanged()
    images.watch([torch.zeros(1)], anew=False)
    assert images.changed() == [0], "of another size"
    images.watch([one], anew=True)
    assert images.changed() == [0]
