"""Scorers of calibrated models: log-likelihood ratios, raw scores, and their settings."""

import json
import logging

import numpy as np
import pytest
import transformers
from noise_clips import WINDOW, draw_clip
from packaging.version import Version
from tiny_detectors import make_classifier, make_detector
from transformers import pipeline

from hf_gradalign.metrics import Calibration
from hf_gradalign.models import SpoofDetectorFeatureExtractor, small_feature_extractor
from hf_gradalign.models.stored_calibration import fold_calibration
from hf_gradalign.scoring import SpoofScorer, score_corpus
from hf_gradalign.scoring.fingerprint import describe_scoring

AFFINE = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
PAV = {"method": "pav", "prior": 0.5, "knots": [[-0.2, -2.0], [0.0, -2.0], [0.4, 3.0]]}
CLIPS = [draw_clip(seed, 4000) for seed in range(4)]
EXTRACTOR = SpoofDetectorFeatureExtractor(n_samples=WINDOW)


@pytest.fixture(autouse=True)
def logged(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_gradalign"), "propagate", True)
    return caplog


def make_calibrated(calibration=AFFINE, **options):
    model = make_detector(**options)
    model.config.calibration = calibration
    return model


@pytest.fixture(scope="module")
def calibrated_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    make_calibrated(n_samples=WINDOW).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def raw():
    return SpoofScorer(make_detector(), EXTRACTOR).score(CLIPS)


@pytest.mark.parametrize("calibration", [AFFINE, PAV], ids=["affine", "pav"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_are_ratios_and_raw_scores_are_not(calibration, dtype, raw):
    raw = raw if dtype == "float32" else SpoofScorer(make_detector(), EXTRACTOR, dtype=dtype).score(CLIPS)
    scorer = SpoofScorer(make_calibrated(calibration), EXTRACTOR, dtype=dtype)
    assert scorer.calibration == Calibration.from_dict(calibration)
    np.testing.assert_allclose(scorer.score(CLIPS), scorer.calibration(raw), atol=1e-5)
    with_raw = SpoofScorer(make_calibrated(calibration), EXTRACTOR, dtype=dtype, raw_scores=True)
    assert with_raw.calibration is None
    assert np.array_equal(with_raw.score(CLIPS), raw)


def test_of_a_model_of_transformers():
    model = make_classifier()
    before = SpoofScorer(model, small_feature_extractor()).score(CLIPS)
    note = fold_calibration(model, small_feature_extractor(), ("spoof", "bonafide"), 3.0, -0.7)
    model.config.calibration = {**AFFINE, **note}
    scorer = SpoofScorer(model, small_feature_extractor())
    assert scorer.calibration == Calibration.from_dict(AFFINE)
    np.testing.assert_allclose(scorer.score(CLIPS), 3 * before - 0.7, atol=1e-5)
    raw = SpoofScorer(model, small_feature_extractor(), raw_scores=True)
    np.testing.assert_allclose(raw.score(CLIPS), before, atol=1e-5)
    with pytest.raises(ValueError, match="--bonafide_label"):
        SpoofScorer(model, small_feature_extractor(), bonafide_label="spoof")


def test_windows_of_a_recording_are_calibrated_too():
    clip = np.concatenate(CLIPS)
    timeline = SpoofScorer(make_calibrated(), EXTRACTOR).timeline(clip)
    before = SpoofScorer(make_detector(), EXTRACTOR).timeline(clip)
    assert timeline.is_calibrated
    np.testing.assert_allclose(timeline.scores, 3 * before.scores - 0.7, atol=1e-5)


@pytest.mark.parametrize("num_labels", [1, 2])
def test_scorer_and_pipeline_agree(num_labels, tmp_path):
    if num_labels == 1 and Version(transformers.__version__) < Version("5.21"):
        pytest.skip("the pipeline takes the softmax of a single output")
    options = {"num_labels": 1} if num_labels == 1 else {}
    make_calibrated(n_samples=WINDOW, **options).save_pretrained(tmp_path)
    verdicts = SpoofScorer(tmp_path).predict(CLIPS, p_spoof=0.5)
    classify = pipeline("audio-classification", model=str(tmp_path))
    for clip, verdict in zip(CLIPS, verdicts, strict=True):
        found = {one["label"]: one["score"] for one in classify(clip)}
        assert found["bonafide"] == pytest.approx(verdict.posterior, abs=1e-6)


def test_settings_keep_raw_and_calibrated_scores_apart(raw):
    def settings(**options):
        return describe_scoring(SpoofScorer(make_detector(), EXTRACTOR, **options), ["a"], [None])

    def calibrated_settings(calibration=AFFINE, **options):
        return describe_scoring(SpoofScorer(make_calibrated(calibration), EXTRACTOR, **options), ["a"], [None])

    before = settings()
    assert not {"calibration", "raw_scores"} & before.keys()
    assert calibrated_settings() == {**before, "calibration": AFFINE}
    assert calibrated_settings(raw_scores=True) == {**before, "raw_scores": True}
    knots = calibrated_settings(PAV)["calibration"].pop("knots")
    assert knots.startswith("sha256:")
    assert json.dumps(before)


def test_a_scoring_is_not_resumed_with_other_scores(make_corpus, tmp_path):
    file = tmp_path / "scores.txt"
    score_corpus(SpoofScorer(make_detector(), EXTRACTOR), make_corpus(3), file, progress=False)
    with pytest.raises(ValueError, match="scored with other settings: calibration was None and is now"):
        score_corpus(SpoofScorer(make_calibrated(), EXTRACTOR), make_corpus(3), file, progress=False)


def test_other_windows_than_in_the_calibration_warn_once(logged):
    fitted = {"windows": "first", "window_samples": WINDOW, "hop_samples": None, "combine": None, "rms_level": None}
    model = make_calibrated({**AFFINE, "windowing": fitted})
    SpoofScorer(model, EXTRACTOR).score(CLIPS)
    SpoofScorer(model, EXTRACTOR, windows="all", raw_scores=True)
    assert "other windows" not in logged.text
    SpoofScorer(model, EXTRACTOR, windows="all", rms_level=0.1).score(CLIPS)
    assert logged.text.count("fitted with other windows") == 1
    assert "windows was 'first' and is now 'all'" in logged.text
    assert "rms_level was None and is now 0.1" in logged.text


def test_a_damaged_calibration_names_the_model(calibrated_folder, tmp_path):
    content = json.loads((calibrated_folder / "config.json").read_text())
    content["calibration"]["slope"] = 0
    for file in calibrated_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"cannot load the model {tmp_path}.*calibration in the model's configuration"):
        SpoofScorer(tmp_path)
