"""Actual detection cost as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import actual_detection_cost
from hf_gradalign.metrics.evaluate_module import ASVSPOOF5, LABELS, RATIOS, module_info, usage

_DESCRIPTION = """
The detection cost of ASVspoof 5, track 1 (actDCF), at the threshold that is right for log-likelihood ratios. 0 is
perfect, 1 is what deciding without looking costs; scores that are badly calibrated may cost more.
"""

_USAGE = usage(
    takes=[
        RATIOS,
        LABELS,
        "p_spoof (`float`): prior probability of a spoof (0.05).",
        "c_miss (`float`): cost of rejecting a bona fide clip (1).",
        "c_fa (`float`): cost of accepting a spoofed clip (10).",
    ],
    gives=[
        "act_dcf (`float`): the normalised cost.",
        "threshold (`float`): the least score of a clip that is accepted.",
    ],
    example="""    >>> act_dcf = evaluate.load("hf_gradalign/metrics/act_dcf")
    >>> act_dcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'act_dcf': 0.3333333333333333, 'threshold': -0.6418538861723947}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class ActualDetectionCost(evaluate.Metric):
    """Actual detection cost over all the clips that were added."""

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
        return actual_detection_cost(prediction_scores, references, p_spoof=p_spoof, c_miss=c_miss, c_fa=c_fa)
