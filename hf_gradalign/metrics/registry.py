"""Metrics in the form that resampling and breakdowns take: one number of counted scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics.functional.accuracy import decisions
from hf_gradalign.metrics.functional.auc import area_under_curve, roc_auc
from hf_gradalign.metrics.functional.cllr import log_likelihood_ratio_cost, ratio_cost
from hf_gradalign.metrics.functional.dcf import (
    DetectionCosts,
    actual_cost,
    actual_detection_cost,
    cheapest_threshold,
    min_detection_cost,
)
from hf_gradalign.metrics.functional.det_curve import equal_error_rate, interpolated_equal_error_rate
from hf_gradalign.metrics.functional.eer import interpolated_equal_error, official_equal_error
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores
from hf_gradalign.metrics.functional.t_dcf import (
    AsvErrorRates,
    TandemCosts,
    TandemForm,
    cheapest_tandem,
    tandem_weights,
)


@dataclass(frozen=True)
class Measure:
    """One number that says how well scores tell the classes apart.

    Attributes:
        name: For keys of results.
        title: For tables and figures.
        of: The number, of counted scores.
        is_percentage: Whether it is shown in per cent.
        is_better_higher: Whether more is better.
    """

    name: str
    title: str
    of: Callable[[CountedScores], float]
    is_percentage: bool = False
    is_better_higher: bool = False

    def __call__(self, scores: ArrayLike, labels: ArrayLike) -> float:
        """The number of plain scores, shape (clips,), with labels 1 bona fide and 0 spoof."""
        return self.of(RankedScores(scores, labels).counted())

    def shown(self, value: float) -> str:
        """The number as tables have it; `n/a` for NaN."""
        if np.isnan(value):
            return "n/a"
        return f"{100 * value:.3f}" if self.is_percentage else f"{value:.5f}"


Metric = str | Measure | Callable[[Any, Any], float | Mapping[str, float]]
"""What resampling takes for a metric: a name in `MEASURES`, a `Measure`, or any function of scores and labels."""


def detection_cost_measures(costs: DetectionCosts | None = None) -> list[Measure]:
    """The minDCF and the actDCF with these costs; by default ASVspoof 5's."""
    costs = costs or DetectionCosts()
    return [
        Measure("min_dcf", "minDCF", lambda counted: cheapest_threshold(counted, costs)[0]),
        Measure("act_dcf", "actDCF", lambda counted: actual_cost(counted, costs)),
    ]


def tandem_measure(asv: AsvErrorRates, form: TandemForm = "2021", costs: TandemCosts | None = None) -> Measure:
    """The min t-DCF with this verifier."""
    weights = tandem_weights(asv, form, costs)
    name, title = ("min_tdcf", "min t-DCF") if form == "2021" else ("min_tdcf_2019", "min t-DCF (2019)")
    return Measure(name, title, lambda counted: cheapest_tandem(counted, weights)[0])


def decision_measures(threshold: float) -> list[Measure]:
    """Accuracy, balanced accuracy and F1 at this threshold."""
    titles = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1": "F1 (bona fide)",
        "f1_spoof": "F1 (spoof)",
        "f1_macro": "F1 (macro)",
    }

    def measure(name: str) -> Measure:
        return Measure(name, titles[name], lambda counted: decisions(counted, threshold)[name], True, True)

    return [measure(name) for name in titles]


_MIN_DCF, _ACT_DCF = detection_cost_measures()

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("eer", "EER", lambda counted: official_equal_error(counted).rate, True),
        Measure("eer_interpolated", "EER (interpolated)", lambda counted: interpolated_equal_error(counted).rate, True),
        _MIN_DCF,
        _ACT_DCF,
        Measure("cllr", "Cllr", ratio_cost),
        Measure("roc_auc", "ROC-AUC", area_under_curve, True, True),
    )
}
"""By name: what needs nothing but scores and labels."""

_OF_FUNCTIONS: dict[Any, str] = {
    equal_error_rate: "eer",
    interpolated_equal_error_rate: "eer_interpolated",
    min_detection_cost: "min_dcf",
    actual_detection_cost: "act_dcf",
    log_likelihood_ratio_cost: "cllr",
    roc_auc: "roc_auc",
}


def as_measure(metric: Metric) -> Measure | Callable[[NDArray, NDArray], float]:
    """The measure that is meant, or, for a function that this package does not know, that function with one number.

    Of a function's mapping the first entry is taken.

    Raises:
        ValueError: If there is no measure of that name.
    """
    if isinstance(metric, Measure):
        return metric
    if isinstance(metric, str):
        if metric not in MEASURES:
            raise ValueError(f"There is no metric {metric!r}; there are {', '.join(MEASURES)}.")
        return MEASURES[metric]
    if metric in _OF_FUNCTIONS:
        return MEASURES[_OF_FUNCTIONS[metric]]

    def number(scores: NDArray, labels: NDArray) -> float:
        result = metric(scores, labels)
        return float(next(iter(result.values())) if isinstance(result, Mapping) else result)

    return number


def named_metrics(metrics: Metric | Sequence[Metric]) -> dict[str, Measure | Callable[[NDArray, NDArray], float]]:
    """Metrics by name; functions that are not of this package go by their own.

    Raises:
        ValueError: If two have the same name.
    """
    listed = [metrics] if isinstance(metrics, str | Measure) or callable(metrics) else list(metrics)
    named: dict[str, Measure | Callable[[NDArray, NDArray], float]] = {}
    for metric in listed:
        measure = as_measure(metric)
        name = measure.name if isinstance(measure, Measure) else getattr(metric, "__name__", "metric")
        if name in named:
            raise ValueError(f"Two metrics are called {name}: results are kept by name.")
        named[name] = measure
    return named
