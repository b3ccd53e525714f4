"""A step that cannot be made: one clear error, and nothing half-updated."""

import pytest
import torch
from cases import DTYPES, lambda_that_ends
from support.twin import assert_unchanged, leaf, numbers, other_dtypes, sgd, snapshot

from lrfused import ExponentialLR, FusedDecaySGD, LambdaLR

REFUSED = (TypeError, ValueError, RuntimeError)


def optimizer_of(backend, *, steps=2, **kwargs):
    """Make an optimizer of two groups that has made some steps already."""
    groups = [
        {"params": [leaf(numbers(1025)), leaf(numbers(33, seed=1))]},
        {"params": [leaf(numbers(70_000, seed=2)), leaf(numbers(7, seed=3))], "lr": 0.3},
    ]
    kwargs = {"lr": 0.1, "momentum": 0.9, "schedule": ExponentialLR(0.9), **kwargs}
    optimizer = FusedDecaySGD(groups, backend=backend, **kwargs)
    for step in range(steps):
        give(optimizer, step)
        optimizer.step()
    give(optimizer, 100)
    return optimizer


def give(optimizer, seed):
    for i, p in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        p.grad = numbers(*p.shape, dtype=p.dtype, seed=seed + i)


def last(optimizer):
    return optimizer.param_groups[-1]["params"][-1]


def assert_refused(optimizer, match, error=REFUSED):
    before = snapshot(optimizer)
    with pytest.raises(error, match=match):
        optimizer.step()
    assert_unchanged(optimizer, before)


def assert_goes_on(optimizer):
    """Fail unless the next step works after one that was refused."""
    before = snapshot(optimizer)
    give(optimizer, 200)
    optimizer.step()
    assert optimizer.scheduler.last_epoch == before["epoch"] + 1
    assert all(
        not torch.equal(p, then)
        for p, then in zip(
            (p for group in optimizer.param_groups for p in group["params"]),
            before["params"],
            strict=True,
        )
    )


@pytest.mark.parametrize("steps", [0, 2])
def test_a_sparse_gradient_is_refused_whole_where_torch_refuses_it(backend, steps):
    optimizer = optimizer_of(backend, steps=steps, weight_decay=0.1)
    last(optimizer).grad = numbers(7).to_sparse()
    assert_refused(optimizer, r"(?s)sparse.*torch\.optim\.SGD.*weight_decay", RuntimeError)
    assert_goes_on(optimizer)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("momentum", "much"),
        ("momentum", None),
        ("weight_decay", None),
        ("weight_decay", "0.1"),
        ("dampening", [0.1]),
        ("lr", "fast"),
        ("lr", None),
        ("lr", torch.ones(2)),
    ],
    ids=str,
)
def test_hyper_parameters_of_no_number_are_refused_whole(backend, key, value):
    optimizer = optimizer_of(backend)
    before = snapshot(optimizer)
    kept = optimizer.param_groups[1][key]
    optimizer.param_groups[1][key] = value
    with pytest.raises(REFUSED, match=key):
        optimizer.step()
    optimizer.param_groups[1][key] = kept
    assert_unchanged(optimizer, before)
    assert_goes_on(optimizer)


@pytest.mark.parametrize("key", ["lr", "weight_decay", "dampening"])
def test_numbers_beyond_the_range_of_the_dtype_are_refused_as_in_torch(backend, key):
    theirs = leaf(numbers(7))
    oracle = sgd([theirs], lr=0.1, momentum=0.9, weight_decay=0.1)
    optimizer = optimizer_of(backend, weight_decay=0.1)
    theirs.grad = numbers(7)
    oracle.step()
    oracle.param_groups[0][key] = 1e300
    with pytest.raises(RuntimeError, match="without overflow"):
        oracle.step()
    kept = optimizer.param_groups[1][key]
    before = snapshot(optimizer)
    optimizer.param_groups[1][key] = 1e300
    with pytest.raises(REFUSED):
        optimizer.step()
    optimizer.param_groups[1][key] = kept
    assert_unchanged(optimizer, before)
    assert_goes_on(optimizer)


def test_a_parameter_that_overlaps_itself_is_refused_as_in_torch(backend):
    def expanded():
        return numbers(1).expand(70).detach().requires_grad_()

    theirs = expanded()
    theirs.grad = numbers(70)
    with pytest.raises(RuntimeError, match="single memory location"):
        sgd([theirs], lr=0.1).step()
    first, mine = leaf(numbers(9)), expanded()
    with pytest.raises(REFUSED):  # noqa: PT012
        optimizer = FusedDecaySGD([first, mine], lr=0.1, backend=backend)
        first.grad, mine.grad = numbers(9), numbers(70)
        optimizer.step()
    assert torch.equal(first, numbers(9))
    assert torch.equal(mine, expanded())


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float8_e5m2], ids=str)
def test_parameters_of_other_dtypes_are_refused(backend, dtype):
    param = torch.ones(3).to(dtype)
    with pytest.raises(REFUSED, match=str(dtype).removeprefix("torch.")):  # noqa: PT012
        optimizer = FusedDecaySGD([param], lr=0.1, backend=backend)
        param.grad = torch.ones(3).to(dtype)
        optimizer.step()
    assert torch.equal(param.float(), torch.ones(3))


