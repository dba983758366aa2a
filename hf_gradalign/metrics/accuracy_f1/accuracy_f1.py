"""Accuracy and F1 at a fixed threshold as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import accuracy_at_threshold
from hf_gradalign.metrics.evaluate_module import LABELS, SCORES, module_info, usage

_DESCRIPTION = """
Accuracy, F1 and both error rates where clips with a score of the threshold or more are taken for bona fide. The
threshold has to be fixed beforehand, on development data.
"""

_USAGE = usage(
    takes=[
        SCORES,
        LABELS,
        "threshold (`float`): the least score of a clip that is taken for bona fide.",
    ],
    gives=[
        "accuracy, balanced_accuracy (`float`): fractions in [0, 1].",
        "f1, f1_spoof, f1_macro (`float`): F1 with bona fide as the positive class, with spoof, and their mean.",
        "false_rejection_rate (`float`): of bona fide clips.",
        "false_acceptance_rate (`float`): of spoofed clips.",
    ],
    example="""    >>> accuracy = evaluate.load("hf_gradalign/metrics/accuracy_f1")
    >>> scores, labels = [-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], [0, 0, 0, 1, 1, 1]
    >>> accuracy.compute(prediction_scores=scores, references=labels, threshold=0.25)["f1"]
    0.6666666666666666""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class AccuracyAtThreshold(evaluate.Metric):
    """Accuracy and F1 over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, "", _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int], threshold: float) -> dict[str, float]:
        return accuracy_at_threshold(prediction_scores, references, threshold)
