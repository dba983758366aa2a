"""Metrics as objects that compute one number from counted scores, for tables, bootstrap intervals and breakdowns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

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
from hf_gradalign.metrics.functional.eer import (
    equal_error_rate,
    interpolated_equal_error,
    interpolated_equal_error_rate,
    official_equal_error,
)
from hf_gradalign.metrics.functional.ranked_scores import CountedScores, RankedScores
from hf_gradalign.metrics.functional.t_dcf import (
    AsvErrorRates,
    TandemCosts,
    TandemForm,
    cheapest_tandem,
    tandem_weights,
)

MetricFunction: TypeAlias = Callable[[NDArray, NDArray], float]


@dataclass(frozen=True)
class Metric:
    """One number that says how well scores separate the classes.

    Attributes:
        name: The key of the metric in results.
        title: The name of the metric in tables and figures.
        compute: The number for counted scores.
        is_percentage: Whether the number is displayed as a percentage.
        higher_is_better: Whether a higher number means a better system.
        function: The function of plain scores and labels that returns the number first. `as_metric` recognizes it.
    """

    name: str
    title: str
    compute: Callable[[CountedScores], float]
    is_percentage: bool = False
    higher_is_better: bool = False
    function: Callable[..., Mapping[str, float]] | None = None

    def __call__(self, scores: ArrayLike, labels: ArrayLike) -> float:
        """Compute the number for plain scores, shape (clips,), with labels 1 bona fide and 0 spoof."""
        return self.compute(RankedScores(scores, labels).counted())

    def format(self, value: float) -> str:
        """Format a value for a table; NaN becomes `n/a`, and -0 becomes 0."""
        return format_value(value, self.is_percentage)


def format_value(value: float, is_percentage: bool) -> str:
    """See `Metric.format`."""
    if np.isnan(value):
        return "n/a"
    text = f"{100 * value:.3f}" if is_percentage else f"{value:.5f}"
    return text.removeprefix("-") if float(text) == 0 else text


MetricLike: TypeAlias = str | Metric | Callable[[Any, Any], float | Mapping[str, float]]
"""A name in `METRICS`, a `Metric`, or a function of scores and labels."""


def detection_cost_metrics(costs: DetectionCosts | None = None) -> list[Metric]:
    """Return the minDCF and the actDCF with these costs; the default is ASVspoof 5's."""
    costs = costs or DetectionCosts()
    return [
        Metric("min_dcf", "minDCF", lambda counted: cheapest_threshold(counted, costs)[0], function=min_detection_cost),
        Metric("act_dcf", "actDCF", lambda counted: actual_cost(counted, costs), function=actual_detection_cost),
    ]


def tandem_metric(asv: AsvErrorRates, form: TandemForm = "2021", costs: TandemCosts | None = None) -> Metric:
    """Return the min t-DCF with this speaker verifier."""
    weights = tandem_weights(asv, form, costs)
    name, title = ("min_tdcf", "min t-DCF") if form == "2021" else ("min_tdcf_2019", "min t-DCF (2019)")
    return Metric(name, title, lambda counted: cheapest_tandem(counted, weights)[0])


def decision_metrics(threshold: float) -> list[Metric]:
    """Return accuracy, balanced accuracy, F1 and both error rates at this threshold."""
    titles = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1": "F1 (bona fide)",
        "f1_spoof": "F1 (spoof)",
        "f1_macro": "F1 (macro)",
        "false_rejection_rate": "FRR",
        "false_acceptance_rate": "FAR",
    }

    def metric(name: str) -> Metric:
        return Metric(
            name,
            titles[name],
            lambda counted: decisions(counted, threshold)[name],
            is_percentage=True,
            higher_is_better=not name.endswith("_rate"),
        )

    return [metric(name) for name in titles]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "eer",
            "EER",
            lambda counted: official_equal_error(counted).rate,
            is_percentage=True,
            function=equal_error_rate,
        ),
        Metric(
            "eer_interpolated",
            "EER (interpolated)",
            lambda counted: interpolated_equal_error(counted).rate,
            is_percentage=True,
            function=interpolated_equal_error_rate,
        ),
        *detection_cost_metrics(),
        Metric("cllr", "Cllr", ratio_cost, function=log_likelihood_ratio_cost),
        Metric("roc_auc", "ROC-AUC", area_under_curve, is_percentage=True, higher_is_better=True, function=roc_auc),
    )
}
"""The metrics that need only scores and labels, by name."""


def as_metric(metric: MetricLike) -> Metric | MetricFunction:
    """Return the `Metric` for a name or for a function of this package; wrap any other function to return one number.

    If a function returns a mapping, its first entry is the number.

    Raises:
        ValueError: If there is no metric of that name.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        if metric not in METRICS:
            raise ValueError(f"There is no metric {metric!r}. Available metrics: {', '.join(METRICS)}.")
        return METRICS[metric]
    for known in METRICS.values():
        if metric is known.function:
            return known

    def number(scores: NDArray, labels: NDArray) -> float:
        result = metric(scores, labels)
        return float(next(iter(result.values())) if isinstance(result, Mapping) else result)

    return number


def named_metrics(metrics: MetricLike | Sequence[MetricLike]) -> dict[str, Metric | MetricFunction]:
    """Return metrics by name; a function from outside this package keeps its own name.

    Raises:
        ValueError: If two metrics have the same name.
    """
    is_one = isinstance(metrics, str | Metric) or callable(metrics)
    requested = cast("list[MetricLike]", [metrics] if is_one else list(cast("Sequence[MetricLike]", metrics)))
    named: dict[str, Metric | MetricFunction] = {}
    for requested_metric in requested:
        metric = as_metric(requested_metric)
        name = metric.name if isinstance(metric, Metric) else getattr(requested_metric, "__name__", "metric")
        if name in named:
            raise ValueError(
                f"Two metrics are named {name}. Results are stored by name: give each metric its own name."
            )
        named[name] = metric
    return named
