import math

import numpy as np
import pytest

from hf_gradalign.demo.judging import Judgment, Settings
from hf_gradalign.demo.wording import agreement, clock, verdict_in_words
from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.scoring.timeline import Timeline
from hf_gradalign.scoring.verdict import DecisionRule


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
    assert verdict_in_words(judgment(3.0, windows=[3, -5]), Settings()).coverage == ""
    alike = verdict_in_words(judgment(3.0, windows=[3, 4, 5], judged_seconds=1), Settings())
    assert alike.coverage == "The verdict is about the first 1.0 s of 0:03.0. The rest scores alike."
    faked = verdict_in_words(judgment(3.0, windows=[3, 4, -5, -5], judged_seconds=1), Settings())
    assert faked.coverage.endswith("Later parts lean fake, the first one at 0:02.0: see the timeline.")
    genuine = verdict_in_words(judgment(-3.0, windows=[-3, 4], judged_seconds=1), Settings())
    assert genuine.coverage.endswith("Later parts lean genuine, the first one at 0:01.0: see the timeline.")


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
    assert [clock(time) for time in times] == ["0:00.0", "0:10.0", "0:59.9", "1:00", "1:01", "10:00", "1:01:01"]
    assert clock(7.6, tenths=False) == "0:08"
