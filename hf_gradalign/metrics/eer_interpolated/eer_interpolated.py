"""Interpolated equal error rate as a module of the `evaluate` library: `evaluate.load("<this folder>")`.

`evaluate` copies this file elsewhere before it runs it and reads its imports line by line, one package a line.
"""

import evaluate

from hf_gradalign.metrics import interpolated_equal_error_rate
from hf_gradalign.metrics.evaluate_module import LABELS, SCORES, module_info, usage

_DESCRIPTION = """
The equal error rate by linear interpolation between the points of the detection error curve, as the Speech
Anti-Spoofing Arena computes it. It differs from the official one of the ASVspoof packages by half a step of the curve
at most, and where scores are tied.
"""

_CITATION = """
@misc{speech_spoof_bench,
  title  = {{speech_spoof_bench}: the tool of the Speech Anti-Spoofing Arena},
  author = {lab260ru},
  url    = {https://github.com/lab260ru/speech_spoof_bench}
}
"""

_USAGE = usage(
    takes=[SCORES, LABELS],
    gives=[
        "eer (`float`): the equal error rate, a fraction in [0, 1].",
        "threshold (`float`): interpolated too.",
    ],
    example="""    >>> eer_interpolated = evaluate.load("hf_gradalign/metrics/eer_interpolated")
    >>> eer_interpolated.compute(prediction_scores=[-2.0, -1.0, 0.5, 0.0, 1.0, 2.0], references=[0, 0, 0, 1, 1, 1])
    {'eer': 0.3333333333333333, 'threshold': 0.5}""",
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _USAGE)
class InterpolatedEqualErrorRate(evaluate.Metric):
    """Interpolated equal error rate over all the clips that were added."""

    def _info(self) -> evaluate.MetricInfo:
        return module_info(_DESCRIPTION, _CITATION, _USAGE)

    def _compute(self, prediction_scores: list[float], references: list[int]) -> dict[str, float]:
        return interpolated_equal_error_rate(prediction_scores, references)
