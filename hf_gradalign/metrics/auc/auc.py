"""Area under the ROC curve as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import roc_auc
from hf_gradalign.metrics.evaluate_module import LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The area under the receiver operating characteristic: the chance that a bona fide clip scores higher than a spoofed
one, equal scores counting half. 1 is perfect, 0.5 is chance.
"""

_CITATION = """
@article{hanley1982meaning,
  title   = {The meaning and use of the area under a receiver operating characteristic ({ROC}) curve},
  author  = {Hanley, James A. and McNeil, Barbara J.},
  journal = {Radiology},
  volume  = {143},
  number  = {1},
  pages   = {29--36},
  year    = {1982}
}
"""

_USAGE = usage(
    takes=[SCORES, LABELS],
    gives=[
        "roc_auc (`float`): the area, in [0, 1].",
    ],
    example="""    >>> auc = evaluate.load("hf_gradalign/metrics/auc")
    >>> auc.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'roc_auc': 0.8888888888888888}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class RocAuc(evaluate.Metric):
    """Area under the ROC curve over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int]) -> dict[str, float]:
        return roc_auc(prediction_scores, references)
