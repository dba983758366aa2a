"""Probabilities in place of log-likelihood ratios make a warning."""

import warnings

import numpy as np
import pytest

from hf_gradalign.metrics import actual_detection_cost, log_likelihood_ratio_cost

LABELS = [0, 0, 1, 1]
PROBABILITIES = np.array([0.0, 0.3, 0.6, 1.0])


@pytest.mark.parametrize("function", [actual_detection_cost, log_likelihood_ratio_cost])
def test_probabilities(function):
    for scores, like in (
        (PROBABILITIES, ", as probabilities do,"),
        (PROBABILITIES - 1, ","),
        (100 * PROBABILITIES, ","),
    ):
        with pytest.warns(UserWarning, match=rf"\){like} but actDCF and Cllr are .* Calibrate the scores") as caught:
            function(scores, LABELS)
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(PROBABILITIES - 0.5, LABELS)
        function([0.0] * 4, LABELS)  # ratios that say nothing
