"""What a study's report is made with."""

from dataclasses import dataclass

from hf_gradalign.study.cell import DUAL_PATH


@dataclass(frozen=True)
class ReportSettings:
    """What a report is made with.

    Attributes:
        baseline: The method that others are compared with.
        n_draws: Bootstrap draws.
        over: What is drawn: "utterance", or a column of the clips.
        confidence: Of intervals.
        seed: The draws'.
    """

    baseline: str = DUAL_PATH
    n_draws: int = 1000
    over: str = "utterance"
    confidence: float = 0.95
    seed: int = 0
