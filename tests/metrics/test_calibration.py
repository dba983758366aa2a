"""Calibration: scores to log-likelihood ratios."""

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize
from score_samples import scored_clips
from sklearn.isotonic import IsotonicRegression

from hf_gradalign.metrics import (
    Calibration,
    fit_calibration,
    fit_logistic,
    log_likelihood_ratio_cost,
    min_log_likelihood_ratio_cost,
)

PRIORS = st.sampled_from([0.05, 0.5, 0.655])
pytestmark = pytest.mark.filterwarnings("ignore:The calibration is fitted on only")


def drawn(n_bonafide=300, n_spoof=700, n_systems=1, seed=0):
    """Overlapping Gaussian scores of several systems, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [n_bonafide, n_spoof])
    return generator.normal(size=(len(labels), n_systems)) + 2.0 * labels[:, None], labels


def reference_loss(parameters, features, labels, prior):
    """Prior-weighted cross-entropy in nats, written without the package."""
    llr = features @ parameters[:-1] + parameters[-1]
    odds = math.log(prior / (1 - prior))
    bonafide = np.logaddexp(0, -(llr[labels == 1] + odds)).mean()
    spoof = np.logaddexp(0, llr[labels == 0] + odds).mean()
    return prior * bonafide + (1 - prior) * spoof


def reference_fit(features, labels, prior):
    start = np.zeros(features.shape[1] + 1)
    options = {"gtol": 1e-9}
    return minimize(reference_loss, start, (features, labels, prior), method="BFGS", options=options).x


@pytest.mark.parametrize("prior", [0.05, 0.5, 0.655])
@pytest.mark.parametrize("n_systems", [1, 3])
def test_agrees_with_scipys_optimum(prior, n_systems):
    features, labels = drawn(n_systems=n_systems)
    weights, offset = fit_logistic(features, labels, prior=prior)
    np.testing.assert_allclose([*weights, offset], reference_fit(features, labels, prior), atol=1e-4)


def test_recovers_the_ratios_of_gaussians():
    # For unit Gaussians around 0 and 2 the ratio is 2 s - 2.
    scores, labels = drawn(20_000, 20_000)
    calibration = fit_calibration(scores[:, 0], labels)
    assert (calibration.slope, calibration.offset) == (pytest.approx(2, abs=0.1), pytest.approx(-2, abs=0.1))


@given(scored_clips(st.integers(-20, 20), max_size=30), PRIORS)
def test_no_other_affine_map_has_a_lower_loss(clips, prior):
    scores, labels = (np.array(part, dtype=float) for part in clips)
    overlaps = scores[labels == 1].min() < scores[labels == 0].max()
    assume(overlaps and scores[labels == 1].max() > scores[labels == 0].min())
    (slope,), offset = fit_logistic(scores[:, None], labels, prior=prior)
    best = reference_loss(np.array([slope, offset]), scores[:, None], labels, prior)
    for change in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        other = np.array([slope, offset]) + change
        assert reference_loss(other, scores[:, None], labels, prior) >= best - 1e-12


@given(st.floats(1e-4, 1e4), st.floats(-1e4, 1e4), PRIORS)
def test_scale_and_shift_of_the_scores_do_not_matter(factor, shift, prior):
    scores, labels = drawn(40, 60)
    expected = fit_calibration(scores[:, 0], labels, prior=prior)(scores[:, 0])
    moved = factor * scores[:, 0] + shift
    np.testing.assert_allclose(fit_calibration(moved, labels, prior=prior)(moved), expected, atol=1e-5)


@pytest.mark.parametrize("method", ["affine", "pav"])
def test_a_second_calibration_changes_nothing(method):
    scores, labels = drawn()
    once = fit_calibration(scores[:, 0], labels, method=method)(scores[:, 0])
    twice = fit_calibration(once, labels, method=method)(once)
    np.testing.assert_allclose(twice, once, atol=1e-5)


@pytest.mark.parametrize("method", ["affine", "pav"])
def test_order_and_repetition_of_the_clips_do_not_matter(method):
    scores, labels = drawn(50, 70)
    expected = fit_calibration(scores[:, 0], labels, method=method)(scores[:, 0])
    reversed_fit = fit_calibration(scores[::-1, 0], labels[::-1], method=method)
    np.testing.assert_allclose(reversed_fit(scores[:, 0]), expected, atol=1e-6)
    if method == "affine":  # the two clips that PAV adds weigh less among more clips
        more_spoof = np.concatenate([scores, scores[labels == 0]])[:, 0]
        repeated = fit_calibration(more_spoof, np.append(labels, np.zeros(70)))
        np.testing.assert_allclose(repeated(scores[:, 0]), expected, atol=1e-6)


def test_calibration_lowers_cllr_and_keeps_its_minimum():
    scores, labels = drawn()
    raw = 7 * scores[:, 0] - 30
    calibrated = fit_calibration(raw, labels)(raw)
    minimum = min_log_likelihood_ratio_cost(raw, labels)["min_cllr"]
    assert min_log_likelihood_ratio_cost(calibrated, labels)["min_cllr"] == pytest.approx(minimum, abs=1e-12)
    after = log_likelihood_ratio_cost(calibrated, labels)["cllr"]
    assert minimum < after < minimum + 0.05 < log_likelihood_ratio_cost(raw, labels)["cllr"]


@given(scored_clips(st.integers(-5, 5)))
def test_min_cllr_agrees_with_scikit_learns_isotonic_regression(clips):
    scores, labels = map(np.array, clips)
    weights = np.where(labels == 1, 0.5 / (labels == 1).sum(), 0.5 / (labels == 0).sum())
    posterior = IsotonicRegression().fit_transform(scores, labels, sample_weight=weights)
    p_true = np.where(labels == 1, posterior, 1 - posterior)
    expected = -(weights * np.log2(p_true)).sum()
    assert min_log_likelihood_ratio_cost(scores, labels)["min_cllr"] == pytest.approx(expected, abs=1e-9)


def test_min_cllr_by_hand():
    assert min_log_likelihood_ratio_cost([0, 1], [0, 1]) == {"min_cllr": 0.0}
    assert min_log_likelihood_ratio_cost([1, 0], [0, 1])["min_cllr"] == pytest.approx(1.0)
    assert min_log_likelihood_ratio_cost([3, 3], [0, 1])["min_cllr"] == pytest.approx(1.0)
    # Half of either class lies in a pool of equal weights: 1 bit for half of the clips.
    assert min_log_likelihood_ratio_cost([0, 1, 2, 3], [0, 1, 0, 1])["min_cllr"] == pytest.approx(0.5)


@pytest.mark.parametrize("prior", [0.1, 0.5])
def test_pav_agrees_with_scikit_learns_isotonic_regression(prior):
    scores, labels = drawn(60, 90)
    scores = np.round(scores[:, 0], 1)
    # With a clip of either class below the lowest score and above the highest.
    padded = np.concatenate([[scores.min() - 1] * 2, scores, [scores.max() + 1] * 2])
    truth = np.concatenate([[0, 1], labels, [0, 1]])
    weights = np.where(truth == 1, prior / 62, (1 - prior) / 92)
    posterior = IsotonicRegression().fit(padded, truth, sample_weight=weights).predict(scores)
    expected = np.log(posterior / (1 - posterior)) - math.log(prior / (1 - prior))
    calibration = fit_calibration(scores, labels, method="pav", prior=prior)
    np.testing.assert_allclose(calibration(scores), expected, atol=1e-9)
    assert np.isfinite(calibration([-1e9, 1e9])).all()


@pytest.mark.parametrize("method", ["affine", "pav"])
def test_is_non_decreasing_and_survives_json(method):
    scores, labels = drawn()
    calibration = fit_calibration(scores[:, 0], labels, method=method)
    assert (np.diff(calibration(np.linspace(-9, 9, 500))) >= 0).all()
    assert Calibration.from_dict(json.loads(json.dumps(calibration.as_dict()))) == calibration
    assert np.isnan(calibration(math.nan))


@pytest.mark.parametrize("gap", [1e-3, 0.0, 5.0])
def test_separated_scores_get_a_bounded_slope_and_a_warning(gap):
    scores = np.concatenate([np.linspace(-2, 0, 30), np.linspace(gap, gap + 2, 40)])
    labels = np.repeat([0, 1], [30, 40])
    with pytest.warns(UserWarning, match="separate the bona fide"):
        calibration = fit_calibration(scores, labels)
    ratios = calibration(scores)
    # Platt's targets (n + 1) / (n + 2) and 1 / (n + 2) bound the odds of typical clips.
    assert 0 < ratios[labels == 1].mean() < 2 * math.log(41)
    assert np.abs(ratios).max() < 20


def test_systems_that_only_separate_together_get_bounded_weights():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    noise = generator.normal(size=60)
    features = np.stack([noise + 0.1 * labels, -noise + 0.1 * labels], axis=1)
    with pytest.warns(UserWarning, match="separate the bona fide"):
        weights, offset = fit_logistic(features, labels)
    assert np.abs(features @ weights + offset).max() < 20


def test_the_penalty_shrinks_the_weights_in_any_units():
    features, labels = drawn(n_systems=2)
    free, _ = fit_logistic(features, labels)
    shrunk, _ = fit_logistic(features, labels, l2=0.1)
    assert (np.abs(shrunk) < np.abs(free)).all()
    rescaled, _ = fit_logistic(features * [1000, 0.001], labels, l2=0.1)
    np.testing.assert_allclose(rescaled * [1000, 0.001], shrunk, atol=1e-6)


@pytest.mark.parametrize("method", ["affine", "pav"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores, labels: (-scores, labels), "--higher_is spoof"),
        (lambda scores, labels: (np.ones_like(scores), labels), "carry no information"),
        (lambda scores, labels: (scores, np.ones_like(labels)), "are bona fide"),
        (lambda scores, labels: (scores[296:304], labels[296:304]), "4 bona fide and 4 spoofed clips, too few"),
        (lambda scores, labels: (np.where(labels == 1, np.nan, scores), labels), "NaN"),
        (lambda scores, labels: (scores, labels[:-1]), "1000 scores but 999 labels"),
    ],
)
def test_refuses_what_cannot_be_calibrated(method, change, message):
    scores, labels = drawn()
    with pytest.raises(ValueError, match=message):
        fit_calibration(*change(scores[:, 0], labels), method=method)


def test_few_clips_warn():
    scores, labels = drawn(20, 30)
    with pytest.warns(UserWarning, match="only 20 bona fide and 30 spoofed"):
        fit_calibration(scores[:, 0], labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prior": 0}, "between 0 and 1"), ({"prior": 1.0}, "between 0 and 1"), ({"method": "platt"}, "affine, pav")],
)
def test_refuses_options_out_of_range(options, message):
    scores, labels = drawn()
    with pytest.raises(ValueError, match=message):
        fit_calibration(scores[:, 0], labels, **options)


def test_refuses_features_that_cannot_be_fitted():
    features, labels = drawn(n_systems=2)
    with pytest.raises(ValueError, match="shape"):
        fit_logistic(features[:, 0], labels)
    with pytest.raises(ValueError, match="column 1"):
        fit_logistic(features * [1, 0], labels)
    with pytest.raises(ValueError, match="l2"):
        fit_logistic(features, labels, l2=-1)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"method": "affine", "prior": 0.5, "slope": 1.0},
        {"method": "affine", "prior": 0.5, "slope": -1.0, "offset": 0.0},
        {"method": "affine", "prior": 0.5, "slope": math.inf, "offset": 0.0},
        {"method": "affine", "prior": 0.5, "slope": 1.0, "offset": math.nan},
        {"method": "pav", "prior": 0.5, "knots": [[0.0, 0.0]]},
        {"method": "pav", "prior": 0.5, "knots": [[0.0, 0.0], [1.0, -1.0]]},
        {"method": "pav", "prior": 0.5, "knots": 3},
        {"method": "platt", "prior": 0.5, "knots": [[0.0, 0.0], [1.0, 1.0]]},
    ],
)
def test_refuses_damaged_calibrations(content):
    with pytest.raises(ValueError, match=r"alibration"):
        Calibration.from_dict(content)
