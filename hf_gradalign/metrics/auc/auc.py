"""The area under the ROC curve, for `evaluate.load("<this folder>")`."""

from hf_gradalign.metrics import evaluate_module


class RocAuc(evaluate_module.ScoreMetric, key="auc"):
    """The area under the ROC curve of all clips that were added."""
