"""Accuracy, F1 and acceptance rate at a given threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_samples import few_values, scored_clips

from hf_gradalign.metrics import accuracy_at_threshold, spoof_acceptance_rate


@given(scored_clips(values=few_values), st.integers(-4, 4))
def test_agrees_with_counting(clips, threshold):
    scores, labels = clips
    accepted = [score >= threshold for score in scores]
    pairs = list(zip(accepted, labels, strict=True))
    tp, fp = pairs.count((True, 1)), pairs.count((True, 0))
    fn, tn = pairs.count((False, 1)), pairs.count((False, 0))
    result = accuracy_at_threshold(scores, labels, threshold)
    f1, f1_spoof = 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fp + fn)
    assert result == pytest.approx(
        {
            "accuracy": (tp + tn) / len(scores),
            "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
            "f1": f1,
            "f1_spoof": f1_spoof,
            "f1_macro": (f1 + f1_spoof) / 2,
            "false_rejection_rate": fn / (tp + fn),
            "false_acceptance_rate": fp / (fp + tn),
        }
    )


def test_by_hand():
    # 2 equals the threshold and is accepted.
    result = accuracy_at_threshold([1, 2, 2, 3, 0], [1, 1, 0, 1, 0], 2)
    assert result["accuracy"] == 0.6
    assert result["f1"] == pytest.approx(2 / 3)
    assert result["f1_spoof"] == 0.5
    assert result["false_rejection_rate"] == pytest.approx(1 / 3)
    assert result["false_acceptance_rate"] == 0.5


def test_acceptance_of_spoofs_alone():
    assert spoof_acceptance_rate([0.0, 1.0, 2.0, 3.0], [0, 0, 0, 0], 2.0) == {"spoof_acceptance_rate": 0.5}
    assert spoof_acceptance_rate([0.0, 9.0], [0, 1], 2.0) == {"spoof_acceptance_rate": 0.0}


@pytest.mark.parametrize("threshold", [np.nan, np.inf])
def test_the_threshold_is_a_number(threshold):
    for metric in (accuracy_at_threshold, spoof_acceptance_rate):
        with pytest.raises(ValueError, match="The threshold must be a finite number"):
            metric([0.0, 1.0], [0, 1], threshold)


def test_refuses_no_clips():
    with pytest.raises(ValueError, match="All 2 clips are spoofed"):
        accuracy_at_threshold([0.0, 1.0], [0, 0], 0.5)
    with pytest.raises(ValueError, match="needs at least one spoofed clip"):
        spoof_acceptance_rate([0.0, 1.0], [1, 1], 0.5)
