"""Metrics of spoofing countermeasures. Each metric also has a subfolder, which is a module for `evaluate.load`."""

from hf_gradalign.metrics.functional.a_dcf import ASVSPOOF5_AGNOSTIC_COSTS, AgnosticCosts, min_agnostic_detection_cost
from hf_gradalign.metrics.functional.accuracy import accuracy_at_threshold, spoof_acceptance_rate
from hf_gradalign.metrics.functional.auc import roc_auc
from hf_gradalign.metrics.functional.calibration import (
    Calibration,
    CalibrationMethod,
    fit_calibration,
    fit_logistic,
    min_log_likelihood_ratio_cost,
)
from hf_gradalign.metrics.functional.cllr import log_likelihood_ratio_cost
from hf_gradalign.metrics.functional.dcf import DetectionCosts, actual_detection_cost, min_detection_cost
from hf_gradalign.metrics.functional.eer import (
    DetectionErrorCurve,
    detection_error_curve,
    equal_error_rate,
    interpolated_equal_error_rate,
    score_problems,
)
from hf_gradalign.metrics.functional.localization import (
    Ranges,
    cells_of_windows,
    range_equal_error_rate,
    segment_equal_error_rate,
)
from hf_gradalign.metrics.functional.ranked_scores import TRIAL_TYPES, CountedScores, RankedScores
from hf_gradalign.metrics.functional.t_dcf import (
    ASVSPOOF5_ASV,
    AsvErrorRates,
    TandemCosts,
    asv_error_rates,
    min_tandem_detection_cost,
)
from hf_gradalign.metrics.registry import (
    METRICS,
    Metric,
    MetricLike,
    decision_metrics,
    detection_cost_metrics,
    tandem_metric,
)
from hf_gradalign.metrics.stats.bootstrap import Interval, bootstrap_intervals
from hf_gradalign.metrics.stats.breakdown import Breakdown, Group, break_down, equal_error_rate_by_system
from hf_gradalign.metrics.stats.comparison import Comparison, compare_systems

__all__ = [
    "ASVSPOOF5_AGNOSTIC_COSTS",
    "ASVSPOOF5_ASV",
    "METRICS",
    "TRIAL_TYPES",
    "AgnosticCosts",
    "AsvErrorRates",
    "Breakdown",
    "Calibration",
    "CalibrationMethod",
    "Comparison",
    "CountedScores",
    "DetectionCosts",
    "DetectionErrorCurve",
    "Group",
    "Interval",
    "Metric",
    "MetricLike",
    "Ranges",
    "RankedScores",
    "TandemCosts",
    "accuracy_at_threshold",
    "actual_detection_cost",
    "asv_error_rates",
    "bootstrap_intervals",
    "break_down",
    "cells_of_windows",
    "compare_systems",
    "decision_metrics",
    "detection_cost_metrics",
    "detection_error_curve",
    "equal_error_rate",
    "equal_error_rate_by_system",
    "fit_calibration",
    "fit_logistic",
    "interpolated_equal_error_rate",
    "log_likelihood_ratio_cost",
    "min_agnostic_detection_cost",
    "min_detection_cost",
    "min_log_likelihood_ratio_cost",
    "min_tandem_detection_cost",
    "range_equal_error_rate",
    "roc_auc",
    "score_problems",
    "segment_equal_error_rate",
    "spoof_acceptance_rate",
    "tandem_metric",
]
