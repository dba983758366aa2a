"""One clip gets one score and one verdict, whatever runs the calibrated model."""

import json

import numpy as np
import pytest
import soundfile
from noise_clips import RATE, WINDOW, draw_clip
from tiny_detectors import make_classifier, make_detector
from transformers import pipeline

from hf_gradalign.cli import score as score_command
from hf_gradalign.export import export_onnx
from hf_gradalign.hub import CalibratedFolder
from hf_gradalign.hub.arena import GradAlignModel
from hf_gradalign.metrics import Calibration
from hf_gradalign.models import small_feature_extractor
from hf_gradalign.scoring import SpoofScorer

CALIBRATIONS = {
    "affine": Calibration("affine", slope=3.0, offset=-0.7),
    "pav": Calibration("pav", knots=((-0.2, -0.5), (0.0, -0.5), (1.4, 1.6))),
}
MADE = {"fitted_on": {"scores": "dev.txt"}, "n_bonafide": 60, "n_spoof": 70}
CLIPS = [draw_clip(seed, WINDOW) for seed in range(3)]
CLOSE = {"rtol": 0, "atol": 1e-6}


@pytest.fixture
def make_calibrated(tmp_path):
    def make(kind):
        model = make_classifier() if kind == "transformers" else make_detector(n_samples=WINDOW)
        extractor = small_feature_extractor() if kind == "transformers" else model.make_feature_extractor()
        extractor.n_scored_samples = WINDOW
        model.save_pretrained(tmp_path / "model")
        extractor.save_pretrained(tmp_path / "model")
        CalibratedFolder(tmp_path / "model").store(CALIBRATIONS["affine" if kind == "transformers" else kind], **MADE)
        return tmp_path / "model"

    return make


@pytest.mark.parametrize("kind", [*CALIBRATIONS, "transformers"])
def test_scorer_pipeline_arena_and_score_file_agree(make_calibrated, kind, tmp_path, capsys):
    folder = make_calibrated(kind)
    # One by one as in the pipeline, because float32 sums differ between batches of different sizes.
    verdicts = SpoofScorer(folder, batch_size=1).predict(CLIPS, p_spoof=0.5, undecided_band=0.1)
    ratios = np.array([verdict.llr for verdict in verdicts])

    classify = pipeline("audio-classification", model=str(folder))
    posteriors = [{one["label"]: one["score"] for one in classify(clip)}["bonafide"] for clip in CLIPS]
    np.testing.assert_allclose(posteriors, [verdict.posterior for verdict in verdicts], **CLOSE)
    logits = [{one["label"]: one["score"] for one in classify(clip, function_to_apply="none")} for clip in CLIPS]
    np.testing.assert_allclose([one["bonafide"] - one["spoof"] for one in logits], ratios, **CLOSE)

    class Mine(GradAlignModel):
        model = folder
        batch_size = 1

    system = Mine()
    system.load()
    np.testing.assert_allclose(system.score_batch(CLIPS, [RATE] * 3), ratios, **CLOSE)

    for index, clip in enumerate(CLIPS):
        soundfile.write(tmp_path / f"a b\t{index}.wav", clip, RATE, subtype="FLOAT")
    words = [
        str(folder),
        "--audio",
        *map(str, sorted(tmp_path.glob("*.wav"))),
        "--output_file",
        str(tmp_path / "s.txt"),
    ]
    words += ["--verdict", "--p_spoof", "0.5", "--undecided_band", "0.1", "--num_workers", "0", "--no_progress"]
    assert score_command.main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "s_verdicts.jsonl").read_text().splitlines()]
    np.testing.assert_allclose([row["llr"] for row in rows], ratios, **CLOSE)
    np.testing.assert_allclose([row["posterior"] for row in rows], posteriors, **CLOSE)
    assert [row["label"] for row in rows] == [verdict.label for verdict in verdicts]
    assert {row["p_spoof"] for row in rows} == {0.5}
    assert f"({100 * posteriors[0]:.3g} % bonafide)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "raw_scores"),
    [
        pytest.param(kind, raw, marks=[] if raw == (kind == "pav") else [pytest.mark.long])
        for kind in (*CALIBRATIONS, "transformers")
        for raw in (False, True)
    ],
)
def test_onnx_agrees(make_calibrated, kind, raw_scores, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    scorer = SpoofScorer(make_calibrated(kind), raw_scores=raw_scores, device="cpu")
    file = tmp_path / "detector.onnx"
    export_onnx(scorer.model, file, n_samples=WINDOW, check_batches=(2,), raw_scores=raw_scores)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    inputs = scorer.feature_extractor(CLIPS, sampling_rate=RATE, return_tensors="np")
    (logits,) = session.run(["logits"], {"input_values": inputs["input_values"]})
    found = logits[:, 1].astype(float) - logits[:, 0]
    np.testing.assert_allclose(found, scorer.score(CLIPS), **CLOSE)
    metadata = session.get_modelmeta().custom_metadata_map
    if raw_scores:
        assert "calibration" not in metadata
    else:
        assert Calibration.from_dict(json.loads(metadata["calibration"])) == scorer.calibration


def test_raw_scores_of_the_arena_class(make_calibrated, monkeypatch):
    folder = make_calibrated("affine")
    monkeypatch.setenv("HF_GRADALIGN_MODEL", str(folder))
    monkeypatch.setenv("HF_GRADALIGN_RAW_SCORES", "1")
    system = GradAlignModel()
    system.load()
    expected = SpoofScorer(folder, raw_scores=True).score(CLIPS)
    np.testing.assert_allclose(system.score_batch(CLIPS, [RATE] * 3), expected, **CLOSE)
    assert np.abs(expected - SpoofScorer(folder).score(CLIPS)).min() > 0.01
