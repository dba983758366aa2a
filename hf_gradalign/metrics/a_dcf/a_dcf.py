"""Minimum architecture-agnostic detection cost as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import AgnosticCosts, min_agnostic_detection_cost
from hf_gradalign.metrics.evaluate_module import SCORES, module_info, usage

_DESCRIPTION = """
The normalised cost (min a-DCF) of a speaker verifier that has to reject other speakers and spoofs alike with one
score, at its best threshold. The default costs are a-DCF1 of the paper; track 2 of ASVspoof 5 has p_target=0.9405,
p_nontarget=0.0095, p_spoof=0.05, c_fa_spoof=10.
"""

_CITATION = """
@inproceedings{shim2024adcf,
  title     = {{a-DCF}: an architecture agnostic metric with application to spoofing-robust speaker verification},
  author    = {Shim, Hye-jin and Jung, Jee-weon and Kinnunen, Tomi and others},
  booktitle = {Proc. Odyssey: The Speaker and Language Recognition Workshop},
  year      = {2024}
}
"""

_USAGE = usage(
    takes=[
        SCORES,
        'references (`list` of `str`): "target", "nontarget" or "spoof" for each trial.',
        "p_target, p_nontarget, p_spoof (`float`): prior probabilities of the three (0.9, 0.05, 0.05).",
        "c_miss, c_fa_nontarget, c_fa_spoof (`float`): costs of the three errors (1, 10, 20).",
    ],
    gives=[
        "a_dcf (`float`): the normalised cost, in [0, 1].",
        "threshold (`float`): the score up to and including which a trial is rejected.",
    ],
    example="""    >>> a_dcf = evaluate.load("hf_gradalign/metrics/a_dcf")
    >>> a_dcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0],
    ...     references=["spoof", "nontarget", "spoof", "target", "target", "target"])
    {'a_dcf': 0.3333333333333333, 'threshold': 0.5}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class MinAgnosticDetectionCost(evaluate.Metric):
    """Minimum architecture-agnostic detection cost over all the trials that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE, labels="string")

    def _compute(self, prediction_scores: list[float], references: list[str], **costs: float) -> dict[str, float]:
        return min_agnostic_detection_cost(prediction_scores, references, costs=AgnosticCosts(**costs))
