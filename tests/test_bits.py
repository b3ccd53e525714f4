"""The comparison itself: what it lets pass and what it does not."""

import pytest
import torch
from cases import DTYPES
from support.bits import assert_same_bits, assert_same_rates


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_minus_zero_is_not_zero(dtype):
    zero, minus = torch.tensor([1.0, 0.0], dtype=dtype), torch.tensor([1.0, -0.0], dtype=dtype)
    with pytest.raises(AssertionError, match=r"1 of 2 elements differ, the first at 1: got 0\.0"):
        assert_same_bits(zero, minus)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_nans_are_one(dtype):
    nan = torch.tensor([torch.nan], dtype=dtype)
    other = -nan
    assert_same_bits(nan, other)
    with pytest.raises(AssertionError, match="1 of 1"):
        assert_same_bits(nan, torch.ones(1, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_ulp_is_seen_and_both_values_are_told(dtype):
    one = torch.ones(3, dtype=dtype)
    near = one.clone()
    near[2] = one[2] + torch.finfo(dtype).eps
    with pytest.raises(AssertionError, match=r"first at 2: got 1\.0 .*, want 1\.00"):
        assert_same_bits(one, near)


def test_the_order_is_logical_whatever_the_strides():
    values = torch.arange(6.0).reshape(2, 3)
    assert_same_bits(values, values.t().contiguous().t())


def test_shape_and_dtype_count():
    with pytest.raises(AssertionError, match="is not"):
        assert_same_bits(torch.ones(2), torch.ones(2, 1))
    with pytest.raises(AssertionError, match="is not"):
        assert_same_bits(torch.ones(2), torch.ones(2).double())


def test_rates_are_compared_bit_by_bit():
    assert_same_rates([0.1, float("nan")], [0.1, -float("nan")])
    with pytest.raises(AssertionError, match="group 1"):
        assert_same_rates([0.1, 0.0], [0.1, -0.0])
    with pytest.raises(AssertionError, match="group 0"):
        assert_same_rates([0.1 * 3], [0.3])
