"""The report of a calibration: held-out clips, intervals and the reliability diagram."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from hf_gradalign.metrics import fit_calibration
from hf_gradalign.score_files import Clips, ScoreFileError, calibrate_scores, draw_reliability
from hf_gradalign.score_files.report import reliability

N = 400
LABELS = np.arange(N) // 10 % 2
SPEAKERS = [f"s{clip % 20:02d}" for clip in range(N)]
# Raw scores whose log-likelihood ratio is 2 * (s - 11) / 5 - 2: unit Gaussians around 0 and 2, scaled and shifted.
RAW = 5 * (np.random.default_rng(0).normal(size=N) + 2 * LABELS) + 11


def make_clips(scores=RAW, speakers=SPEAKERS, labels=LABELS):
    columns = {} if speakers is None else {"speaker": pa.array(speakers)}
    names = pa.array([f"clip_{index:03d}" for index in range(len(scores))])
    return Clips("dev.txt", names, np.array(scores), np.array(labels), columns=columns)


def official_cllr(scores, labels):
    """As in the evaluation package of ASVspoof 5, written from its formula."""
    bonafide, spoof = scores[labels == 1], scores[labels == 0]
    bits = [np.mean([math.log2(1 + math.exp(sign * s)) for s in own]) for sign, own in ((-1, bonafide), (1, spoof))]
    return sum(bits) / 2


def official_act_dcf(scores, labels):
    """As in the evaluation package of ASVspoof 5, written from its formula."""
    threshold = -math.log(1 * (1 - 0.05) / (10 * 0.05))
    p_miss = np.mean(scores[labels == 1] < threshold)
    p_fa = np.mean(scores[labels == 0] >= threshold)
    return (1 * 0.95 * p_miss + 10 * 0.05 * p_fa) / 0.5


@pytest.mark.parametrize("method", ["affine", "pav"])
def test_agrees_with_the_package_of_asvspoof_5(method):
    report = calibrate_scores(make_clips(), method=method, n_draws=0)
    for scores, values in ((RAW, report.before), (report.held_out, report.after)):
        assert values["cllr"] == pytest.approx(official_cllr(scores, LABELS), abs=1e-4)
        assert values["act_dcf"] == pytest.approx(official_act_dcf(scores, LABELS), abs=1e-4)
    assert report.after["cllr"] < 0.6 < 2 < report.before["cllr"]
    assert report.after["act_dcf"] < report.before["act_dcf"]


def test_no_clip_is_calibrated_by_a_fit_on_its_speaker():
    report = calibrate_scores(make_clips(), n_draws=0)
    assert report.folds.over == "speaker"
    for number in range(report.folds.n_folds):
        held_out = report.folds.numbers == number
        others = fit_calibration(RAW[~held_out], LABELS[~held_out])
        np.testing.assert_allclose(report.held_out[held_out], others(RAW[held_out]), atol=1e-9)
        assert not {SPEAKERS[clip] for clip in np.flatnonzero(held_out)} & {
            SPEAKERS[clip] for clip in np.flatnonzero(~held_out)
        }
    assert report.calibration == fit_calibration(RAW, LABELS)


def test_intervals_are_over_speakers_where_they_are_known():
    report = calibrate_scores(make_clips(), n_draws=20)
    assert report.settings.over == "speaker"
    cllr = report.after["cllr"]
    assert cllr.low < cllr.value < cllr.high
    assert "no speaker is in two of them" in report.describe()
    assert "bootstrap of each speaker, 20 draws" in report.describe()
    assert calibrate_scores(make_clips(speakers=None), n_draws=5).settings.over == "utterance"


def test_report_as_text_and_json():
    report = calibrate_scores(make_clips(), n_draws=5)
    table = report.table().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == ["Cllr", "min Cllr", "minDCF", "actDCF"]
    content = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert content["after"]["cllr"]["value"] == report.after["cllr"].value
    assert content["settings"] == {"n_draws": 5, "over": "speaker", "confidence": 0.95, "seed": 0}
    assert "95 %" not in calibrate_scores(make_clips(), n_draws=0).table()


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (make_clips(labels=np.ones(N, dtype=int)), "bona fide"),
        (make_clips(-RAW), "--higher_is spoof"),
        (make_clips(np.ones(N)), "All scores are equal"),
        (make_clips(RAW[6:14], SPEAKERS[6:14], LABELS[6:14]), "too few"),
    ],
)
def test_scores_that_cannot_be_calibrated(clips, message):
    with pytest.raises(ValueError, match=message):
        calibrate_scores(clips, n_draws=0)


def test_a_column_that_is_not_there():
    with pytest.raises(ScoreFileError, match="--hold_out"):
        calibrate_scores(make_clips(), hold_out="codec", n_draws=0)


def test_separated_scores_warn():
    with pytest.warns(UserWarning, match="separate"):
        report = calibrate_scores(make_clips(LABELS + np.linspace(0, 0.5, N)), n_draws=0)
    assert np.isfinite(report.held_out).all()


def test_reliability_by_hand():
    # Four clips of either class. A ratio of ln 3 is a probability of 3/4.
    ratios = np.log([3.0, 3, 3, 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    points = reliability(ratios, labels, n_bins=2)
    np.testing.assert_allclose(points.predicted, [0.25, 0.75])
    np.testing.assert_allclose(points.observed, [0.25, 0.75])
    assert points.counts.tolist() == [4, 4]
    # Three times as many spoofed clips change nothing, because both classes count alike.
    more = np.repeat(np.arange(8), np.where(labels == 1, 1, 3))
    np.testing.assert_allclose(reliability(ratios[more], labels[more], n_bins=2).observed, points.observed)


def test_equal_ratios_share_a_bin():
    assert reliability(np.zeros(50), np.arange(50) % 2).counts.tolist() == [50]


def test_the_diagram_names_its_systems():
    figure = draw_reliability({"before": RAW, "after $x$": RAW / 5 - 3}, LABELS)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["perfect", "before", "after $x$"]


def test_a_calibration_that_gains_nothing_is_reported():
    assert calibrate_scores(make_clips(), n_draws=0).problems == []
    (problem,) = calibrate_scores(make_clips(2 * (RAW - 11) / 5 - 2), n_draws=0).problems  # these are ratios already
    assert problem.startswith("On held-out clips, the calibration does not lower the Cllr (0.")
    assert "Fit on more clips and speakers like those that you will score." in problem
