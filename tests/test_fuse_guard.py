"""Recorded schedulers that write the optimizer's tensors, state or groups: refused, put back."""

import pytest
import torch
from support.fused import optimizer_of
from torch.optim import SGD, lr_scheduler

from lrfused import fuse


def zero_momentum(o, p):
    o.state[p]["momentum_buffer"].zero_()


def zero_by_foreach(o, p):
    torch._foreach_zero_([o.state[p]["momentum_buffer"]])


def swallow(o, p):
    try:
        p.data.mul_(0.5)
    except ValueError:
        return


def free_gradients(o, p):
    o.zero_grad()


def replace_data(o, p):
    p.data = torch.ones(3)


def replace_state(o, p):
    o.state = type(o.state)(dict)


def out_of_place(o, p):
    torch.mul(p.detach(), 2, out=p.detach())


WRITES = {
    "momentum": (zero_momentum, "optimizer.state"),
    "foreach": (zero_by_foreach, "optimizer.state"),
    "clear": (lambda o, p: o.state.clear(), "optimizer.state"),
    "entry": (lambda o, p: o.state[p].update(momentum_buffer=None), "optimizer.state"),
    "state": (replace_state, "optimizer.state"),
    "shape": (lambda o, p: setattr(p, "data", p.data[:2]), "a parameter"),
    "data": (lambda o, p: p.data.mul_(0.5), "a parameter"),
    "view": (lambda o, p: p.detach()[1:].fill_(7), "a parameter"),
    "out": (out_of_place, "a parameter"),
    "swallowed": (swallow, "a parameter"),
    "step": (lambda o, p: SGD.step(o), "a parameter|optimizer.state"),
    "new-data": (replace_data, "a parameter"),
    "frozen": (lambda o, p: p.requires_grad_(False), "a parameter"),
    "zero-grad": (free_gradients, "a gradient"),
    "grad": (lambda o, p: p.grad.mul_(2), "a gradient"),
}


class Acting(lr_scheduler.LRScheduler):
    def __init__(self, optimizer, act):
        self.act = act
        super().__init__(optimizer)

    def get_lr(self):
        if self.last_epoch == 3:
            self.act(self.optimizer, self.optimizer.param_groups[0]["params"][0])
        return [0.5 * group["lr"] for group in self.optimizer.param_groups]


def stepped():
    parameter = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    optimizer = SGD([parameter], lr=0.1, momentum=0.9)
    parameter.grad = torch.tensor([0.5, -1.0, 2.0])
    optimizer.step()
    return parameter, optimizer


@pytest.mark.parametrize("name", WRITES)
def test_a_write_is_refused_and_nothing_is_changed(name):
    act, written = WRITES[name]
    parameter, optimizer = stepped()
    scheduler = Acting(optimizer, act)
    rate = optimizer.param_groups[0]["lr"]
    state, data = optimizer.state, parameter.data_ptr()
    gradient, before = parameter.grad, parameter.detach().clone()
    buffer = state[parameter]["momentum_buffer"]
    kept, kept_gradient = buffer.clone(), gradient.clone()
    with pytest.raises(ValueError, match=rf"Acting writes ({written}) at step 3, which cannot"):
        fuse(optimizer, scheduler, total_steps=10)
    assert optimizer.state is state
    assert state[parameter]["momentum_buffer"] is buffer
    assert parameter.grad is gradient
    assert parameter.data_ptr() == data
    assert parameter.requires_grad
    assert torch.equal(buffer, kept)
    assert torch.equal(gradient, kept_gradient)
    assert torch.equal(parameter.detach(), before)
    assert (scheduler.last_epoch, optimizer.param_groups[0]["lr"]) == (0, rate)


def test_a_scheduler_may_read_all_of_it():
    def read(o, p):
        assert (p.detach() * 2 + p.grad + o.state[p]["momentum_buffer"]).sum() > 0
        assert o.state[torch.zeros(1)] == {}  # reading makes an entry

    _, optimizer = stepped()
    fused, _ = fuse(optimizer, Acting(optimizer, read), total_steps=10)
    assert fused.param_groups[0]["lr"] == 0.05


def test_an_added_group_is_named():
    def add(o, p):
        o.add_param_group({"params": [torch.zeros(1)]})

    optimizer = optimizer_of()
    with pytest.raises(ValueError, match=r"Acting adds a param group at step 3, which cannot"):
        fuse(optimizer, Acting(optimizer, add), total_steps=10)
    assert len(optimizer.param_groups) == 1
