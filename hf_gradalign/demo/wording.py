"""Says in words what a verdict means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hf_gradalign.demo.judging import Judgment, Settings

_NAMES = {"bonafide": "genuine", "spoof": "fake", "undecided": "undecided"}
_HEADLINES = {"bonafide": "Passes as genuine", "spoof": "Flagged as fake", "undecided": "Undecided"}
_OF_START = {
    "bonafide": "The start passes as genuine",
    "spoof": "The start is flagged as fake",
    "undecided": "Undecided about the start",
}
_LEANINGS = {"bonafide": "Leans genuine", "spoof": "Leans fake"}
_LEANINGS_OF_START = {"bonafide": "The start leans genuine", "spoof": "The start leans fake"}
_SILENT = "Undecided: silence"
# A ratio below this means almost nothing.
_ABOUT_EQUAL = math.log(1.25)
_MOST_TIMES = 1000
_SPACE = "\u00a0"  # between a number and its unit, which belong on one line
_TOLERANCE = 1e-6  # seconds


@dataclass(frozen=True)
class Words:
    """A verdict in words.

    Attributes:
        kind: "bonafide", "spoof" or "undecided"; "mixed" if later parts of the recording say otherwise.
        headline: The verdict in a few words.
        evidence: What the model found.
        decision: How the verdict follows from it.
        coverage: The part of the recording that the verdict is about, and how the rest scores; empty if it is about all
            of it.
    """

    kind: str
    headline: str
    evidence: str
    decision: str
    coverage: str


def verdict_in_words(judgment: Judgment, settings: Settings) -> Words:
    """Put a judgment into words."""
    verdict = judgment.verdict
    if verdict.is_silent:
        evidence = "The part that the model hears is silent, so its score says nothing."
        return Words("undecided", _SILENT, evidence, "There is no speech in it to judge.", _coverage(judgment))
    if verdict.llr is None or verdict.posterior is None:
        side = "below 0" if verdict.score < 0 else "0 or more"
        evidence = f"The model's score is {_number(verdict.score)}, which is {side}. Genuine speech scores higher."
        decision = (
            "There is no probability, because this model is not calibrated: its scores only rank recordings, and 0 is "
            "no tested threshold."
        )
    else:
        evidence = f"{_ratio(verdict.llr)} (log-likelihood ratio {_number(verdict.llr)})."
        decision = _decision(judgment.label, verdict.posterior, settings)
    kind = "mixed" if changes_later(judgment) else judgment.label
    return Words(kind, _headline(judgment), evidence, decision, _coverage(judgment))


def _headline(judgment: Judgment) -> str:
    if judgment.verdict.is_silent:
        return _SILENT
    if judgment.verdict.llr is None:
        headlines = _LEANINGS_OF_START if changes_later(judgment) else _LEANINGS
    else:
        headlines = _OF_START if changes_later(judgment) else _HEADLINES
    return headlines[judgment.label]


def _ratio(llr: float) -> str:
    if abs(llr) < _ABOUT_EQUAL:
        return "What the model hears is about as typical of genuine as of fake speech"
    kind, other = ("genuine", "fake") if llr > 0 else ("fake", "genuine")
    times = math.exp(min(abs(llr), 700.0))
    often = f"more than {_MOST_TIMES:,}" if times > _MOST_TIMES else f"{times:.2g}" if times < 10 else f"{times:,.0f}"
    return f"What the model hears is {often} times as typical of {kind} as of {other} speech"


def _decision(label: str, posterior: float, settings: Settings) -> str:
    """Explain why the posterior leads to the label, with the lowest probability at which the costs accept a clip."""
    least = settings.costs.c_fa / (settings.costs.c_fa + settings.costs.c_miss)
    prior = f"If {_percent(settings.costs.p_spoof)} of such recordings are fake"
    accepted = f"Your costs ask for at least {_percent(least)} to let it pass."
    if label == "undecided":
        accepted = f"That is too close to the {_percent(least)} that your costs ask for."
    return f"{prior}, the probability that this one is genuine is {_percent(posterior)}. {accepted}"


def changes_later(judgment: Judgment) -> bool:
    """Return whether the verdict is only about the start, and later windows are on the other side."""
    return not judgment.verdict.is_silent and bool(_differing_later(judgment).any())


def _differing_later(judgment: Judgment) -> NDArray[np.bool_]:
    """Return which windows reach beyond the part of the verdict, and are on the other side of the threshold."""
    is_spoof = judgment.timeline.scores < threshold_of(judgment)
    return (is_spoof != _is_on_spoof_side(judgment)) & _is_later(judgment)


def _is_on_spoof_side(judgment: Judgment) -> bool:
    return judgment.verdict.score < threshold_of(judgment)


def _is_later(judgment: Judgment) -> NDArray[np.bool_]:
    return judgment.timeline.ends > judgment.judged_seconds + _TOLERANCE


def _coverage(judgment: Judgment) -> str:
    timeline = judgment.timeline
    if judgment.judged_seconds >= timeline.duration:
        return ""
    about = f"The verdict is about the first {judgment.judged_seconds:.1f}{_SPACE}s of {clock(timeline.duration)}."
    if judgment.verdict.is_silent:
        return f"{about} What the model makes of the rest is below."
    differing, total = _differing_later(judgment), int(_is_later(judgment).sum())
    count = int(differing.sum())
    if not count:
        return f"{about} The rest scores alike."
    kind = "genuine" if _is_on_spoof_side(judgment) else "fake"
    first = clock(float(timeline.starts[np.argmax(differing)]))
    lean = "leans" if count == 1 else "lean"
    return f"{about} Later, {count:,} of {total:,} windows {lean} {kind}, first the one from {first}."


def threshold_of(judgment: Judgment) -> float:
    """Return the threshold of the timeline's scores: the threshold of the verdict, or 0 without a calibration."""
    return judgment.verdict.threshold if judgment.timeline.is_calibrated else 0.0


def agreement(judgments: Sequence[Judgment]) -> str:
    """Say in one sentence what all models decide."""
    labels = [judgment.label for judgment in judgments]
    if len(labels) == 1:
        return f"{_headline(judgments[0])}."
    counts = {name: labels.count(label) for label, name in _NAMES.items() if label in labels}
    if len(counts) == 1:
        told = f"All {len(labels)} models say {next(iter(counts))}."
    else:
        listed = ", ".join(f"{count} {'says' if count == 1 else 'say'} {name}" for name, count in counts.items())
        told = f"The models disagree: {listed}."
    return f"{told} For some, that changes later." if any(map(changes_later, judgments)) else told


def clock(seconds: float, *, tenths: bool = True) -> str:
    """Return a time as minutes and seconds; below a minute as seconds with tenths, unless `tenths` is false."""
    if tenths and round(seconds, 1) < 60:
        return f"{seconds:.1f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def _percent(share: float) -> str:
    """Return a share as a percentage, which is never shown as 0 or 100 %."""
    percent = 100 * share
    if percent < 0.1:
        return f"less than 0.1{_SPACE}%"
    if percent > 99.9:
        return f"more than 99.9{_SPACE}%"
    return f"{percent:.3g}{_SPACE}%"
