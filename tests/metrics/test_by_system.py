import numpy as np
import pytest

from hf_gradalign.metrics import equal_error_rate, equal_error_rate_by_system


def test_each_system_is_scored_against_all_bonafide_clips():
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 0, 0], 50)
    systems = np.array(["-"] * 50 + ["A02"] * 50 + ["A01"] * 50)
    scores = rng.normal(size=150) + np.repeat([2.0, 0.0, 1.5], 50)
    rates = equal_error_rate_by_system(scores, labels, systems)
    assert list(rates) == ["A01", "A02"]
    for name, rate in rates.items():
        chosen = (labels == 1) | (systems == name)
        assert rate == equal_error_rate(scores[chosen], labels[chosen])["eer"]
    assert rates["A02"] < rates["A01"]


def test_the_system_of_a_bonafide_clip_is_not_looked_at():
    rates = equal_error_rate_by_system([2.0, 3.0, 0.0, 1.0], [1, 1, 0, 0], ["A01", None, "A01", "A02"])
    assert rates == {"A01": 0.0, "A02": 0.0}


def test_spoofed_clips_without_a_name_are_unknown():
    rates = equal_error_rate_by_system([2.0, 0.0, 3.0, 1.0], [1, 0, 0, 0], ["-", None, "", 7])
    assert rates == {"7": 0.0, "unknown": 0.25}


def test_one_system_a_clip():
    with pytest.raises(ValueError, match="There are 3 scores but 2 systems"):
        equal_error_rate_by_system([1.0, 2.0, 3.0], [0, 1, 1], ["A01", "-"])


def test_refuses_what_the_equal_error_rate_refuses():
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        equal_error_rate_by_system([1.0, 2.0], [0, 0], ["A01", "A02"])
