"""The paired test of two systems."""

import numpy as np
import pytest

from hf_gradalign.metrics import bootstrap_intervals, compare_systems, equal_error_rate


def make_systems(difference, n=600, seed=0, own=0.5):
    """Two systems for which the same clips are difficult; the second is worse by `difference`."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.5).astype(int)
    clips = rng.normal(size=n) + 2 * labels
    first, second = (clips + own * rng.normal(size=n) for _ in range(2))
    return first, 10 * (second - difference * labels) + 3, labels  # on another scale


def test_a_clear_difference():
    first, second, labels = make_systems(1.0)
    result = compare_systems(first, second, labels, n_draws=200)["eer"]
    assert result.first == equal_error_rate(first, labels)["eer"]
    assert result.second == equal_error_rate(second, labels)["eer"]
    assert result.difference == result.first - result.second < 0
    assert result.low < result.difference < result.high < 0
    assert result.p_value == 1 / 201


def test_no_difference():
    first, second, labels = make_systems(0.0)
    result = compare_systems(first, second, labels, n_draws=200)["eer"]
    assert result.p_value > 0.05
    assert result.low < 0 < result.high
    same = compare_systems(first, 2 * first + 1, labels, n_draws=50)["eer"]
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_pairing_makes_the_test_sharper():
    first, second, labels = make_systems(0.2, own=0.1)
    result = compare_systems(first, second, labels, n_draws=200)["eer"]
    alone = [bootstrap_intervals("eer", scores, labels, n_draws=200)["eer"] for scores in (first, second)]
    assert result.high - result.low < 0.7 * min(one.high - one.low for one in alone)


def test_exchanged_systems_differ_by_the_sign():
    first, second, labels = make_systems(0.3)
    # The draws follow the order of the first system's scores.
    one = compare_systems(first, second, labels, ["eer", "cllr"], n_draws=300)
    other = compare_systems(second, first, labels, ["eer", "cllr"], n_draws=300)
    for name in ("eer", "cllr"):
        assert one[name].difference == -other[name].difference
        assert one[name].low == pytest.approx(-other[name].high, abs=0.02 * abs(one[name].low) + 0.01)


def test_the_test_has_the_error_rate_that_it_claims():
    values = [compare_systems(*make_systems(0.0, n=200, seed=seed), n_draws=59)["eer"].p_value for seed in range(80)]
    assert np.mean(np.array(values) <= 0.1) < 0.22  # 0.1, within three and a half standard errors
    assert np.mean(np.array(values) <= 0.5) > 0.3


def test_over_speakers():
    first, second, labels = make_systems(1.0)
    speakers = np.arange(600) // 30
    result = compare_systems(first, second, labels, clusters=speakers, n_draws=100)["eer"]
    assert result.p_value == 1 / 101


def test_refusals():
    first, second, labels = make_systems(0.0)
    with pytest.raises(ValueError, match="There are 599 scores but 600 labels"):
        compare_systems(first, second[:-1], labels)
    with pytest.raises(ValueError, match="at least two draws"):
        compare_systems(first, second, labels, n_draws=0)
