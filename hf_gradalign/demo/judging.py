"""Judges a recording with one or more detectors."""

import math
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from hf_gradalign.data import BadAudioError
from hf_gradalign.demo.background import Progress
from hf_gradalign.demo.recording import Recording, RecordingError
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.scoring.timeline import Timeline
from hf_gradalign.scoring.verdict import DecisionRule, Verdict, VerdictLabel


@dataclass(frozen=True)
class Settings:
    """The settings that a verdict depends on in addition to the score.

    Attributes:
        costs: The prior probability of spoofed recordings, and the costs of errors. Defaults to the values of ASVspoof
            5.
        undecided_band: Distance from the threshold within which there is no decision, in nats of the LLR, 0 or more.

    Raises:
        ValueError: If the band is out of range.
    """

    costs: DetectionCosts = field(default_factory=DetectionCosts)
    undecided_band: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.undecided_band < math.inf:
            raise ValueError(f"undecided_band must be 0 or more, in nats, not {self.undecided_band}")

    def band_for(self, scorer: SpoofScorer) -> float:
        """Return the band for a model. Without a calibration there is none."""
        return self.undecided_band if scorer.calibration is not None else 0.0


@dataclass(frozen=True)
class Judgment:
    """One detector's verdict on a recording.

    Attributes:
        model: The model's name.
        verdict: The verdict on the recording.
        timeline: Scores over time.
        judged_seconds: The length of the part at the start that the verdict is about.
    """

    model: str
    verdict: Verdict
    timeline: Timeline
    judged_seconds: float

    @property
    def label(self) -> VerdictLabel:
        """The verdict in one word."""
        assert self.verdict.label is not None  # only for audio that cannot be scored, which raises
        return self.verdict.label


def judge(
    recording: Recording, scorers: Mapping[str, SpoofScorer], settings: Settings, progress: Progress | None = None
) -> list[Judgment]:
    """Judge a recording with every model.

    Args:
        recording: The recording.
        scorers: The models by name.
        settings: The settings of the verdicts.
        progress: Kept up to date. When it is cancelled, the work ends before the next forward pass.

    Raises:
        Cancelled: If the progress was cancelled.
        RecordingError: If a model cannot score the recording.
    """
    progress = progress or Progress()
    judgments = []
    for index, (name, scorer) in enumerate(scorers.items()):
        report = partial(_report_share, progress, index, len(scorers))
        try:
            with _checking(scorer, progress):
                (verdict,) = scorer.predict(
                    recording.path, **vars(settings.costs), undecided_band=settings.band_for(scorer)
                )
                timeline = scorer.timeline(recording.path, progress=report)
        except BadAudioError as error:
            raise RecordingError(f"{name} cannot score this recording: {error.bad_clips[0].reason}.") from error
        judgments.append(Judgment(name, verdict, timeline, _judged_seconds(scorer, timeline)))
    progress.report(1.0)
    return judgments


def _report_share(progress: Progress, index: int, total: int, share: float) -> None:
    progress.report((index + share) / total)


def decide_again(judgment: Judgment, scorer: SpoofScorer, settings: Settings) -> Judgment:
    """Decide again with other settings, from the same score."""
    rule = DecisionRule(scorer.calibration is not None, settings.costs, settings.band_for(scorer))
    return replace(judgment, verdict=rule(judgment.verdict.score, judgment.verdict.is_silent))


@contextmanager
def _checking(scorer: SpoofScorer, progress: Progress) -> Generator[None]:
    """Check before every forward pass of this thread whether to continue."""
    thread = threading.get_ident()

    def check(*_: object) -> None:
        if threading.get_ident() == thread:
            progress.check()

    hook = scorer.model.register_forward_pre_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _judged_seconds(scorer: SpoofScorer, timeline: Timeline) -> float:
    if scorer.windowing.mode != "first":
        return timeline.duration
    return min(scorer.windowing.n_samples / scorer.sampling_rate, timeline.duration)
