"""A calibration in the folder of a model: what is written, in which order, and what is refused."""

import json
import os
from itertools import product

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from noise_clips import WINDOW, draw_clip
from tiny_detectors import make_classifier, make_detector

from hf_gradalign.hub import CalibratedFolder
from hf_gradalign.hub.model_calibration import add_calibration_section
from hf_gradalign.metrics import Calibration
from hf_gradalign.models import small_feature_extractor
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.scoring.fingerprint import digest_of_weights
from hf_gradalign.utils.plain_text import today

AFFINE = Calibration("affine", slope=3.0, offset=-0.7)
OTHER = Calibration("affine", slope=0.5, offset=2.0)
PAV = Calibration("pav", knots=((-0.2, -2.0), (0.0, -2.0), (0.4, 3.0)))
MADE = {"fitted_on": {"scores": "dev.txt"}, "n_bonafide": 60, "n_spoof": 70}
CLIPS = [draw_clip(seed, 4000) for seed in range(3)]


@pytest.fixture
def detector(tmp_path):
    make_detector(n_samples=WINDOW).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def classifier(tmp_path):
    make_classifier().save_pretrained(tmp_path)
    small_feature_extractor().save_pretrained(tmp_path)
    return tmp_path


def score(folder, **options):
    return SpoofScorer(folder, **options).score(CLIPS)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("calibration", [AFFINE, PAV], ids=["affine", "pav"])
def test_a_detector(detector, calibration):
    before, raw = contents(detector), score(detector)
    CalibratedFolder(detector).store(calibration, **MADE)
    after = contents(detector)
    assert {name for name in after if before.get(name) != after[name]} == {"config.json", "README.md"}
    config, earlier = json.loads(after["config.json"]), json.loads(before["config.json"])
    assert config.pop("calibration") == {**calibration.as_dict(), **MADE, "date": today()}
    assert config == earlier
    np.testing.assert_allclose(score(detector), calibration(raw), atol=1e-5)
    assert np.array_equal(score(detector, raw_scores=True), raw)


def test_older_code_in_the_folder_is_updated(detector):
    current = (detector / "modeling_spoof_detector.py").read_text()
    (detector / "modeling_spoof_detector.py").write_text("# of an older version\n")
    (detector / "score_calibration.py").unlink()
    CalibratedFolder(detector, trust_remote_code=True).store(AFFINE, **MADE)
    assert (detector / "modeling_spoof_detector.py").read_text() == current
    assert (detector / "score_calibration.py").is_file()


def test_a_classifier_of_transformers(classifier):
    raw, digest = score(classifier), digest_of_weights(make_classifier())
    CalibratedFolder(classifier).store(AFFINE, **MADE)
    np.testing.assert_allclose(score(classifier), AFFINE(raw), atol=1e-5)
    np.testing.assert_allclose(score(classifier, raw_scores=True), raw, atol=1e-5)
    # Another calibration replaces the first, also from scores of the model before it was calibrated.
    folder = CalibratedFolder(classifier)
    assert Calibration.from_dict(folder.earlier) == AFFINE
    folder.require_same_model(digest)
    folder.require_same_model(digest_of_weights(SpoofScorer(classifier).model))
    with pytest.raises(ValueError, match="another model"):
        folder.require_same_model("0" * 64)
    folder.store(OTHER, **MADE)
    np.testing.assert_allclose(score(classifier), OTHER(raw), atol=1e-4)
    folder.store(AFFINE, **MADE)  # by the same object
    np.testing.assert_allclose(score(classifier), AFFINE(raw), atol=1e-4)
    assert "previous" not in json.loads((classifier / "config.json").read_text())["calibration"]
    with pytest.raises(ValueError, match="cannot apply a PAV calibration"):
        CalibratedFolder(classifier).store(PAV, **MADE)


