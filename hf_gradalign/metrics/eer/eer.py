"""Equal error rate as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import equal_error_rate
from hf_gradalign.metrics.evaluate_module import ASVSPOOF2019, LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The equal error rate (EER) of a detector of spoofed speech is the error at the threshold where as large a share of
bona fide clips is rejected as of spoofed clips is accepted. 0 is perfect, 0.5 is chance. The point of the detection
error curve where the two rates are nearest is taken, without interpolation, as in the official scoring packages of
the ASVspoof challenges.
"""

_USAGE = usage(
    takes=[SCORES, LABELS],
    gives=[
        "eer (`float`): the equal error rate, a fraction in [0, 1].",
        "threshold (`float`): the score up to and including which a clip is rejected at that point.",
    ],
    example="""    >>> eer = evaluate.load("hf_gradalign/metrics/eer")
    >>> eer.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'eer': 0.3333333333333333, 'threshold': 0.0}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class EqualErrorRate(evaluate.Metric):
    """Equal error rate over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, ASVSPOOF2019, _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int]) -> dict[str, float]:
        return equal_error_rate(prediction_scores, references)
