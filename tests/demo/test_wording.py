import math
from dataclasses import replace

import numpy as np
import pytest

from hf_gradalign.demo import wording
from hf_gradalign.demo.judging import Judgment, Settings
from hf_gradalign.demo.wording import agreement, clock
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.scoring.timeline import Timeline
from hf_gradalign.scoring.verdict import DecisionRule


def verdict_in_words(judgment, settings):
    """The words, with ordinary spaces."""
    words = wording.verdict_in_words(judgment, settings)
    return wording.Words(**{name: text.replace("\u00a0", " ") for name, text in vars(words).items()})


def judgment(score, settings=None, *, is_calibrated=True, windows=(1.0,), judged_seconds=math.inf):
    settings = settings or Settings()
    verdict = DecisionRule(is_calibrated, settings.costs, settings.undecided_band)(score)
    starts = np.arange(len(windows), dtype=float)
    timeline = Timeline(starts, starts + 1, np.array(windows), float(len(windows)), is_calibrated)
    return Judgment("a model", verdict, timeline, min(judged_seconds, timeline.duration))


@pytest.mark.parametrize(
    ("llr", "headline", "evidence"),
    [
        (3.2, "Passes as genuine", "25 times as typical of genuine as of fake speech (log-likelihood ratio +3.20)"),
        (-2.0, "Flagged as fake", "7.4 times as typical of fake as of genuine speech (log-likelihood ratio −2.00)"),
        (20.0, "Passes as genuine", "more than 1,000 times as typical of genuine as of fake speech"),
        (-800.0, "Flagged as fake", "more than 1,000 times as typical of fake as of genuine speech"),
        (0.1, "Passes as genuine", "about as typical of genuine as of fake speech"),
    ],
)
def test_what_the_ratio_means(llr, headline, evidence):
    words = verdict_in_words(judgment(llr), Settings())
    assert words.headline == headline
    assert evidence in words.evidence


def test_the_decision_follows_from_what_is_said():
    words = verdict_in_words(judgment(0.0), Settings())  # ASVspoof 5: the prior alone speaks for genuine speech
    assert words.decision == (
        "If 5 % of such recordings are fake, the probability that this one is genuine is 95 %. "
        "Your costs ask for at least 90.9 % to let it pass."
    )
    settings = Settings(DetectionCosts(p_spoof=0.5, c_miss=1, c_fa=1), undecided_band=1.0)
    words = verdict_in_words(judgment(0.5, settings), settings)
    assert (words.kind, words.headline) == ("undecided", "Undecided")
    assert words.decision == (
        "If 50 % of such recordings are fake, the probability that this one is genuine is 62.2 %. "
        "That is too close to the 50 % that your costs ask for."
    )


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_silence_is_no_evidence(is_calibrated):
    of_start = judgment(-3.0, is_calibrated=is_calibrated, windows=(-3.0, 4.0), judged_seconds=1.0)
    silent = replace(of_start, verdict=DecisionRule(is_calibrated)(-3.0, is_silent=True))
    words = verdict_in_words(silent, Settings())
    assert (words.kind, words.headline) == ("undecided", "Undecided: silence")
    assert words.evidence == "The part that the model hears is silent, so its score says nothing."
    assert words.coverage.startswith("The verdict is about the first 1.0 s of 2.0 s.")
    assert wording.agreement([silent]) == "Undecided: silence."


@pytest.mark.parametrize(("llr", "shown"), [(40.0, "more than 99.9 %"), (-40.0, "less than 0.1 %")])
def test_nothing_is_certain(llr, shown):
    assert f"genuine is {shown}." in verdict_in_words(judgment(llr), Settings()).decision


def test_without_a_calibration_there_is_no_probability():
    words = verdict_in_words(judgment(-1.5, is_calibrated=False), Settings())
    assert (words.kind, words.headline) == ("spoof", "Leans fake")
    assert words.evidence == "The model's score is −1.50, which is below 0. Genuine speech scores higher."
    assert "There is no probability" in words.decision
    assert "%" not in words.evidence + words.decision


def test_a_verdict_on_a_part_says_so():
    def words(score, windows, **options):
        return verdict_in_words(judgment(score, windows=windows, **options), Settings())

    assert words(3.0, [3, -5]).coverage == ""
    alike = words(3.0, [3, 4, 5], judged_seconds=1)
    assert (alike.kind, alike.headline) == ("bonafide", "Passes as genuine")
    assert alike.coverage == "The verdict is about the first 1.0 s of 3.0 s. The rest scores alike."
    faked = words(3.0, [3, 4, -5, -5], judged_seconds=1)
    assert (faked.kind, faked.headline) == ("mixed", "The start passes as genuine")
    assert faked.coverage == (
        "The verdict is about the first 1.0 s of 4.0 s. Later, 2 of 3 windows lean fake, first the one from 2.0 s."
    )
    genuine = words(-3.0, [-3, 4], judged_seconds=1)
    assert genuine.headline == "The start is flagged as fake"
    assert genuine.coverage.endswith("Later, 1 of 1 windows leans genuine, first the one from 1.0 s.")
    band = Settings(undecided_band=9.0)
    undecided = verdict_in_words(judgment(-3.0, band, windows=[-3, -4, -5], judged_seconds=1), band)
    assert (undecided.headline, undecided.kind) == ("Undecided", "undecided")
    assert "alike" in undecided.coverage
    torn = verdict_in_words(judgment(3.0, band, windows=[3, -4], judged_seconds=1), band)
    assert (torn.headline, torn.kind) == ("Undecided about the start", "mixed")
    # The first window is what the verdict is about, whatever its own score.
    assert words(3.0, [-3, 4], judged_seconds=1).kind == "bonafide"
    assert words(3.0, [3, -4], judged_seconds=1, is_calibrated=False).headline == "The start leans genuine"


def test_several_models_of_which_one_hears_a_change():
    changing = judgment(3.0, windows=[3, -4], judged_seconds=1)
    assert agreement([judgment(3.0), changing]) == "All 2 models say genuine. For some, that changes later."
    assert agreement([changing]) == "The start passes as genuine."


@pytest.mark.parametrize(
    ("llrs", "sentence"),
    [
        ([3], "Passes as genuine."),
        ([3, 4], "All 2 models say genuine."),
        ([-3, -4, -5], "All 3 models say fake."),
        ([3, -4, -5], "The models disagree: 1 says genuine, 2 say fake."),
    ],
)
def test_several_models(llrs, sentence):
    assert agreement([judgment(llr) for llr in llrs]) == sentence


def test_times():
    times = [0, 9.96, 59.94, 59.96, 61, 600, 3661.4]
    shown = [clock(time).replace("\u00a0", " ") for time in times]
    assert shown == ["0.0 s", "10.0 s", "59.9 s", "1:00", "1:01", "10:00", "1:01:01"]
    assert clock(7.6, tenths=False) == "0:08"
