"""The actions behind the buttons of the page, separate from the page itself."""

import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from transformers.utils import logging

from hf_gradalign.demo.background import BackgroundWork, Cancelled, Progress
from hf_gradalign.demo.judging import Judgment, Settings, decide_again, judge
from hf_gradalign.demo.recording import Recording, RecordingError, read_recording
from hf_gradalign.demo.rendering import progress_html, results_html, status_html
from hf_gradalign.demo.wording import agreement
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.scoring import SpoofScorer

logger = logging.get_logger(__name__)

_IDLE = "Choose a recording, and press the button to check it."
_ASK = "Please choose a recording first: drop a file, record one, or take an example."
_WAITING = "Waiting for the model."
_LISTENING = "Listening to the recording."
_CANCELLED = "Cancelled. There is no verdict."
_BAD_SETTINGS = "The prior must be between 0 and 100, the costs above 0, and the undecided band 0 or more."
_NOT_CHECKED = "The recording was not checked, perhaps because too many people wait. Please try again in a minute."
_FAILED = "The model failed on this recording, so there is no verdict. The log of the page says why."


@dataclass(frozen=True)
class Judged:
    """A visitor's last result, kept so that other settings need no new scores."""

    recording: Recording
    judgments: list[Judgment]


@dataclass(frozen=True)
class Shown:
    """What the page shows. None leaves a part unchanged.

    Attributes:
        status: A line that screen readers read out.
        progress: The progress bar.
        results: The verdicts.
        is_running: Whether work is running that can be cancelled.
        judged: The result behind the verdicts, if there are any.
    """

    status: str | None = None
    progress: str = ""
    results: str | None = ""
    is_running: bool = False
    judged: Judged | None = None


@dataclass(frozen=True)
class Choices:
    """The visitor's settings. None for an empty field.

    Attributes:
        percent_spoof: The prior probability of spoofed recordings, in percent.
        c_fa: The cost of accepting spoofed speech.
        c_miss: The cost of rejecting bona fide speech.
        undecided_band: The band, in nats.
    """

    percent_spoof: float | None
    c_fa: float | None
    c_miss: float | None
    undecided_band: float | None

    def settings(self) -> Settings | None:
        """Return the settings; None if a value is missing or out of range."""
        values = (self.percent_spoof, self.c_miss, self.c_fa, self.undecided_band)
        numbers = [math.nan if value is None else float(value) for value in values]
        if not all(map(math.isfinite, numbers)) or numbers[3] < 0:
            return None
        try:
            return Settings(DetectionCosts(numbers[0] / 100, *numbers[1:3]), numbers[3])
        except ValueError:
            return None


class PageActions:
    """The actions of the page.

    Args:
        scorers: The models, by display name.
        max_minutes: The longest recording.
    """

    def __init__(self, scorers: Mapping[str, SpoofScorer], max_minutes: float) -> None:
        self._scorers = scorers
        self._max_minutes = max_minutes
        self._waiting: dict[str, str] = {}  # what visitors wait for: the recording that they asked for last
        self._running: dict[str, tuple[str, Progress]] = {}  # the recording, and how far it is
        self._models = threading.Lock()  # cancelled work may not have ended yet

    def idle(self) -> str:
        """Return the status before anything happens."""
        return status_html(_IDLE)

    def begin(self, path: str | None, visitor: str) -> Shown:
        """Ask for a recording to be checked when it is the visitor's turn."""
        if path is None:
            return Shown(status_html(_ASK, "problem"))
        self._waiting[visitor] = path
        return Shown(status_html(_WAITING, recording=path), is_running=True)

    def check(self, path: str | None, visitor: str, choices: Choices) -> Iterator[Shown | None]:
        """Judge a recording. Yields what to show meanwhile, and at the end.

        Nothing is judged, and None is yielded, if the visitor no longer waits for this recording.
        """
        if path is None or self._waiting.get(visitor) != path:
            yield None
            return
        del self._waiting[visitor]
        settings = choices.settings()
        if settings is None:
            yield Shown(status_html(_BAD_SETTINGS, "problem"))
            return
        work = BackgroundWork(partial(self._judge, path, settings))
        self._running[visitor] = (path, work.progress)
        try:
            yield Shown(status_html(_LISTENING, recording=path), progress_html(0.0), is_running=True)
            for fraction in work.fractions():
                yield Shown(None, progress_html(fraction), is_running=True)
            judged = work.result()
            results = results_html(judged.recording, judged.judgments, settings)
            yield Shown(_announcement(judged), results=results, judged=judged)
        except Cancelled:
            yield Shown(status_html(_CANCELLED, recording=path))
        except RecordingError as error:
            yield Shown(status_html(str(error), "problem", path))
        # Such as too little memory on the GPU. Visitors get a sentence, and the details go to the log.
        except Exception:
            logger.exception("A recording could not be judged.")
            yield Shown(status_html(_FAILED, "problem", path))
        finally:  # also if the visitor has left
            work.progress.cancel()
            if self._running.get(visitor) == (path, work.progress):
                del self._running[visitor]

    def _judge(self, path: str, settings: Settings, progress: Progress) -> Judged:
        recording = read_recording(path, max_minutes=self._max_minutes, go_on=progress.check)
        with self._models:
            judgments = judge(recording, self._scorers, settings, progress)
        return Judged(recording, judgments)

    def cancel(self, visitor: str) -> Shown:
        """End what a visitor waits for, and what runs for the visitor, which then says so itself."""
        was_waiting = self._waiting.pop(visitor, None) is not None
        if visitor in self._running:
            self._running[visitor][1].cancel()
        return Shown(status_html(_CANCELLED) if was_waiting else None, results=None)

    def choose(self, path: str | None, visitor: str) -> Shown | None:
        """Start over with another recording. Returns None if the visitor has already asked for it to be checked.

        The page sends both in separate requests, and the one about the check may arrive first.
        """
        running, _ = self._running.get(visitor, (None, None))
        if path is not None and path in (self._waiting.get(visitor), running):
            return None
        self.cancel(visitor)
        return Shown(self.idle())

    def not_checked(self) -> Shown:
        """What the page shows if the server did not take the recording."""
        return Shown(status_html(_NOT_CHECKED, "problem"))

    def change_settings(self, judged: Judged | None, visitor: str, choices: Choices) -> Shown:
        """Show the verdicts with other settings, or none if they are lost: the server forgets visitors who leave."""
        is_lost = judged is None and visitor not in self._running and visitor not in self._waiting
        if is_lost and choices.settings() is not None:
            return Shown(self.idle())
        return self.decide_again(judged, choices)

    def decide_again(self, judged: Judged | None, choices: Choices) -> Shown:
        """Show the verdicts with other settings. The result that is kept stays, because a check may end meanwhile."""
        settings = choices.settings()
        if settings is None:
            return Shown(status_html(_BAD_SETTINGS, "problem"), results=None)
        if judged is None:
            return Shown(results=None)
        judgments = [decide_again(judgment, self._scorers[judgment.model], settings) for judgment in judged.judgments]
        judged = Judged(judged.recording, judgments)
        return Shown(_announcement(judged), results=results_html(judged.recording, judgments, settings))


def _announcement(judged: Judged) -> str:
    """Return what screen readers read out at the end. For a single verdict, this is also its headline."""
    kind = "heard" if len(judged.judgments) == 1 else "line"
    return status_html(agreement(judged.judgments), kind, judged.recording.path)
