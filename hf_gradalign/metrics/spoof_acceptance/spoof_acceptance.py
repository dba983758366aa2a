"""Spoof acceptance rate at a fixed threshold as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import spoof_acceptance_rate
from hf_gradalign.metrics.evaluate_module import LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The share of spoofed clips that are taken for bona fide at a threshold that was fixed on other data: for sets without
bona fide clips, which have no equal error rate. It is 1 - SRR of the Speech Anti-Spoofing Arena.
"""

_CITATION = """
@misc{speech_spoof_bench,
  title  = {{speech_spoof_bench}: the tool of the Speech Anti-Spoofing Arena},
  author = {lab260ru},
  url    = {https://github.com/lab260ru/speech_spoof_bench}
}
"""

_USAGE = usage(
    takes=[
        SCORES,
        LABELS,
        "threshold (`float`): the least score of a clip that is taken for bona fide.",
    ],
    gives=[
        "spoof_acceptance_rate (`float`): a fraction in [0, 1].",
    ],
    example="""    >>> spoof_acceptance = evaluate.load("hf_gradalign/metrics/spoof_acceptance")
    >>> spoof_acceptance.compute(prediction_scores=[-2.0, -1.0, 0.5], references=[0, 0, 0], threshold=0.25)
    {'spoof_acceptance_rate': 0.33333333333333337}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class SpoofAcceptance(evaluate.Metric):
    """Spoof acceptance rate over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int], threshold: float) -> dict[str, float]:
        return spoof_acceptance_rate(prediction_scores, references, threshold)