@pytest.mark.parametrize(
    ("is_calibrated", "writes"),
    [
        (False, 1),
        (True, 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in product((False, True), (0, 2, 3))),
    ],
)
def test_a_classifier_is_never_calibrated_by_half(classifier, is_calibrated, writes, monkeypatch):
    raw = score(classifier)
    if is_calibrated:
        CalibratedFolder(classifier).store(AFFINE, **MADE)
    replace, left = os.replace, [writes]

    def interrupted(*paths):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(*paths)

    folder = CalibratedFolder(classifier)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.store(OTHER, **MADE)
    monkeypatch.undo()
    scorer = SpoofScorer(classifier)
    expected = raw if scorer.calibration is None else scorer.calibration(raw)
    np.testing.assert_allclose(scorer.score(CLIPS), expected, atol=1e-4)
    CalibratedFolder(classifier).store(OTHER, **MADE)
    np.testing.assert_allclose(score(classifier), OTHER(raw), atol=1e-4)


def test_other_weights_in_the_folder_are_told(classifier):
    torch.save({}, classifier / "pytorch_model.bin")
    folder = CalibratedFolder(classifier)
    folder.store(AFFINE, **MADE)
    assert folder.unused_weights() == ["pytorch_model.bin"]


def test_half_precision_weights_become_float32(tmp_path):
    make_classifier().half().save_pretrained(tmp_path)
    small_feature_extractor().save_pretrained(tmp_path)
    raw = score(tmp_path)
    CalibratedFolder(tmp_path).store(AFFINE, **MADE)
    np.testing.assert_allclose(score(tmp_path), AFFINE(raw), atol=1e-5)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_what_cannot_hold_a_calibration(detector, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no folder you/detector.*hf download you/detector"):
        CalibratedFolder("you/detector")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        CalibratedFolder(tmp_path / "empty")
    windowing = {"windows": "all", "combine": "mean"}
    with pytest.raises(ValueError, match="use --method affine, or score with --combine min or max"):
        CalibratedFolder(detector).store(PAV, **MADE, windowing=windowing)

    def read_only(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(PermissionError, match=r"cannot be written \(Permission denied\).*calibrate a copy"):
        CalibratedFolder(detector)


def test_detectors_with_other_label_names(tmp_path):
    make_detector(n_samples=WINDOW, id2label={0: "fake", 1: "real"}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="named fake, real, but the outputs of a calibrated detector must"):
        CalibratedFolder(tmp_path)


def test_a_checkpoint_of_a_run(classifier, detector):
    make_classifier().save_pretrained(classifier)
    (classifier / "checkpoint_manifest.json").write_text(json.dumps({"sequence": 0, "files": {}, "sha256": {}}))
    with pytest.raises(ValueError, match="is a checkpoint of a run"):
        CalibratedFolder(classifier)


def test_the_section_of_the_card():
    files = {"scores": "<b>dev</b>.txt", "keys": "keys.tsv"}
    calibration = {**AFFINE.as_dict(), **MADE, "date": "2026-11-27", "fitted_on": files}
    limit = "- Scores are not calibrated: they rank clips and are not probabilities."
    card = f"---\nlicense: mit\n---\n\n# Model\n\n## Intended use and limits\n\n{limit}\n"
    once = add_calibration_section(card, calibration, "| metric |\n")
    assert once.index("# Model") < once.index("## Calibration") < once.index("## Intended use and limits")
    assert "not calibrated" not in once
    assert r"(\<b>dev\</b>.txt, keys.tsv), 2026-11-27" in once  # escaped
    assert add_calibration_section(once, calibration, "| metric |\n") == once
    replaced = add_calibration_section(once, {**PAV.as_dict(), **MADE, "date": "2026-11-28"})
    assert "3 knots" in replaced
    assert "slope" not in replaced
    new = add_calibration_section("", calibration)
    assert ModelCard(new).data.to_dict() == {"library_name": "transformers", "pipeline_tag": "audio-classification"}
    assert ModelCard(new).text.strip().startswith("<!-- begin")
    assert add_calibration_section(new, calibration) == new
    assert add_calibration_section("# Mine\n", calibration).startswith("# Mine\n\n<!-- begin")
