"""The minimum detection cost, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class MinDetectionCost(evaluate_module.ScoreMetric, key="min_dcf"):
    """The minimum detection cost of all clips that were added."""
