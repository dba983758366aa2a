"""The spoof acceptance rate at a fixed threshold, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class SpoofAcceptance(evaluate_module.ScoreMetric, key="spoof_acceptance"):
    """The spoof acceptance rate of all clips that were added."""
