"""Calibration: maps a detector's scores to log-likelihood ratios. Also the lowest Cllr that calibration can reach.

A log-likelihood ratio (LLR) says how many times more probable the score is for bona fide speech than for spoofed
speech, as a natural logarithm. With any prior and costs, the best decision follows from it (`DetectionCosts`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.checks import check_scores
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

CalibrationMethod = Literal["affine", "pav"]

MIN_TRIALS = 5
"""The fewest clips of a class that a calibration is fitted on."""
_FEW_TRIALS = 50
# The largest absolute component of the gradient at the optimum of the logistic regression, in nats.
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """A non-decreasing map from scores to log-likelihood ratios.

    Attributes:
        method: "affine" (`slope * score + offset`) or "pav" (straight lines between `knots`, and constant outside).
        prior: The prior probability of bona fide clips in the fit, in (0, 1). It is not part of the ratios.
        slope: The slope of an affine calibration, positive and finite.
        offset: Its offset.
        knots: Pairs of a score and its log-likelihood ratio of a PAV calibration. The scores ascend, and the ratios do
            not fall.

    Raises:
        ValueError: If a number is missing, not finite or out of its range.
    """

    method: CalibrationMethod
    prior: float = 0.5
    slope: float | None = None
    offset: float | None = None
    knots: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        _require_prior(self.prior)
        if self.method == "affine":
            if self.slope is None or self.offset is None or not (0 < self.slope < math.inf):
                raise ValueError(
                    f"An affine calibration needs a positive slope and an offset, not {self.slope} and {self.offset}."
                )
            if not math.isfinite(self.offset):
                raise ValueError(f"The offset of a calibration must be finite, not {self.offset}.")
        elif self.method == "pav":
            knots = np.array(self.knots, dtype=np.float64)
            if knots.ndim != 2 or knots.shape[1] != 2 or len(knots) < 2 or not np.isfinite(knots).all():
                raise ValueError("A PAV calibration needs at least two knots, pairs of finite numbers.")
            if (np.diff(knots[:, 0]) <= 0).any() or (np.diff(knots[:, 1]) < 0).any():
                raise ValueError("The scores of a PAV calibration's knots must ascend, and their ratios must not fall.")
        else:
            raise ValueError(_unknown_method(self.method))

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Map scores of any shape to log-likelihood ratios (natural logarithm). NaN stays NaN."""
        scores = np.asarray(scores, dtype=np.float64)
        if self.method == "affine":
            return self.slope * scores + self.offset
        knots = np.array(self.knots)
        return np.interp(scores, knots[:, 0], knots[:, 1])

    def as_dict(self) -> dict[str, Any]:
        """Return the calibration for JSON, with the entries of its method only."""
        if self.method == "affine":
            return {"method": "affine", "slope": self.slope, "offset": self.offset, "prior": self.prior}
        return {"method": "pav", "knots": [list(knot) for knot in self.knots], "prior": self.prior}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `as_dict` wrote. Other entries are ignored.

        Raises:
            ValueError: If an entry is missing or out of its range.
        """
        try:
            method, prior = content["method"], float(content["prior"])
            if method == "affine":
                return cls(method, prior, slope=float(content["slope"]), offset=float(content["offset"]))
            return cls(method, prior, knots=tuple((float(score), float(ratio)) for score, ratio in content["knots"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"This is not a calibration ({type(error).__name__}: {error}).") from error


def fit_calibration(
    scores: ArrayLike, labels: ArrayLike, *, method: CalibrationMethod = "affine", prior: float = 0.5
) -> Calibration:
    """Fit a calibration to clips with labels.

    "affine" is prior-weighted logistic regression (`fit_logistic`): two numbers, which keep the order of the scores.
    "pav" is isotonic regression by the pool-adjacent-violators algorithm: the best non-decreasing map for these clips
    which needs thousands of them, and which maps many scores to one ratio. A bona fide and a spoofed clip are added
    at either end, so that its ratios are finite (Brümmer and du Preez, "The PAV algorithm optimizes binary proper
    scoring rules", 2013).

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        method: "affine" or "pav".
        prior: The prior probability of bona fide clips near which ratios should be best, in (0, 1). The classes are
            weighted as if they had this share.

    Returns:
        The map from scores to log-likelihood ratios.

    Warns:
        UserWarning: If a class has fewer than 50 clips, or the scores separate the classes.

    Raises:
        ValueError: If there are fewer than 5 clips of a class, the scores do not rise from spoofed to bona fide clips,
            or an argument is out of range; as for `equal_error_rate`.
    """
    if method not in get_args(CalibrationMethod):
        raise ValueError(_unknown_method(method))
    _require_prior(prior)
    scores, is_bonafide = check_scores(scores, labels)
    n_bonafide, n_spoof = _count_trials(is_bonafide)
    if min(n_bonafide, n_spoof) < _FEW_TRIALS:
        warnings.warn(
            f"The calibration is fitted on only {n_bonafide} bona fide and {n_spoof} spoofed clips: it is uncertain.",
            UserWarning,
            stacklevel=2,
        )
    return fit_unchecked(scores, is_bonafide, method, prior)


def fit_unchecked(
    scores: NDArray[np.float64], is_bonafide: NDArray[np.bool_], method: CalibrationMethod, prior: float
) -> Calibration:
    """Fit like `fit_calibration`, without checking the arguments and the number of clips."""
    _require_rising(scores, is_bonafide)
    if method == "pav":
        return Calibration("pav", prior, knots=_pav_knots(scores, is_bonafide, prior))
    (slope,), offset = fit_logistic(scores[:, None], is_bonafide.astype(int), prior=prior)
    return Calibration("affine", prior, float(slope), offset)


def fit_logistic(
    features: ArrayLike, labels: ArrayLike, *, prior: float = 0.5, l2: float = 0.0
) -> tuple[NDArray[np.float64], float]:
    """Fit weights and an offset so that `features @ weights + offset` is a log-likelihood ratio.

    Minimizes `prior * mean ln(1 + exp(-(r + logit prior))) over bona fide + (1 - prior) * mean ln(1 + exp(r + logit
    prior)) over spoof + l2 / 2 * sum of squared weights` over `r = features @ weights + offset`. This is prior-weighted
    logistic regression (Brümmer and du Preez, "Application-independent evaluation of speaker detection", Computer
    Speech & Language 20, 2006). With a prior of 0.5 and no penalty, the loss is Cllr times ln 2.

    If the features separate the classes and there is no penalty, the best weights are infinite. Labels are then
    replaced by probabilities (n_bonafide + 1) / (n_bonafide + 2) and 1 / (n_spoof + 2) (Platt, "Probabilistic outputs
    for support vector machines", 1999), and a warning says so.

    Args:
        features: Scores of one or more systems, higher for bona fide, shape (clips, systems).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).
        prior: The prior probability of bona fide clips, in (0, 1). It is taken out of the offset.
        l2: The strength of the penalty, 0 or more. The penalty applies to the weights of features that are scaled to
            unit variance, so it does not depend on their units.

    Returns:
        The weights, shape (systems,), and the offset, in nats.

    Warns:
        UserWarning: If the features separate the classes and `l2` is 0.

    Raises:
        ValueError: If shapes do not match, a feature is not finite or constant, all clips are of one class, or `prior`
            or `l2` is out of range.
    """
    _require_prior(prior)
    if not 0 <= l2 < math.inf:
        raise ValueError(f"l2 must be 0 or more, not {l2}.")
    features, is_bonafide = _check_features(features, labels)
    sample_weights = np.where(is_bonafide, prior / is_bonafide.sum(), (1 - prior) / (~is_bonafide).sum())
    centers = np.average(features, axis=0, weights=sample_weights)
    scales = np.sqrt(np.average((features - centers) ** 2, axis=0, weights=sample_weights))
    if (constant := np.flatnonzero(np.ptp(features, axis=0) == 0)).size:
        which = f" in column {constant[0]} of the features" if features.shape[1] > 1 else ""
        raise ValueError(f"All scores{which} are equal, so they carry no information. Check the system that made them.")
    standardized = (features - centers) / scales
    # Do not fit a single system that separates the classes, because the fit would be thrown away.
    fitted = None
    if l2 or features.shape[1] > 1 or not _separates(standardized[:, 0], is_bonafide):
        fitted = _regress(standardized, is_bonafide, sample_weights, l2)
    if fitted is None or (not l2 and _separates(standardized @ fitted[0], is_bonafide)):
        warnings.warn(
            "The scores separate the bona fide from the spoofed clips, so the slope of the calibration is bounded by "
            "the number of clips instead of by errors (Platt's targets). Fit on more or harder clips.",
            UserWarning,
            stacklevel=2,
        )
        fitted = _regress_smoothed(standardized, is_bonafide, sample_weights)
    weights, offset = fitted[0] / scales, fitted[1]
    return weights, float(offset - centers @ weights - _logit(prior))


def min_log_likelihood_ratio_cost(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compute min Cllr in bits: the Cllr after the best non-decreasing calibration for these clips.

    It depends only on the order of the scores. Cllr minus min Cllr is what calibration could gain (Brümmer and du
    Preez, "Application-independent evaluation of speaker detection", Computer Speech & Language 20, 2006). Clips with
    equal scores get the same ratio.

    Args:
        scores: One number per clip, higher for bona fide, shape (clips,).
        labels: One label per clip, 1 bona fide and 0 spoof, shape (clips,).

    Returns:
        `min_cllr`, in [0, 1].

    Raises:
        ValueError: As for `equal_error_rate`.
    """
    return {"min_cllr": min_ratio_cost(RankedScores(scores, labels).counted())}


def min_ratio_cost(counted: CountedScores) -> float:
    """Compute min Cllr for counted scores."""
    bonafide = np.diff(counted.rejected_bonafide[counted.ranked.edges]) / (2 * counted.n_bonafide)
    spoof = np.diff(counted.rejected_spoof[counted.ranked.edges]) / (2 * counted.n_spoof)
    is_counted = bonafide + spoof > 0
    bonafide, spoof = bonafide[is_counted], spoof[is_counted]
    starts = _pool_adjacent_violators(bonafide, spoof).blocks[:-1]
    bonafide, spoof = np.add.reduceat(bonafide, starts), np.add.reduceat(spoof, starts)
    posterior = bonafide / (bonafide + spoof)
    # Where a class has no clips, its logarithm may be infinite and does not count.
    surprise = -bonafide * np.log(np.where(bonafide > 0, posterior, 1))
    surprise -= spoof * np.log(np.where(spoof > 0, 1 - posterior, 1))
    return float(surprise.sum()) / math.log(2)


_NOT_RISING = (
    "The scores of bona fide clips are not higher than those of spoofed clips on average, so they cannot be "
    "calibrated. If a higher score means spoof, turn them around (--higher_is spoof). Otherwise check the labels."
)


def _regress(
    features: NDArray[np.float64], is_bonafide: NDArray[np.bool_], sample_weights: NDArray[np.float64], l2: float
) -> tuple[NDArray[np.float64], float]:
    from sklearn.linear_model import LogisticRegression  # slow to import

    # The weights of the samples add up to 1, so that the penalty is 1 / C.
    model = LogisticRegression(C=1 / l2 if l2 else np.inf, tol=_TOLERANCE, max_iter=10_000)
    model.fit(features, is_bonafide, sample_weight=sample_weights)
    return model.coef_[0], float(model.intercept_[0])


def _regress_smoothed(
    features: NDArray[np.float64], is_bonafide: NDArray[np.bool_], sample_weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    n_bonafide = int(is_bonafide.sum())
    n_spoof = len(is_bonafide) - n_bonafide
    # Each clip stands for both classes, each with its target probability.
    p_bonafide = np.where(is_bonafide, (n_bonafide + 1) / (n_bonafide + 2), 1 / (n_spoof + 2))
    both = np.repeat([True, False], len(features))
    weights = np.concatenate([sample_weights * p_bonafide, sample_weights * (1 - p_bonafide)])
    return _regress(np.concatenate([features, features]), both, weights, 0.0)


def _separates(scores: NDArray[np.float64], is_bonafide: NDArray[np.bool_]) -> bool:
    bonafide, spoof = scores[is_bonafide], scores[~is_bonafide]
    is_apart = bonafide.min() >= spoof.max() or bonafide.max() <= spoof.min()
    return bool(is_apart and np.ptp(scores) > 0)


def _pav_knots(
    scores: NDArray[np.float64], is_bonafide: NDArray[np.bool_], prior: float
) -> tuple[tuple[float, float], ...]:
    n_bonafide = int(is_bonafide.sum())
    distinct, group_of = np.unique(scores, return_inverse=True)
    bonafide = np.bincount(group_of, weights=is_bonafide)
    spoof = np.bincount(group_of, weights=~is_bonafide)
    # The clips that are added below the lowest score and above the highest.
    bonafide, spoof = (np.concatenate([[1.0], counts, [1.0]]) for counts in (bonafide, spoof))
    bonafide *= prior / (n_bonafide + 2)
    spoof *= (1 - prior) / (len(scores) - n_bonafide + 2)
    ratios = _logit(_pool_adjacent_violators(bonafide, spoof).x[1:-1]) - _logit(prior)
    # Within a block of equal ratios, only its lowest and highest score are needed.
    starts = np.flatnonzero(np.append(True, np.diff(ratios) > 0))
    ends = np.append(starts[1:] - 1, len(ratios) - 1)
    kept = np.unique(np.concatenate([starts, ends]))
    return tuple((float(distinct[index]), float(ratios[index])) for index in kept)


def _pool_adjacent_violators(bonafide: NDArray[np.float64], spoof: NDArray[np.float64]) -> OptimizeResult:
    """Return the best non-decreasing posteriors of bona fide, `x`, for classes' weights by ascending score.

    Posteriors are equal within each of the `blocks`, from one entry to the next.
    """
    from scipy.optimize import isotonic_regression  # slow to import

    weights = bonafide + spoof
    return isotonic_regression(bonafide / weights, weights=weights)


def _logit(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


def _require_rising(scores: NDArray[np.float64], is_bonafide: NDArray[np.bool_]) -> None:
    if np.ptp(scores) == 0:
        raise ValueError("All scores are equal, so they carry no information. Check the system that made them.")
    if not scores[is_bonafide].mean() > scores[~is_bonafide].mean():
        raise ValueError(_NOT_RISING)


def _count_trials(is_bonafide: NDArray[np.bool_]) -> tuple[int, int]:
    n_bonafide = int(is_bonafide.sum())
    n_spoof = len(is_bonafide) - n_bonafide
    if min(n_bonafide, n_spoof) < MIN_TRIALS:
        raise ValueError(
            f"There are {n_bonafide} bona fide and {n_spoof} spoofed clips, too few for a calibration: use at least "
            f"{MIN_TRIALS} of each, better hundreds."
        )
    return n_bonafide, n_spoof


def _check_features(features: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not features.shape[1]:
        raise ValueError(
            f"Features must have the shape (clips, systems), with at least one system, not {features.shape}."
        )
    is_bonafide = check_scores(features[:, 0], labels)[1]
    for column in features.T[1:]:
        check_scores(column, labels)
    return features, is_bonafide


def _require_prior(prior: float) -> None:
    if not 0 < prior < 1:
        raise ValueError(f"The prior must be a probability between 0 and 1, not {prior}.")


def _unknown_method(method: object) -> str:
    return f"There is no calibration method {method!r}. Available methods: {', '.join(get_args(CalibrationMethod))}."
