"""The minimum architecture-agnostic detection cost, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class MinAgnosticDetectionCost(evaluate_module.ScoreMetric, key="a_dcf"):
    """The minimum architecture-agnostic detection cost of all clips that were added."""
