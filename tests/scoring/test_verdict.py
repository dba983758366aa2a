"""Verdicts: a label, a log-likelihood ratio and a probability for a stated prior and costs."""

import json
import logging
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_clips import WINDOW, draw_clip
from tiny_detectors import make_detector

from hf_gradalign.metrics import DetectionCosts
from hf_gradalign.models import SpoofDetectorFeatureExtractor
from hf_gradalign.scoring import DecisionRule, SpoofScorer, Verdict

CALIBRATION = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
EXTRACTOR = SpoofDetectorFeatureExtractor(n_samples=WINDOW)
CLIPS = [draw_clip(seed, 4000) for seed in range(3)]


@pytest.fixture
def scorer():
    model = make_detector()
    model.config.calibration = CALIBRATION
    return SpoofScorer(model, EXTRACTOR)


@given(st.floats(-50, 50), st.floats(0.01, 0.99), st.floats(0.1, 100), st.floats(0.1, 100))
def test_the_label_is_the_cheaper_decision(llr, p_spoof, c_miss, c_fa):
    verdict = DecisionRule(True, DetectionCosts(p_spoof, c_miss, c_fa))(llr)
    odds = math.exp(llr) * (1 - p_spoof) / p_spoof
    assert verdict.posterior == pytest.approx(odds / (1 + odds), abs=1e-9)
    cost_of_accepting, cost_of_rejecting = c_fa * (1 - verdict.posterior), c_miss * verdict.posterior
    if not math.isclose(cost_of_accepting, cost_of_rejecting, rel_tol=1e-6):
        assert verdict.label == ("bonafide" if cost_of_accepting < cost_of_rejecting else "spoof")


def test_by_hand_with_the_defaults_of_asvspoof_5():
    rule = DecisionRule(True)
    assert rule.threshold == pytest.approx(math.log(0.5 / 0.95))
    assert rule(rule.threshold).label == "bonafide"  # as in the actDCF, where a score at the threshold is accepted
    assert rule(rule.threshold - 1e-9).label == "spoof"
    assert rule(0.0) == Verdict("bonafide", 0.0, 0.0, pytest.approx(0.95), rule.threshold)


def test_the_band_is_to_either_side_of_the_threshold():
    rule = DecisionRule(True, undecided_band=2.0)
    offsets = [-2.1, -1.9, 0.0, 1.9, 2.1]
    labels = [verdict.label for verdict in rule.decide([rule.threshold + offset for offset in offsets])]
    assert labels == ["spoof", "undecided", "undecided", "undecided", "bonafide"]
    assert rule(rule.threshold).posterior is not None


def test_ratios_of_any_size_do_not_overflow():
    assert DecisionRule(True)(1e6).posterior == 1.0
    assert DecisionRule(True)(-1e6).posterior == 0.0


def test_without_calibration_there_is_only_the_sign():
    rule = DecisionRule(False)
    assert rule(0.5) == Verdict("bonafide", 0.5, None, None, 0.0)
    assert rule(-0.5).label == "spoof"
    with pytest.raises(ValueError, match=r"Calibrate the model .hf-gradalign calibrate"):
        DecisionRule(False, undecided_band=1.0)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_clips_without_a_score_have_no_label(is_calibrated):
    verdict = DecisionRule(is_calibrated)(math.nan)
    assert (verdict.label, verdict.llr, verdict.posterior) == (None, None, None)
    assert json.dumps(verdict.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    "options", [{"undecided_band": -1}, {"undecided_band": math.inf}, {"undecided_band": math.nan}]
)
def test_refuses_bands_out_of_range(options):
    with pytest.raises(ValueError, match="undecided_band must be 0 or more"):
        DecisionRule(True, **options)


def test_predict_decides_about_scores(scorer):
    scores = scorer.score(CLIPS)
    verdicts = scorer.predict(CLIPS, p_spoof=0.3, c_miss=2, c_fa=3, undecided_band=0.01)
    rule = DecisionRule(True, DetectionCosts(0.3, 2, 3), 0.01)
    assert verdicts == [rule(score) for score in scores]
    assert [verdict.llr for verdict in verdicts] == scores.tolist()


def test_predict_marks_bad_audio(scorer):
    verdicts = scorer.predict([CLIPS[0], b"RIFF?"], on_bad_audio="nan")
    assert [verdict.label is None for verdict in verdicts] == [False, True]


@pytest.mark.parametrize("options", [{"p_spoof": 1}, {"c_fa": 0}, {"undecided_band": -1}])
def test_predict_refuses_numbers_out_of_range_before_scoring(scorer, options):
    with pytest.raises(ValueError, match="must be"):
        scorer.predict(["missing.wav"], **options)


@pytest.mark.parametrize(("raw_scores", "message"), [(False, "hf-gradalign calibrate"), (True, "raw scores")])
def test_predict_without_calibration_warns_once(scorer, raw_scores, message, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    model = scorer.model if raw_scores else make_detector()
    model.name_or_path = f"model {raw_scores}"
    uncalibrated = SpoofScorer(model, EXTRACTOR, raw_scores=raw_scores)
    for _ in range(2):
        assert {verdict.posterior for verdict in uncalibrated.predict(CLIPS)} == {None}
    assert caplog.text.count(message) == 1
    with pytest.raises(ValueError, match="have no unit"):
        uncalibrated.predict(CLIPS, undecided_band=1)


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_silence_is_undecided(is_calibrated):
    rule = DecisionRule(is_calibrated)
    verdict = rule(9.0, is_silent=True)
    assert verdict == Verdict("undecided", 9.0, None, None, rule.threshold, is_silent=True)
    assert verdict.describe() == "undecided (silent)"
    assert verdict.as_dict()["is_silent"] is True
    assert "is_silent" not in rule(9.0).as_dict()


def test_predict_marks_silent_clips(scorer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    silent = [np.zeros(4000), np.full(10, 0.3), np.stack([CLIPS[0], -CLIPS[0]]), np.r_[np.zeros(WINDOW), CLIPS[0]]]
    verdicts = scorer.predict([*CLIPS, *silent])
    assert [verdict.is_silent for verdict in verdicts] == [False] * 3 + [True] * 4
    assert "4 of 7 clips are silent in the part that the model scores" in caplog.text
    assert ": clip 3, clip 4, clip 5, clip 6. Their scores say nothing" in caplog.text


def test_no_verdict_is_described_as_certain():
    rule = DecisionRule(is_calibrated=True)
    assert rule(9.0).describe() == "bonafide (more than 99.9 % bonafide)"
    assert rule(3.0).describe() == "bonafide (99.7 % bonafide)"
    assert rule(-30.0).describe() == "spoof (1.78e-10 % bonafide)"
