"""What visitors see, without a browser."""

import threading
from dataclasses import replace

import pytest

from hf_gradalign.demo.actions import Choices, PageActions
from hf_gradalign.demo.background import Cancelled, Progress
from hf_gradalign.demo.judging import Settings, judge
from hf_gradalign.demo.recording import read_recording

CHOICES = Choices(percent_spoof=5, c_fa=10, c_miss=1, undecided_band=0)


@pytest.fixture
def actions(scorer, uncalibrated):
    return PageActions({"mine": scorer, "<b>yours</b>": uncalibrated}, max_minutes=1)


def ask(actions, path, choices=CHOICES):
    assert actions.begin(path, "visitor").is_running
    return actions.check(path, "visitor", choices)


def last(shown):
    *_, end = shown
    return end


def test_a_verdict_is_that_of_the_scorer(actions, scorer, examples):
    path = examples["Fake speech"]
    shown = list(ask(actions, path))
    assert shown[0].is_running
    assert "Listening" in shown[0].status
    end = shown[-1]
    assert not end.is_running
    assert "All 2 models say fake." in end.status
    assert "Flagged as fake" in end.results
    assert "Leans fake" in end.results
    assert "hf-gradalign calibrate SCORES KEYS --model &lt;b&gt;yours&lt;/b&gt;" in end.results
    mine, yours = end.judged.judgments
    (expected,) = scorer.predict(path)
    assert mine.verdict.llr == pytest.approx(expected.llr, abs=1e-6)
    assert yours.verdict.score == pytest.approx(expected.llr / scorer.calibration.slope, abs=1e-6)
    assert yours.verdict.posterior is None
    assert mine.timeline.scores.min() == pytest.approx(scorer.timeline(path).scores.min(), abs=1e-6)


def test_a_check_that_overtakes_its_recording_goes_on(actions, examples):
    """The page tells the server of both at once, in requests of their own."""
    path = examples["Fake speech"]
    shown = ask(actions, path)
    assert actions.choose(path, "visitor") is None  # still waiting
    assert next(shown).is_running
    assert actions.choose(path, "visitor") is None  # running
    assert "All 2 models say fake." in last(shown).status
    assert "Choose a recording" in actions.choose(path, "visitor").status


@pytest.mark.parametrize("other", [None, "other.wav"])
def test_another_recording_ends_the_check(actions, examples, other):
    shown = ask(actions, examples["Fake speech"])
    assert "Choose a recording" in actions.choose(other, "visitor").status
    assert list(shown) == [None]
    shown = ask(actions, examples["Fake speech"])
    next(shown)
    actions.choose(other, "visitor")
    assert "Cancelled" in last(shown).status


def test_other_settings_need_no_new_scores(actions, scorer, examples, monkeypatch):
    end = last(ask(actions, examples["Fake speech"]))
    monkeypatch.setattr(type(scorer), "score", None)
    shown = actions.decide_again(end.judged, replace(CHOICES, percent_spoof=1e-4))
    assert "The models disagree: 1 says genuine, 1 says fake." in shown.status
    band = actions.decide_again(end.judged, replace(CHOICES, undecided_band=10.0))
    assert "The models disagree: 1 says fake, 1 says undecided." in band.status
    assert actions.decide_again(None, CHOICES).results is None
    assert actions.change_settings(end.judged, "visitor", replace(CHOICES, undecided_band=10.0)) == band


def test_verdicts_that_the_server_has_forgotten_do_not_stay_with_other_settings(actions, examples):
    lost = actions.change_settings(None, "visitor", CHOICES)
    assert (lost.status, lost.results) == (actions.idle(), "")
    assert "the costs above 0" in actions.change_settings(None, "visitor", replace(CHOICES, c_fa=0)).status
    shown = ask(actions, examples["Fake speech"])
    assert actions.change_settings(None, "visitor", CHOICES).results is None
    next(shown)
    assert actions.change_settings(None, "visitor", CHOICES).status is None


