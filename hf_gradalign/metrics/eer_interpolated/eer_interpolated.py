"""The interpolated equal error rate, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class InterpolatedEqualErrorRate(evaluate_module.ScoreMetric, key="eer_interpolated"):
    """The interpolated equal error rate of all clips that were added."""
