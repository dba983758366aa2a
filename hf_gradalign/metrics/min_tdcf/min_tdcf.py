"""Minimum tandem detection cost as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import AsvErrorRates, min_tandem_detection_cost
from hf_gradalign.metrics.evaluate_module import LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The normalised cost (min t-DCF) of a countermeasure in front of a speaker verifier, at the countermeasure's best
threshold: the form of ASVspoof 2021 and 5, or the legacy one of ASVspoof 2019.
"""

_CITATION = """
@article{kinnunen2020tandem,
  title   = {Tandem assessment of spoofing countermeasures and automatic speaker verification: Fundamentals},
  author  = {Kinnunen, Tomi and Delgado, H{\\'e}ctor and Evans, Nicholas and others},
  journal = {IEEE/ACM Transactions on Audio, Speech, and Language Processing},
  volume  = {28},
  pages   = {2195--2210},
  year    = {2020}
}
"""

_USAGE = usage(
    takes=[
        SCORES,
        LABELS,
        "asv_miss (`float`): share of target trials that the verifier rejects.",
        "asv_false_alarm (`float`): share of non-target trials that it accepts.",
        "asv_spoof_false_alarm (`float`): share of spoofed trials that it accepts.",
        'form (`str`): "2021" (the default) or "2019".',
    ],
    gives=[
        "min_tdcf (`float`): the normalised cost, in [0, 1].",
        "threshold (`float`): the score up to and including which a clip is rejected.",
    ],
    example="""    >>> min_tdcf = evaluate.load("hf_gradalign/metrics/min_tdcf")
    >>> min_tdcf.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0],
    ...     references=[0, 0, 0, 1, 1, 1],
    ...     asv_miss=0.02, asv_false_alarm=0.02, asv_spoof_false_alarm=0.4)
    {'min_tdcf': 0.39588902481385824, 'threshold': -1.0}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class MinTandemDetectionCost(evaluate.Metric):
    """Minimum tandem detection cost over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE)

    def _compute(
        self,
        prediction_scores: list[float],
        references: list[int],
        asv_miss: float,
        asv_false_alarm: float,
        asv_spoof_false_alarm: float,
        form: str = "2021",
    ) -> dict[str, float]:
        return min_tandem_detection_cost(
            prediction_scores,
            references,
            AsvErrorRates(asv_miss, asv_false_alarm, asv_spoof_false_alarm),
            form=form,
        )
