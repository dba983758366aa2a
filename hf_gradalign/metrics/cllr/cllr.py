"""Cost of log-likelihood ratios as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import log_likelihood_ratio_cost
from hf_gradalign.metrics.evaluate_module import LABELS, RATIOS, module_info, usage

_DESCRIPTION = """
The cost of log-likelihood ratios (Cllr) in bits, over all thresholds: 0 is perfect, 1 is what scores of 0 give, and
above 1 the scores do harm.
"""

_CITATION = """
@article{brummer2006application,
  title   = {Application-independent evaluation of speaker detection},
  author  = {Br{\\"u}mmer, Niko and du Preez, Johan},
  journal = {Computer Speech \\& Language},
  volume  = {20},
  number  = {2-3},
  pages   = {230--275},
  year    = {2006}
}
"""

_USAGE = usage(
    takes=[RATIOS, LABELS],
    gives=[
        "cllr (`float`): the cost in bits, not less than 0.",
    ],
    example="""    >>> cllr = evaluate.load("hf_gradalign/metrics/cllr")
    >>> cllr.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'cllr': 0.6125691708083343}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class LogLikelihoodRatioCost(evaluate.Metric):
    """Cost of log-likelihood ratios over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int]) -> dict[str, float]:
        return log_likelihood_ratio_cost(prediction_scores, references)
