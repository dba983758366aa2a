"""The settings of a study's report. This module imports nothing slow, so that the command shows its help at once."""

from dataclasses import dataclass

from hf_gradalign.study.definition import DUAL_PATH


@dataclass(frozen=True)
class ReportSettings:
    """The settings of a report.

    Attributes:
        baseline: The method to compare the others with.
        n_draws: The number of bootstrap draws.
        over: What is drawn: "utterance", or the values of a column of the clips, such as "speaker".
        confidence: Coverage of the intervals.
        seed: The seed of the draws.
    """

    baseline: str = DUAL_PATH
    n_draws: int = 1000
    over: str = "utterance"
    confidence: float = 0.95
    seed: int = 0
