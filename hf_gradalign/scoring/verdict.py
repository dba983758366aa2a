"""Turns scores into verdicts: bona fide, spoof or undecided, given a prior and the costs of errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from scipy.special import expit
from transformers.utils import logging

from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.utils.files import write_text_atomically

if TYPE_CHECKING:
    from hf_gradalign.scoring.scorer import SpoofScorer

logger = logging.get_logger(__name__)

VerdictLabel = Literal["bonafide", "spoof", "undecided"]

_UNCALIBRATED = (
    "the model is not calibrated, so its scores have no unit: a clip is bona fide if its score is 0 or more, and there "
    "is no probability. To calibrate it, score a set with labels, and pass the scores and labels to hf-gradalign "
    "calibrate with --model."
)
_RAW = "raw scores have no unit: a clip is bona fide if its score is 0 or more, and there is no probability."


@dataclass(frozen=True)
class Verdict:
    """A decision about a clip.

    Attributes:
        label: "bonafide" if the score is the threshold or more, "spoof" if it is less, and "undecided" if it is within
            the band around the threshold, or if the clip is silent. None if the clip could not be scored.
        score: The score. Higher means bona fide. NaN if the clip could not be scored.
        llr: The log-likelihood ratio (natural logarithm): how many times more probable the score is for bona fide than
            for spoofed speech. None if the model is not calibrated, or the clip is silent.
        posterior: The probability of bona fide speech, from the ratio and the prior. None if the model is not
            calibrated, or the clip is silent.
        threshold: The threshold for the score: the Bayes threshold of the costs and the prior, or 0 if the model is not
            calibrated.
        is_silent: Whether all samples that the model gets are equal, so the score says nothing about speech.
    """

    label: VerdictLabel | None
    score: float
    llr: float | None
    posterior: float | None
    threshold: float
    is_silent: bool = False

    def describe(self) -> str:
        """Describe the verdict in a few words."""
        if self.label is None:
            return "could not be scored"
        if self.is_silent:
            return f"{self.label} (silent)"
        if self.posterior is None:
            return self.label
        return f"{self.label} ({_percent(self.posterior)} bonafide)"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON. A score of NaN becomes None, and `is_silent` is included only if true."""
        fields = {**vars(self), "score": None if math.isnan(self.score) else self.score}
        return fields if self.is_silent else {name: value for name, value in fields.items() if name != "is_silent"}


@dataclass(frozen=True)
class DecisionRule:
    """Turns scores into verdicts.

    Args:
        is_calibrated: Whether scores are log-likelihood ratios.
        costs: The prior probability of spoofs, and the costs of errors.
        undecided_band: Half the width of the band around the threshold in which clips are undecided, in nats, 0 or
            more. With 0, every clip is decided.

    Raises:
        ValueError: If the band is out of range, or the scores are not calibrated and the band is not 0.
    """

    is_calibrated: bool
    costs: DetectionCosts = field(default_factory=DetectionCosts)
    undecided_band: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.undecided_band < math.inf:
            raise ValueError(f"undecided_band must be 0 or more, in nats, not {self.undecided_band}")
        if self.undecided_band and not self.is_calibrated:
            raise ValueError(
                f"undecided_band ({self.undecided_band:g}) is in nats, but scores without a calibration have no unit. "
                "Calibrate the model (hf-gradalign calibrate), and do not use raw scores"
            )

    @property
    def threshold(self) -> float:
        """The Bayes threshold for log-likelihood ratios; 0 for scores without a calibration."""
        return self.costs.threshold if self.is_calibrated else 0.0

    def __call__(self, score: float, is_silent: bool = False) -> Verdict:
        """Decide about one score. The score of a silent clip is no evidence."""
        if math.isnan(score):
            return Verdict(None, math.nan, None, None, self.threshold)
        if is_silent:
            return Verdict("undecided", score, None, None, self.threshold, is_silent=True)
        label: VerdictLabel = "bonafide" if score >= self.threshold else "spoof"
        if not self.is_calibrated:
            return Verdict(label, score, None, None, self.threshold)
        if abs(score - self.threshold) < self.undecided_band:
            label = "undecided"
        return Verdict(label, score, score, self._posterior(score), self.threshold)

    def describe(self) -> str:
        """Describe the rule in a few words."""
        if not self.is_calibrated:
            return "by the sign of scores without a calibration"
        costs = self.costs
        text = f"threshold {self.threshold:.4g}, or {100 * self._posterior(self.threshold):.3g} % bonafide,"
        text += f" for p_spoof {costs.p_spoof:g}, c_miss {costs.c_miss:g}, c_fa {costs.c_fa:g}"
        return f"{text}, undecided within {self.undecided_band:g}" if self.undecided_band else text

    def _posterior(self, ratio: float) -> float:
        prior = math.log1p(-self.costs.p_spoof) - math.log(self.costs.p_spoof)
        return float(expit(ratio + prior))

    def decide(self, scores: Iterable[float], silent: Collection[int] = ()) -> list[Verdict]:
        """Decide about many scores. `silent` has the indices of silent clips."""
        return [self(float(score), index in silent) for index, score in enumerate(np.asarray(scores, np.float64))]


def _percent(share: float) -> str:
    """Format a share as a percentage, never as 100 %."""
    return "more than 99.9 %" if share > 0.999 else f"{100 * share:.3g} %"


def rule_for(
    scorer: SpoofScorer,
    p_spoof: float = 0.05,
    c_miss: float = 1.0,
    c_fa: float = 10.0,
    undecided_band: float = 0.0,
) -> DecisionRule:
    """Return the rule that turns the scores of a scorer into verdicts. Warn once if they are not calibrated.

    Args:
        scorer: The scorer.
        p_spoof: As for `SpoofScorer.predict`.
        c_miss: As for `SpoofScorer.predict`.
        c_fa: As for `SpoofScorer.predict`.
        undecided_band: As for `SpoofScorer.predict`.

    Raises:
        ValueError: As for `DetectionCosts` and `DecisionRule`.
    """
    rule = DecisionRule(scorer.calibration is not None, DetectionCosts(p_spoof, c_miss, c_fa), undecided_band)
    if not rule.is_calibrated:
        name = scorer.model.name_or_path or "The model"
        logger.warning_once(f"{name}: {_RAW if scorer.raw_scores else _UNCALIBRATED}")
    return rule


def write_verdicts(
    path: str | Path, scores: Mapping[str, float], rule: DecisionRule, silent: Collection[str] = ()
) -> dict[str, int]:
    """Write verdicts atomically, one JSON object per line, so that names of clips may contain any character.

    Each line has `utterance_id`, `p_spoof` (the prior of the posterior) and the fields of a `Verdict`.

    Args:
        path: The file. An existing file is replaced.
        scores: Scores by the names of the clips.
        rule: How to decide.
        silent: The names of silent clips, which are undecided.

    Returns:
        The number of clips with each label that occurs.
    """
    silent = frozenset(silent)
    verdicts = {name: rule(score, name in silent) for name, score in scores.items()}
    lines = (
        json.dumps({"utterance_id": name, "p_spoof": rule.costs.p_spoof, **verdict.as_dict()}, allow_nan=False)
        for name, verdict in verdicts.items()
    )
    write_text_atomically(path, "".join(f"{line}\n" for line in lines))
    counts = Counter(verdict.label for verdict in verdicts.values())
    return {label: counts[label] for label in get_args(VerdictLabel) if counts[label]}
