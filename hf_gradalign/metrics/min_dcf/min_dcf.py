"""Minimum detection cost as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import min_detection_cost
from hf_gradalign.metrics.evaluate_module import ASVSPOOF5, LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The detection cost of ASVspoof 5, track 1 (minDCF), at the threshold that is best for the clips themselves. 0 is
perfect, 1 is what deciding without looking costs.
"""

_USAGE = usage(
    takes=[
        SCORES,
        LABELS,
        "p_spoof (`float`): prior probability of a spoof (0.05).",
        "c_miss (`float`): cost of rejecting a bona fide clip (1).",
        "c_fa (`float`): cost of accepting a spoofed clip (10).",
    ],
    gives=[
        "min_dcf (`float`): the normalised cost.",
        "threshold (`float`): the score up to and including which a clip is rejected.",
    ],
    example="""    >>> min_dcf = evaluate.load("hf_gradalign/metrics/min_dcf")
    >>> min_dcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'min_dcf': 0.3333333333333333, 'threshold': -1.0}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class MinDetectionCost(evaluate.Metric):
    """Minimum detection cost over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, ASVSPOOF5, _USAGE)

    def _compute(
        self,
        prediction_scores: list[float],
        references: list[int],
        p_spoof: float = 0.05,
        c_miss: float = 1.0,
        c_fa: float = 10.0,
    ) -> dict[str, float]:
        return min_detection_cost(prediction_scores, references, p_spoof=p_spoof, c_miss=c_miss, c_fa=c_fa)
