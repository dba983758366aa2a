"""From scores to verdicts: bona fide, spoof or undecided, for a stated prior and stated costs of errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from hf_gradalign.metrics import DetectionCosts

VerdictLabel = Literal["bonafide", "spoof", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """A decision about a clip.

    Attributes:
        label: "bonafide" if the score is the threshold or more, "spoof" if it is less, and "undecided" if it is within
            the band around the threshold. None if the clip could not be scored.
        score: The score. Higher means bona fide. NaN if the clip could not be scored.
        llr: The log-likelihood ratio (natural logarithm): how many times more probable the score is for bona fide than
            for spoofed speech. None if the model is not calibrated.
        posterior: The probability of bona fide speech, from the ratio and the prior. None if the model is not
            calibrated.
        threshold: What the score was compared with: the Bayes threshold of the costs and the prior, or 0 if the model
            is not calibrated.
    """

    label: VerdictLabel | None
    score: float
    llr: float | None
    posterior: float | None
    threshold: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, where a score of NaN becomes None."""
        return {**vars(self), "score": None if math.isnan(self.score) else self.score}


@dataclass(frozen=True)
class DecisionRule:
    """What turns scores into verdicts.

    Args:
        is_calibrated: Whether scores are log-likelihood ratios.
        costs: The prior probability of spoofs, and the costs of errors.
        undecided_band: Half the width of the band around the threshold in which clips are undecided, in nats, 0 or
            more. With 0, every clip is decided.

    Raises:
        ValueError: If the band is out of range, or scores without a unit should be compared with it.
    """

    is_calibrated: bool
    costs: DetectionCosts = field(default_factory=DetectionCosts)
    undecided_band: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.undecided_band < math.inf:
            raise ValueError(f"undecided_band must be 0 or more, in nats, not {self.undecided_band}")
        if self.undecided_band and not self.is_calibrated:
            raise ValueError(
                f"undecided_band ({self.undecided_band:g}) is in nats, and scores without a calibration have no unit. "
                "Calibrate the model (hf-gradalign calibrate), and do not ask for raw scores"
            )

    @property
    def threshold(self) -> float:
        """The Bayes threshold of log-likelihood ratios; 0 for scores without a calibration."""
        return self.costs.threshold if self.is_calibrated else 0.0

    def __call__(self, score: float) -> Verdict:
        """Decide about one score."""
        if math.isnan(score):
            return Verdict(None, math.nan, None, None, self.threshold)
        label: VerdictLabel = "bonafide" if score >= self.threshold else "spoof"
        if not self.is_calibrated:
            return Verdict(label, score, None, None, self.threshold)
        if abs(score - self.threshold) < self.undecided_band:
            label = "undecided"
        prior = math.log1p(-self.costs.p_spoof) - math.log(self.costs.p_spoof)
        return Verdict(label, score, score, float(expit(score + prior)), self.threshold)

    def decide(self, scores: Iterable[float]) -> list[Verdict]:
        """Decide about many scores."""
        return [self(float(score)) for score in np.asarray(scores, dtype=np.float64)]


UNCALIBRATED = (
    "the model is not calibrated, so its scores have no unit: a clip is bona fide if its score is 0 or more, and there "
    "is no probability. To calibrate it, score a set with labels, and pass the scores and labels to hf-gradalign "
    "calibrate with --model."
)
"""What to tell users about verdicts of a model without a calibration."""
RAW = "raw scores have no unit: a clip is bona fide if its score is 0 or more, and there is no probability."
