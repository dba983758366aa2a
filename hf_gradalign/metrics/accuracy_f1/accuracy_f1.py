"""Accuracy and F1 at a fixed threshold, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class AccuracyAtThreshold(evaluate_module.ScoreMetric, key="accuracy_f1"):
    """Accuracy and F1 of all clips that were added."""