def test_without_a_recording(actions):
    shown = actions.begin(None, "visitor")
    assert "choose a recording first" in shown.status
    assert not shown.is_running
    assert list(actions.check(None, "visitor", CHOICES)) == [None]


def test_nothing_is_judged_that_nobody_waits_for(actions, examples):
    fake, genuine = examples["Fake speech"], examples["Genuine speech"]
    for path in (fake, fake, genuine):
        actions.begin(path, "visitor")
    assert list(actions.check(fake, "visitor", CHOICES)) == [None]
    assert list(actions.check(genuine, "somebody else", CHOICES)) == [None]
    assert "genuine" in last(actions.check(genuine, "visitor", CHOICES)).results
    assert list(actions.check(genuine, "visitor", CHOICES)) == [None]  # a second click, before the first was answered
    actions.begin(fake, "visitor")
    assert "Cancelled" in actions.cancel("visitor").status
    assert list(actions.check(fake, "visitor", CHOICES)) == [None]
    assert actions.cancel("visitor").status is None


@pytest.mark.parametrize(
    "wrong",
    [
        *({"percent_spoof": value} for value in (None, 0, 100)),
        *({"c_fa": value} for value in (None, 0, float("inf"))),
        *({"undecided_band": value} for value in (None, -0.1)),
        {"c_miss": -1},
    ],
)
def test_settings_that_cannot_be(actions, examples, wrong):
    choices = replace(CHOICES, **wrong)
    end = last(ask(actions, examples["Fake speech"], choices))
    assert "The prior must be between 0 and 100, the costs above 0" in end.status
    again = actions.decide_again(object(), choices)
    assert "the costs above 0" in again.status
    assert again.results is None  # the last verdicts stay


def test_a_recording_that_cannot_be_judged(actions, tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    end = last(ask(actions, str(tmp_path / "text.wav")))
    assert "This file cannot be read as audio" in end.status
    assert "status-problem" in end.status
    assert (end.results, end.judged) == ("", None)


def test_a_fault_of_the_model_is_logged_and_the_page_says_so(make_scorer, examples, caplog):
    broken = make_scorer()
    broken.model.forward = None
    end = last(ask(PageActions({"broken": broken}, 1), examples["Fake speech"]))
    assert "The model failed on this recording" in end.status


def test_cancelled_work_ends_before_the_next_forward_pass(make_scorer, examples):
    scorer = make_scorer(batch_size=1)
    actions = PageActions({"slow": scorer}, 1)
    reached, go_on, n_passes = threading.Event(), threading.Event(), []

    def wait(*_):
        n_passes.append(1)
        reached.set()
        go_on.wait(30)

    scorer.model.register_forward_pre_hook(wait)
    shown = ask(actions, examples["Genuine, then fake"])
    assert next(shown).is_running
    assert reached.wait(30)
    actions.cancel("somebody else")
    assert next(shown).is_running
    actions.cancel("visitor")
    end = last(shown)
    assert "Cancelled" in end.status
    assert not end.is_running
    go_on.set()
    # The models are free again once the work has ended.
    judged = last(ask(actions, examples["Fake speech"])).judged
    assert len(n_passes) == 1 + 1 + len(judged.judgments[0].timeline)  # the cancelled one, the verdict, the windows


def test_a_visitor_who_leaves_ends_the_work(actions, examples):
    shown = ask(actions, examples["Fake speech"])
    next(shown)
    _, progress = actions._running["visitor"]
    shown.close()
    assert progress.is_cancelled
    assert not actions._running


def test_progress_covers_all_models(scorer, uncalibrated, examples):
    class Recorded(Progress):
        def report(self, fraction):
            fractions.append(fraction)
            super().report(fraction)

    fractions = []
    recording = read_recording(examples["Genuine, then fake"], max_minutes=1)
    judge(recording, {"a": scorer, "b": uncalibrated}, Settings(), Recorded())
    assert fractions == sorted(fractions)
    assert 0.5 in fractions
    assert fractions[-1] == 1.0
    progress = Progress()
    progress.cancel()
    with pytest.raises(Cancelled):
        judge(recording, {"a": scorer}, Settings(), progress)
