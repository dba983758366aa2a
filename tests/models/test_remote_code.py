"""Saved detectors include their code: they run without hf_gradalign."""

import ast
import json
import os
import sys

import forked_python
import numpy as np
import pytest
import torch
from tiny_detectors import FEATURE_ENCODERS
from transformers import AutoConfig

from hf_gradalign.models import (
    HEADS,
    SpoofDetectorConfig,
    SpoofDetectorForAudioClassification,
)

# As on a machine without this package. torchaudio counts as missing too, since transformers does not need it here.
ELSEWHERE = """
import sys
sys.modules["hf_gradalign"] = None
sys.modules["torchaudio"] = None
import json
import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline

waves = list(np.load(sys.argv[-1]))

def scores(name, **options):
    model = AutoModelForAudioClassification.from_pretrained(name, **options)
    extractor = AutoFeatureExtractor.from_pretrained(name, **options)
    with torch.no_grad():
        logits = model(**extractor(waves, sampling_rate=16_000, return_tensors="pt")).logits
    return model, {"class": type(model).__module__, "logits": logits.tolist()}

def refusal(name):
    messages = []
    for auto in (AutoModelForAudioClassification, AutoFeatureExtractor):
        try:
            auto.from_pretrained(name, trust_remote_code=False)
        except ValueError as error:
            messages.append(str(error))
    return messages

def of_pipeline(name):
    classify = pipeline("audio-classification", model=name, trust_remote_code=True)
    found = [{score["label"]: score["score"] for score in one} for one in classify(waves)]
    return [[one["spoof"], one["bonafide"]] for one in found]
"""


@pytest.fixture
def make_detector(tmp_path):
    """A function that returns a detector, its extractor, a file of clips, and their logits."""

    def make(head, front_end=None, detector=None, **options):
        backbone = front_end or AutoConfig.for_model(
            "wav2vec2", hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            conv_dim=[16] * 3, conv_stride=[5, 4, 4], conv_kernel=[10, 8, 4], num_feat_extract_layers=3,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, feat_extract_norm="layer", conv_bias=True,
        )  # fmt: skip
        torch.manual_seed(0)
        config = SpoofDetectorConfig(backbone, head, options, n_samples=3200, **(detector or {}))
        model = SpoofDetectorForAudioClassification(config).eval()
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
        extractor = model.make_feature_extractor()
        waves = np.random.default_rng(0).normal(0, 0.1, (2, 3000)).astype(np.float32)
        np.save(tmp_path / "waves.npy", waves)
        with torch.no_grad():
            logits = model(**extractor(waves, return_tensors="pt")).logits
        return model, extractor, tmp_path / "waves.npy", logits

    return make