@pytest.mark.parametrize("shape", [(6,), (8,), (1, 7), ()], ids=str)
def test_a_momentum_of_another_shape_is_refused_whole(backend, shape):
    optimizer = optimizer_of(backend)
    optimizer.state[last(optimizer)]["momentum_buffer"] = numbers(*shape)
    assert_refused(optimizer, "momentum_buffer")


def test_a_momentum_that_is_no_tensor_is_refused_whole(backend):
    optimizer = optimizer_of(backend)
    before = snapshot(optimizer)
    kept = optimizer.state[last(optimizer)]["momentum_buffer"]
    optimizer.state[last(optimizer)]["momentum_buffer"] = 0.5
    with pytest.raises(REFUSED, match="momentum_buffer"):
        optimizer.step()
    optimizer.state[last(optimizer)]["momentum_buffer"] = kept
    assert_unchanged(optimizer, before)


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("params", [(), None, {}])
def test_params_that_are_no_list_are_refused_in_one_way(backend, steps, params):
    if backend == "reference":
        pytest.skip("it takes whatever torch's for-loop can iterate over")
    optimizer = optimizer_of(backend)
    for _ in range(steps):
        optimizer.step()
    optimizer.param_groups[0]["params"] = params
    with pytest.raises(TypeError):
        optimizer.step()


def test_a_state_that_makes_no_entries_is_refused_whole(backend):
    params = [leaf(numbers(9, seed=i)) for i in range(3)]
    optimizer = FusedDecaySGD(params, lr=0.1, momentum=0.9, backend=backend)
    for p in params:
        p.grad = numbers(9)
    optimizer.state = {}
    before = snapshot(optimizer)
    with pytest.raises(KeyError):
        optimizer.step()
    assert_unchanged(optimizer, before)
    optimizer.state = {p: {} for p in params}
    optimizer.step()
    assert all("momentum_buffer" in optimizer.state[p] for p in params)


def test_a_closure_that_raises_changes_nothing(backend):
    optimizer = optimizer_of(backend)
    before = snapshot(optimizer)

    def closure():
        raise ArithmeticError("no loss today")

    with pytest.raises(ArithmeticError, match="no loss today"):
        optimizer.step(closure)
    assert_unchanged(optimizer, before)
    assert_goes_on(optimizer)


def test_a_pre_hook_that_raises_changes_nothing(backend):
    optimizer = optimizer_of(backend)

    def hook(*_):
        raise ArithmeticError("not now")

    handle = optimizer.register_step_pre_hook(hook)
    assert_refused(optimizer, "not now", ArithmeticError)
    handle.remove()
    assert_goes_on(optimizer)


def test_a_lambda_works_up_to_its_last_epoch_and_raises_there(backend):
    optimizer = optimizer_of(backend, steps=0, schedule=LambdaLR(lambda_that_ends(5)))
    mine = optimizer.param_groups[0]["params"][0]
    theirs = leaf(mine)
    oracle = sgd([theirs], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(oracle, lambda_that_ends(5))
    for step in range(5):
        give(optimizer, step)
        theirs.grad = mine.grad.clone()
        optimizer.step()
        oracle.step()
        scheduler.step()
        assert torch.equal(mine, theirs)
        assert optimizer.param_groups[0]["lr"] == oracle.param_groups[0]["lr"]
    with pytest.raises(IndexError):
        scheduler.step()
    give(optimizer, 50)
    assert_refused(optimizer, None, IndexError)
    assert_refused(optimizer, None, IndexError)


@other_dtypes
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_gradient_of_another_dtype_is_refused_or_as_in_torch(backend, dtype):
    other = torch.float32 if dtype is not torch.float32 else torch.bfloat16
    mine, first = leaf(numbers(33, dtype=dtype)), leaf(numbers(9))
    mine.grad_dtype = other
    mine.grad, first.grad = numbers(33, dtype=other, seed=1), numbers(9, seed=2)
    optimizer = FusedDecaySGD([first, mine], lr=0.1, momentum=0.9, backend=backend)
    assert_refused(optimizer, "dtype")


def test_differentiable_is_refused(backend):
    with pytest.raises(REFUSED, match="differentiable"):
        FusedDecaySGD([leaf(numbers(3))], lr=0.1, differentiable=True, backend=backend)


def test_an_unknown_backend_is_refused():
    with pytest.raises(ValueError, match=r"(?s)backend.*quantum"):
        FusedDecaySGD([leaf(numbers(3))], lr=0.1, backend="quantum")
