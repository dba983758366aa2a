"""Detectors in the main job: heads train, and the saved detector scores as the run did."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from tiny_detectors import FEATURE_ENCODERS, OWN_EXTRACTORS
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

from hf_gradalign.conversion import convert_state_dict, read_state_dict
from hf_gradalign.data import decode_audio, load_corpus
from hf_gradalign.experiment import parse_arguments, prepare, train_and_evaluate
from hf_gradalign.models import ARCHITECTURES, small_wav2vec2_config

GOLDEN = Path(__file__).parents[1] / "fixtures"
FOUR_HEADS = {"num_attention_heads": 4}
CONVERSION = {"wavlm_nes2net": {"max_bucket_distance": 80}, "aasist_raw": {}}
SMALL_HEADS = {
    "mamba": {"num_blocks": 2, "size": 16},
    "mhfa": {"num_heads": 2, "compression_size": 8, "embedding_size": 8},
    "nes2net": {"num_groups": 4, "num_scales": 2},
}


SHORT = {"window_seconds": 0.15, "eval_window_seconds": 0.15}  # the shortest for AASIST on raw waveforms, which is slow
SMALLER = {"aasist": {"channels": [16, 32]}, "mamba": {"size": 48}}  # but large enough to learn by heart


@pytest.mark.parametrize(
    "head", [head if head == "nes2net" else pytest.param(head, marks=pytest.mark.slow) for head in SMALL_HEADS]
)
def test_trains_saves_and_goes_on(run_script, tmp_path, head):
    words = ["--head", head, "--head_options", json.dumps(SMALL_HEADS[head]), "--class_weights", "0.1", "0.9"]
    merging = {"nes2net": "sea"}.get(head)
    words += ["--layer_merging", merging] if merging else []
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (model.config.head, model.config.layer_merging) == (head, merging)
    assert model.config.class_weights == [0.1, 0.9]
    assert extractor.n_samples == 8_000
    assert {"modeling_spoof_detector.py", f"head_{head}.py"} <= {path.name for path in (tmp_path / "out").iterdir()}

    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()
    name, score = (tmp_path / "out" / "scores_test.txt").read_text().splitlines()[0].split()
    clips = load_corpus(None)["test"]
    clip = next(clip for clip in clips if clip["utterance_id"] == name)
    inputs = extractor(decode_audio(clip["audio"], 16_000), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    assert float(logits[1] - logits[0]) == pytest.approx(float(score), abs=1e-4)

    if head == "mamba":
        return  # slow to train here
    again = ["--model_name_or_path", str(tmp_path / "out"), "--freeze_backbone"]
    assert run_script("--align_gradients", *again, output_dir=tmp_path / "more") == 0
    assert AutoModelForAudioClassification.from_pretrained(tmp_path / "more").config.class_weights == [0.1, 0.9]


@pytest.mark.parametrize(
    "name",
    [
        "wavlm_nes2net",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("sls", "antideepfake_w2v", "nes2net_x")),
        pytest.param("aasist_raw", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_a_converted_detector_goes_on(run_script, tmp_path, name):
    """Log-probabilities, a single output with merged layers, and normalization with the published epsilon."""
    before, _ = convert_state_dict(read_state_dict(GOLDEN / f"{name}.pth"), **CONVERSION.get(name, FOUR_HEADS))
    before.save_pretrained(tmp_path / "converted")
    words = ["--model_name_or_path", str(tmp_path / "converted"), "--class_weights", "0.1", "0.9"]
    assert run_script("--align_gradients", "pcgrad", *words, output_dir=tmp_path / "out") == 0
    after = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert after.config.id2label == {0: "spoof", 1: "bonafide"}
    for option in ("head_options", "layer_merging", "do_normalize", "normalization_epsilon"):
        assert getattr(after.config, option) == getattr(before.config, option)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert extractor.normalization_epsilon == before.config.normalization_epsilon
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    assert old.keys() == new.keys()
    unmoved = {key for key in old if old[key].shape == new[key].shape and torch.equal(old[key], new[key])}
    # SLS takes the layers without the encoder's final norm.
    assert unmoved == (
        {f"backbone.encoder.layer_norm.{part}" for part in ("weight", "bias")} if name == "sls" else set()
    )


def test_a_head_on_a_pretrained_encoder(run_script, tmp_path, capsys):
    encoder = AutoModel.from_config(small_wav2vec2_config(num_hidden_layers=1))
    encoder.save_pretrained(tmp_path / "encoder")
    words = ["--head", "sls", "--model_name_or_path", str(tmp_path / "encoder")]
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out", eval_window_seconds=0.25) == 0
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    assert model.config.head_options["n_frames"] == 23  # of half a second, the longer of the two windows
    assert model.config.n_samples == 4000
    words = ["--model_name_or_path", str(tmp_path / "out")]
    capsys.readouterr()
    assert run_script(*words, output_dir=tmp_path / "longer", window_seconds=0.6) == 2
    assert "takes 23 frames (n_frames) and would discard the rest of a training window of 28" in capsys.readouterr().err
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").do_normalize is False
    words = ["--head", "linear", "--model_name_or_path", str(tmp_path / "out")]
    assert run_script(*words, output_dir=tmp_path / "wrong") == 2
    assert "is a detector with the head sls: remove --head to train it further" in capsys.readouterr().err


@pytest.mark.slow
def test_aasist_from_scratch(run_script, tmp_path, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "aasist_l", {"channels": [4, 8], "graph_sizes": [8, 4]})
    words = ["--align_gradients", "--model_name_or_path", "aasist_l", "--rms_level", "0.1"]
    assert run_script(*words, output_dir=tmp_path / "out", **SHORT) == 0
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert model.config.backbone_config.model_type == "sinc"
    # Clips of one level in training: the model must not depend on the level of others.
    assert (extractor.n_samples, extractor.do_normalize, model.config.do_normalize) == (2_400, True, True)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.base_model is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("aasist --head mamba", "--head does not apply to aasist, which is trained from scratch: remove it"),
        ("aasist_l --model_revision main", "--model_revision does not apply to aasist_l, which is trained"),
        ("aasist --attention_implementation sdpa", "--attention_implementation does not apply to aasist"),
        ("aasist --bonafide_label 1", "--bonafide_label does not apply to aasist"),
        ("aasist --freeze_backbone true", "--freeze_backbone: the front end sinc has no weights to freeze"),
        ("aasist --freeze_layers 1", "--freeze_layers 1: SincFrontEnd has no list of transformer layers to freeze"),
        ("aasist --gradient_checkpointing true", "--gradient_checkpointing: aasist does not support it"),
        ("aasist-l", "there is no model aasist-l: to train this architecture from scratch, write aasist_l"),
    ],
)
def test_options_that_do_not_apply_to_aasist(run_script, tmp_path, capsys, words, message):
    assert run_script("--model_name_or_path", *words.split(), output_dir=tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_defaults_of_aasist():
    run = parse_arguments(["--model_name_or_path", "aasist"])
    run.settle_defaults()
    assert run.training.learning_rate == 1e-4
    assert (run.data.window_seconds, run.data.eval_window_seconds, run.data.rms_level) == (4.0375, 4.0375, None)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long]) if name == "whisper" else name
        for name in FEATURE_ENCODERS
    ],
)
def test_a_head_on_an_encoder_of_features(run_script, tmp_path, family, capsys):
    encoder = AutoModel.from_config(AutoConfig.for_model(family, **FEATURE_ENCODERS[family]))
    encoder.save_pretrained(tmp_path / "encoder")
    OWN_EXTRACTORS[family].save_pretrained(tmp_path / "encoder")
    words = ["--model_name_or_path", str(tmp_path / "encoder"), "--head"]
    assert run_script("--align_gradients", "pcgrad", *words, "linear", output_dir=tmp_path / "out") == 0
    model = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    name, score = (tmp_path / "out" / "scores_test.txt").read_text().splitlines()[0].split()
    clip = next(clip for clip in load_corpus(None)["test"] if clip["utterance_id"] == name)
    inputs = extractor(decode_audio(clip["audio"], 16_000), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    assert float(logits[1] - logits[0]) == pytest.approx(float(score), abs=1e-4)
    assert run_script(*words, "sls", output_dir=tmp_path / "a") == 2
    assert f"--head sls needs the number of frames of {family} in a window" in capsys.readouterr().err
    assert run_script(*words, "linear", "--augment_on_device", output_dir=tmp_path / "b") == 2
    assert "does more than normalize a waveform" in capsys.readouterr().err


def test_mistakes(run_script, tmp_path, capsys):
    assert run_script("--head", "aasits", output_dir=tmp_path / "a") == 2
    assert "there is no head 'aasits'; available: aasist, conformer_tcm" in capsys.readouterr().err
    assert run_script("--head", "linear", "--head_options", '{"size": 3}', output_dir=tmp_path / "b") == 2
    assert "the head linear has no option size; it has dropout" in capsys.readouterr().err
    assert run_script("--head", "linear", "--layer_merging", "mean", output_dir=tmp_path / "d") == 2
    assert "no layer_merging 'mean'; available: sea, weighted_sum, attm" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run_script("--layer_merging", "sea", output_dir=tmp_path / "e")
    assert "--layer_merging sea needs --head" in capsys.readouterr().err
    for words in (["--head", "linear", "--head_options", "{size"], ["--head_options", "{}"]):
        with pytest.raises(SystemExit):
            run_script(*words, output_dir=tmp_path / "c")
        assert "--head_options" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("head", ["aasist", "conformer_tcm", "mamba"])
def test_thirty_steps(quick_options, tmp_path, head):
    changes = {
        "max_steps": 30,
        "max_train_samples": 8,  # one batch, which is learnt by heart
        "per_device_train_batch_size": 8,
        "window_seconds": 0.8,
        "logging_steps": 1,
        "learning_rate": 1e-3,
        "seed": 6,
        "head_options": json.dumps(SMALLER.get(head, {})),
        "output_dir": tmp_path / "out",
    }
    plain = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    words = ["--align_gradients", "--head", head, *plain, "--average_best_checkpoints", "1"]
    run = parse_arguments([*words, *quick_options(**changes)])
    preparation = prepare(run)
    before = {name: value.detach().clone() for name, value in preparation.model.named_parameters()}
    results = train_and_evaluate(preparation, run)
    unmoved = [name for name, value in preparation.model.named_parameters() if torch.equal(value, before[name])]
    assert not unmoved
    rows = [json.loads(line) for line in (tmp_path / "out" / "conflicts.jsonl").read_text().splitlines()]
    losses = [row["loss_clean"] + row["loss_augmented"] for row in rows]
    assert len(losses) == 30
    assert sum(losses[-6:]) < 0.9 * sum(losses[:6])  # 0.47, 0.39 and 0.43 of it here
    assert all(row["grad_norm_clean"] > 0 and row["grad_norm_augmented"] > 0 for row in rows)
    assert all(-1 <= row["cosine_clean_augmented"] <= 1 for row in rows)
    assert 0 <= results.conflict_rate <= 1
