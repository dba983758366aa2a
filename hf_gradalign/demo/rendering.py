"""The page's HTML. Jinja escapes every value, so that no name, card or file can add HTML."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hf_gradalign.demo.drawing import draw
from hf_gradalign.demo.judging import Judgment, Settings
from hf_gradalign.demo.model_cards import ModelCard
from hf_gradalign.demo.recording import Recording
from hf_gradalign.demo.wording import verdict_in_words
from hf_gradalign.scoring import SpoofScorer

# Each color comes with a sign, for people who cannot tell the colors apart.
_MARKS = {"bonafide": "\u2713", "spoof": "\u2717", "undecided": "?", "mixed": "!"}


def intro_html(names: Sequence[str]) -> str:
    """Return the introduction of the page."""
    return _render("intro.html", names=names)


def credits_html(text: str) -> str:
    """Return the credits of the examples."""
    return _render("credits.html", text=text)


StatusKind = Literal["line", "problem", "heard"]


def status_html(text: str, kind: StatusKind = "line", recording: str = "") -> str:
    """Return a sentence for the line that screen readers read out; "heard" is for screen readers only.

    The page drops a sentence about a recording (its path) once another one is chosen. The same goes for verdicts.
    """
    return _render("status.html", text=text, kind=kind, recording=recording)


def progress_html(fraction: float | None) -> str:
    """Return a progress bar; nothing for None."""
    return "" if fraction is None else _render("progress.html", percent=round(100 * fraction))


def models_html(scorers: Mapping[str, SpoofScorer], cards: Mapping[str, ModelCard]) -> str:
    """Return the cards and limits of the models."""
    models = [(name, cards[name], _calibration(scorer)) for name, scorer in scorers.items()]
    return _render("models.html", models=models)


def _calibration(scorer: SpoofScorer) -> Mapping[str, Any] | None:
    """Return what the configuration says about the calibration of the scores."""
    if scorer.calibration is None:
        return None
    return {"n_bonafide": None, "n_spoof": None, "date": None, **scorer.model.config.calibration}


def results_html(recording: Recording, judgments: Sequence[Judgment], settings: Settings) -> str:
    """Return the verdicts of all models, side by side, each with its timeline."""
    shown = [
        {
            "model": judgment.model,
            "words": verdict_in_words(judgment, settings),
            "drawing": draw(recording, judgment),
            "is_calibrated": judgment.timeline.is_calibrated,
            "is_silent": judgment.verdict.is_silent,
        }
        for judgment in judgments
    ]
    return _render("results.html", judgments=shown, marks=_MARKS, recording=recording.path)


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
