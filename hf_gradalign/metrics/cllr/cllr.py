"""The cost of log-likelihood ratios, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class LogLikelihoodRatioCost(evaluate_module.ScoreMetric, key="cllr"):
    """The cost of log-likelihood ratios of all clips that were added."""
