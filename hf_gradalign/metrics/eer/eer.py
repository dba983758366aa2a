"""The equal error rate, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class EqualErrorRate(evaluate_module.ScoreMetric, key="eer"):
    """The equal error rate of all clips that were added."""