def run_elsewhere(program, *args, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON"))}
    (tmp_path / "cwd").mkdir()
    done = forked_python.run(
        [sys.executable, "-c", f"{ELSEWHERE}\n{program}", *map(str, args)],
        env={**kept, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path / "cwd",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_same(found, logits):
    assert found["class"].startswith("transformers_modules.")
    assert torch.allclose(torch.tensor(found["logits"]), logits, atol=1e-6)


def test_the_saved_code_is_whole_and_needs_no_package(make_detector, tmp_path):
    """Only flat relative imports of saved files, torch and transformers, which the Hub's loader supports."""
    model, extractor, _, _ = make_detector("linear")
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    files = {path.stem: ast.parse(path.read_text()) for path in tmp_path.glob("*.py")}
    assert {"modeling_spoof_detector", "feature_extraction_spoof_detector", "heads", "selective_scan"} <= files.keys()
    for name, tree in files.items():
        optional = {node for attempt in ast.walk(tree) if isinstance(attempt, ast.Try) for node in ast.walk(attempt)}
        for node in set(ast.walk(tree)) - optional:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, name
                assert node.module in files, name
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                roots = {module.partition(".")[0] for module in modules}
                assert roots <= {"torch", "transformers", "numpy"} | set(sys.stdlib_module_names), name


def test_runs_without_the_package(make_detector, tmp_path):
    calibration = {"method": "affine", "prior": 0.5, "slope": 3.0, "offset": -0.7}
    model, extractor, waves, logits = make_detector("linear", detector={"calibration": calibration})
    model.save_pretrained(tmp_path / "detector")
    extractor.save_pretrained(tmp_path / "detector")
    program = (
        "folder, again = sys.argv[1:3]\n"
        "model, found = scores(folder, trust_remote_code=True)\n"
        "model.save_pretrained(again)\n"
        "print(json.dumps([found, of_pipeline(folder), refusal(folder)]))"
    )
    args = (tmp_path / "detector", tmp_path / "again", waves)
    found, by_pipeline, refusals = run_elsewhere(program, *args, tmp_path=tmp_path)
    assert_same(found, logits)
    assert torch.allclose(torch.tensor(by_pipeline), logits.softmax(1), atol=1e-6)
    assert len(refusals) == 2
    assert all("trust_remote_code=True" in message for message in refusals)
    # A model that is trained further is saved with its code, too.
    code, handed_on = ({path.name for path in (tmp_path / name).glob("*.py")} for name in ("detector", "again"))
    assert handed_on == code
    saved = json.loads((tmp_path / "again" / "preprocessor_config.json").read_text())
    assert saved["auto_map"] == {
        "AutoFeatureExtractor": "feature_extraction_spoof_detector.SpoofDetectorFeatureExtractor"
    }


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("head", sorted(set(HEADS) - {"linear"}))
def test_every_head_runs_without_the_package(head, make_detector, tmp_path):
    options = {"conformer_tcm": {"num_positions": 300}, "nes2net": {"num_scales": 2}}.get(head, {})
    model, extractor, waves, logits = make_detector(head, **options)
    model.save_pretrained(tmp_path / "detector")
    extractor.save_pretrained(tmp_path / "detector")
    program = "print(json.dumps(scores(sys.argv[1], trust_remote_code=True)[1]))"
    assert_same(run_elsewhere(program, tmp_path / "detector", waves, tmp_path=tmp_path), logits)


@pytest.mark.long
@pytest.mark.slow
def test_aasist_on_raw_waveforms_runs_without_the_package(make_detector, tmp_path):
    model, _, waves, logits = make_detector("aasist", {"model_type": "sinc"}, channels=[4, 8])
    model.save_pretrained(tmp_path / "detector")  # with its extractor
    program = "print(json.dumps(scores(sys.argv[1], trust_remote_code=True)[1]))"
    assert_same(run_elsewhere(program, tmp_path / "detector", waves, tmp_path=tmp_path), logits)


@pytest.mark.long
@pytest.mark.slow
def test_a_single_output_of_merged_layers_runs_without_the_package(make_detector, tmp_path):
    options = {"num_groups": 4, "num_scales": 2}
    detector = {"num_labels": 1, "layer_merging": "attm", "do_normalize": True, "normalization_epsilon": 1e-5}
    detector["calibration"] = {"method": "pav", "knots": [[-9.0, -3.0], [9.0, 3.0]]}
    model, extractor, waves, logits = make_detector("nes2net", detector=detector, **options)
    model.save_pretrained(tmp_path / "detector")
    extractor.save_pretrained(tmp_path / "detector")
    program = "print(json.dumps(scores(sys.argv[1], trust_remote_code=True)[1]))"
    assert logits.shape == (2, 1)
    assert_same(run_elsewhere(program, tmp_path / "detector", waves, tmp_path=tmp_path), logits)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("family", FEATURE_ENCODERS)
def test_encoders_of_features_run_without_the_package(family, make_detector, tmp_path):
    encoder = AutoConfig.for_model(family, **FEATURE_ENCODERS[family])
    model, _, waves, logits = make_detector("linear", encoder)
    model.save_pretrained(tmp_path / "detector")
    program = "print(json.dumps(scores(sys.argv[1], trust_remote_code=True)[1]))"
    assert_same(run_elsewhere(program, tmp_path / "detector", waves, tmp_path=tmp_path), logits)


PUSH = """
import hf_gradalign.models
from transformers import AutoModelForAudioClassification
AutoModelForAudioClassification.from_pretrained(args[0]).push_to_hub("tester/detector")  # includes the extractor
report("pushed")
"""


@pytest.mark.slow
def test_the_hub_takes_the_code_along(hub, run_client, make_detector, tmp_path):
    model, extractor, waves, logits = make_detector("aasist")
    model.save_pretrained(tmp_path / "detector")
    extractor.save_pretrained(tmp_path / "detector")
    run_client(PUSH, tmp_path / "detector")
    published = set(hub.repos["tester/detector"].files)
    assert {path.name for path in (tmp_path / "detector").iterdir()} <= published

    program = (
        "name = 'tester/detector'\nreport([scores(name, trust_remote_code=True)[1], of_pipeline(name), refusal(name)])"
    )
    found, by_pipeline, refusals = run_client(ELSEWHERE + program, waves, home="another home")
    assert_same(found, logits)
    assert torch.allclose(torch.tensor(by_pipeline), logits.softmax(1), atol=1e-6)
    assert len(refusals) == 2
    assert all("trust_remote_code=True" in message for message in refusals)
