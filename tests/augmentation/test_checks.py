import math

import numpy as np
import pytest

from hf_gradalign.augmentation.checks import check_integer, check_number, check_ordered


def test_numbers_come_back_as_plain_floats():
    for value in (1, 1.0, np.float32(1), np.int64(1)):
        assert type(check_number("x", value, 0, math.inf)) is float


def test_integers_come_back_as_plain_ints():
    assert type(check_integer("x", np.int64(3), 1)) is int


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1, True, "0.5", None])
def test_numbers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"x must be a finite number in \[0, 1\]; got "):
        check_number("x", value, 0, 1)


def test_a_number_without_upper_limit_says_so():
    with pytest.raises(ValueError, match=r"x must be a finite number >= 0; got -1"):
        check_number("x", -1, 0, math.inf)


@pytest.mark.parametrize("value", [0, 6, 2.0, True, "2", None])
def test_integers_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"x must be an integer in \[1, 5\]; got "):
        check_integer("x", value, 1, 5)


def test_an_integer_without_upper_limit_says_so():
    with pytest.raises(ValueError, match=r"x must be an integer >= 1; got 0"):
        check_integer("x", 0, 1)


def test_order():
    check_ordered("min_x", 1, "max_x", 1)
    with pytest.raises(ValueError, match=r"min_x must be <= max_x; got min_x=2 and max_x=1"):
        check_ordered("min_x", 2, "max_x", 1)
