"""The actual detection cost, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class ActualDetectionCost(evaluate_module.ScoreMetric, key="act_dcf"):
    """The actual detection cost of all clips that were added."""
