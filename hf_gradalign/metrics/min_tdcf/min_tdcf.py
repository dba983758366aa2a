"""The minimum tandem detection cost, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class MinTandemDetectionCost(evaluate_module.ScoreMetric, key="min_tdcf"):
    """The minimum tandem detection cost of all clips that were added."""
