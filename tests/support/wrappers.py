"""Optimizers around another that copy, or share and save, its groups."""

import torch


class CopyingWrapper(torch.optim.Optimizer):
    """Keep groups of its own, copied over the inner optimizer's before a step, and back after it.

    fairscale's OSS and torch's ZeroRedundancyOptimizer do so.
    """

    def __init__(self, params, make, **defaults):
        super().__init__(params, defaults)
        inner = [dict(group) for group in self.param_groups]
        self.inner = make(inner, **defaults)
        copy_groups(self.inner.param_groups, self.param_groups)

    def step(self, closure=None):
        copy_groups(self.param_groups, self.inner.param_groups)
        self.inner.step()
        copy_groups(self.inner.param_groups, self.param_groups)

    def state_dict(self):
        copy_groups(self.inner.param_groups, self.param_groups)
        return {**super().state_dict(), "inner": self.inner.state_dict()["state"]}

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})
        copy_groups(self.param_groups, self.inner.param_groups)
        packed = self.inner.state_dict()
        self.inner.load_state_dict({**packed, "state": state_dict["inner"]})


def copy_groups(source, destination):
    for old, new in zip(source, destination, strict=True):
        new.update({key: value for key, value in old.items() if key != "params"})


class SharingWrapper(torch.optim.Optimizer):
    """Share groups and state with the inner optimizer, and save them itself; as SAM does."""

    def __init__(self, params, make, **defaults):
        super().__init__(params, {"rho": 0.05, **defaults})
        self.inner = make(self.param_groups, **defaults)
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state

    def step(self, closure=None):
        self.inner.step()

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        self.inner.param_groups, self.inner.state = self.param_groups, self.state
