"""Masters come through checkpoints and copies to the bit, which torch's loading would round."""

import copy

import pytest
import torch
from cases import HYPER
from support.bits import as_integers, assert_same_bits
from support.masters import Masters, of_each_kind, values_of
from support.twin import assert_unchanged, leaf, momentum, numbers, sgd, snapshot

from lrfused import FusedDecaySGD

pytestmark = pytest.mark.backends(
    "host", "emulated", reason="checkpoints of masters are the same on a GPU"
)


def through_a_file(state_dict, folder):
    torch.save(state_dict, folder / "checkpoint.pt")
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.mark.parametrize("model_first", [True, False])
@of_each_kind
def test_a_run_resumes_to_the_bit(backend, dtype, kind, tmp_path, model_first):
    straight = Masters(values_of([33, 1025], dtype), kind, backend, HYPER["nesterov-decay"])
    for step in range(3):
        straight.step(step)
    saved = through_a_file(straight.ours.state_dict(), tmp_path)
    values = [p.detach().clone() for p in straight.mine]
    resumed = [leaf(torch.zeros_like(v)) for v in values]
    optimizer = FusedDecaySGD(resumed, master_weights=kind, backend=backend)

    def load_model():
        for p, value in zip(resumed, values, strict=True):
            p.data.copy_(value)

    if model_first:
        load_model()
    optimizer.load_state_dict(saved)
    if not model_first:
        load_model()
    straight.ours, straight.mine = optimizer, resumed
    straight.check("loaded")
    for step in range(3, 6):
        straight.step(step)


def test_torchs_loading_alone_would_have_rounded_the_masters():
    """The danger: Optimizer.load_state_dict casts all floating state to the parameter's dtype."""
    p = leaf(numbers(33, dtype=torch.bfloat16))
    state = {0: {"momentum_buffer": numbers(33), "master": numbers(33, seed=1)}}
    theirs = sgd([p], lr=0.1, momentum=0.9)
    theirs.load_state_dict({**theirs.state_dict(), "state": state})
    assert theirs.state[p]["master"].dtype == torch.bfloat16
    ours = FusedDecaySGD([p], lr=0.1, momentum=0.9, master_weights=True)
    ours.load_state_dict({**ours.state_dict(), "state": state})
    assert_same_bits(ours.state[p]["master"], state[0]["master"])
    assert_same_bits(ours.state[p]["momentum_buffer"], state[0]["momentum_buffer"])


def test_loading_sees_what_a_users_hook_makes_of_the_checkpoint():
    p = leaf(numbers(33, dtype=torch.bfloat16))
    ours = FusedDecaySGD([p], lr=0.1, momentum=0.9, master_weights=True)
    ours.register_load_state_dict_pre_hook(
        lambda _, saved: {**saved, "state": {0: {"master": saved["state"][0]["theirs"]}}}
    )
    ours.load_state_dict({**ours.state_dict(), "state": {0: {"theirs": numbers(33)}}})
    assert_same_bits(ours.state[p]["master"], numbers(33))


@of_each_kind
def test_an_ordinary_checkpoint_gets_its_masters_from_the_parameters(backend, dtype, kind):
    values = values_of([33, 1025], dtype)
    plain = [leaf(value) for value in values]
    before = FusedDecaySGD(plain, lr=0.1, momentum=0.9, backend=backend)
    for p in plain:
        p.grad = numbers(*p.shape, dtype=dtype, seed=9)
    before.step()
    pair = Masters([p.detach() for p in plain], kind, backend, HYPER["momentum"])
    pair.ours.load_state_dict(before.state_dict())
    pair.theirs.load_state_dict(before.state_dict())
    for step in range(3):
        pair.step(step)


@of_each_kind
def test_masters_are_left_out_with_a_warning_where_none_are_kept(backend, dtype, kind):
    pair = Masters(values_of([33], dtype), kind, backend, HYPER["momentum"])
    pair.step(0)
    other = leaf(pair.mine[0])
    plain = FusedDecaySGD([other], lr=0.1, momentum=0.9, backend=backend)
    with pytest.warns(UserWarning, match="master weights"):
        plain.load_state_dict(pair.ours.state_dict())
    assert list(plain.state[other]) == ["momentum_buffer"]
    assert_same_bits(momentum(plain, other), momentum(pair.ours, pair.mine[0]).to(dtype))


def test_masters_of_the_other_kind_are_refused(backend):
    pair = Masters(values_of([33], torch.bfloat16), True, backend, HYPER["momentum"])
    pair.step(0)
    other = leaf(pair.mine[0])
    optimizer = FusedDecaySGD([other], lr=0.3, master_weights="remainder", backend=backend)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"(?s)'master'.*'master_remainder'"):
        optimizer.load_state_dict(pair.ours.state_dict())
    assert_unchanged(optimizer, before)
    assert not optimizer.state


@of_each_kind
def test_torchs_sgd_takes_the_checkpoint(backend, dtype, kind):
    pair = Masters(values_of([33], dtype), kind, backend, HYPER["momentum"])
    pair.step(0)
    other = leaf(pair.mine[0])
    theirs = sgd([other], lr=0.1, momentum=0.9)
    theirs.load_state_dict(pair.ours.state_dict())
    other.grad = numbers(33, dtype=dtype)
    theirs.step()
    assert not torch.equal(as_integers(other), as_integers(pair.mine[0]))


@of_each_kind
def test_copies_keep_their_masters(backend, dtype, kind):
    pair = Masters(values_of([33, 70], dtype), kind, backend, HYPER["momentum"])
    pair.step(0)
    pair.ours, pair.mine = copy.deepcopy((pair.ours, pair.mine))
    for step in range(1, 3):
        pair.step(step)
