"""Runs that fine-tune a trained model: frozen layers, learning rates of their own, LoRA."""

import json
import shutil
import sys
from pathlib import Path

import forked_python
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_detectors import make_classifier, make_clips, make_detector
from transformers import Wav2Vec2FeatureExtractor

from hf_gradalign.data import load_corpus
from hf_gradalign.experiment import publication
from hf_gradalign.export import export_program
from hf_gradalign.models import SpoofDetectorForAudioClassification
from hf_gradalign.scoring import SpoofScorer, load_detector


@pytest.fixture
def base(tmp_path):
    """A folder with a classifier of transformers, and one with a detector."""

    def make(kind):
        folder = tmp_path / kind
        if kind == "classifier":
            make_classifier().save_pretrained(folder)
            Wav2Vec2FeatureExtractor().save_pretrained(folder)
        else:
            make_detector(n_samples=8000).save_pretrained(folder)
        return folder

    return make


@pytest.mark.parametrize("kind", ["classifier", pytest.param("detector", marks=pytest.mark.slow)])
def test_frozen_layers_and_learning_rates(run_script, base, tmp_path, kind):
    start = base(kind)
    words = ["--model_name_or_path", str(start), "--freeze_layers", "1", "--learning_rate", "0.01"]
    words += ["--head_learning_rate", "0.02"]
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, tmp_path / "out"))
    encoder = "wav2vec2." if kind == "classifier" else "backbone."
    for name, value in after.items():
        frozen = name.startswith(encoder) and "encoder.layers.1." not in name
        assert value.equal(before[name]) == frozen, name
    settings = json.loads((tmp_path / "out" / "all_results.json").read_text())["settings"]
    assert (settings["model"]["freeze_layers"], settings["training"]["head_learning_rate"]) == (1, 0.02)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "learning rate of the head" in card
    assert "frozen layers" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--freeze_layers 3", "--freeze_layers 3: the encoder has 2 layers, cannot freeze 3"),
        ("--freeze_layers -1", "--freeze_layers must be 0 or more, got -1"),
        ("--freeze_layers 1 --freeze_backbone", "--freeze_backbone freezes all layers: remove it or --freeze_layers"),
        ("--layerwise_lr_decay 2", "--layerwise_lr_decay must be above 0 and at most 1, got 2.0"),
        ("--head_learning_rate 0", "--head_learning_rate must be a positive number, got 0.0"),
        ("--freeze_layers 1 --layerwise_lr_decay 0.9", "everything there is frozen; remove it"),
        ("--freeze_backbone --head_learning_rate 1", "set its rate with --learning_rate"),
    ],
)
def test_mistakes(run_script, base, tmp_path, capsys, words, message):
    words = ["--model_name_or_path", str(base("detector")), *words.split()]
    try:
        status = run_script(*words, output_dir=tmp_path / "out")
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


LORA = ["--lora_r", "2", "--learning_rate", "0.01"]


def scores_of(folder, split="test"):
    return {name: float(score) for name, score in map(str.split, (folder / f"scores_{split}.txt").open())}


def score_again(folder):
    """Score the clips of the test split with the model in a folder."""
    clips = load_corpus(None)["test"]
    scores = SpoofScorer(folder).score([dict(clip["audio"]) for clip in clips])
    return dict(zip(clips["utterance_id"], scores.tolist(), strict=True))


def assert_same_scores(first, second):
    names = sorted(first)
    assert names == sorted(second.keys() & first.keys())
    np.testing.assert_allclose([first[n] for n in names], [second[n] for n in names], atol=1e-5)


@pytest.mark.parametrize("kind", [pytest.param("classifier", marks=pytest.mark.slow), "detector"])
def test_lora_saved_merged_with_the_adapters(run_script, base, tmp_path, kind):
    start, out = base(kind), tmp_path / "out"
    words = ["--model_name_or_path", str(start), *LORA]
    assert run_script("--align_gradients", *words, output_dir=out) == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (start, out))
    encoder = "wav2vec2." if kind == "classifier" else "backbone."
    assert before.keys() == after.keys()
    for name, value in after.items():
        changed = not name.startswith(encoder) or "q_proj.weight" in name or "v_proj.weight" in name
        assert value.equal(before[name]) != changed, name
    expected = scores_of(out)
    for folder in (out, out / "adapter"):
        assert_same_scores(expected, score_again(folder))
    assert "rank of LoRA | 2" in (out / "README.md").read_text()


@pytest.mark.slow
def test_lora_saved_as_an_adapter(run_script, base, tmp_path):
    """A new head, with batch norms, on an encoder. The adapters load wherever a model does."""
    encoder, out = tmp_path / "encoder", tmp_path / "out"
    make_classifier().wav2vec2.save_pretrained(encoder)
    options = json.dumps({"projection_size": 24, "channels": [4, 8], "attention_size": 8, "graph_sizes": [8, 4]})
    words = ["--model_name_or_path", str(encoder), "--head", "aasist", "--head_options", options, *LORA]
    assert run_script("--align_gradients", *words, "--no_merge_adapters", output_dir=out) == 0
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= {path.name for path in out.iterdir()}
    assert not (out / "model.safetensors").exists()
    assert not (out / "adapter").exists()
    assert "This repository contains LoRA adapters" in (out / "README.md").read_text()
    expected = scores_of(out)
    assert_same_scores(expected, score_again(out))
    assert_same_scores(expected, score_again(str(out)))
    assert SpoofScorer(out / "checkpoint-2").score([np.zeros(8000, np.float32)]).shape == (1,)
    detector, _ = load_detector(str(out))
    assert isinstance(detector, SpoofDetectorForAudioClassification)
    # It is trained further, with adapters of its own.
    assert run_script("--model_name_or_path", str(out), *LORA, "--no_merge_adapters", output_dir=tmp_path / "more") == 0
    assert_same_scores(scores_of(tmp_path / "more"), score_again(tmp_path / "more"))
    # It names the folder of its base.
    encoder.rename(tmp_path / "moved")
    with pytest.raises(OSError, match=r"PEFT adapters for the model .*encoder, which does not exist"):
        SpoofScorer(out)


def test_lora_of_a_classifier_whose_classes_are_in_the_other_order(run_script, base, tmp_path):
    start = base("classifier")
    config = json.loads((start / "config.json").read_text())
    config |= {"id2label": {"0": "real", "1": "fake"}, "label2id": {"real": 0, "fake": 1}}
    (start / "config.json").write_text(json.dumps(config))
    words = ["--model_name_or_path", str(start), *LORA, "--no_merge_adapters"]
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    assert_same_scores(scores_of(tmp_path / "out"), score_again(tmp_path / "out"))


@pytest.mark.slow
def test_adapters_are_exported_with_their_base(run_script, base, tmp_path):
    words = ["--model_name_or_path", str(base("classifier")), *LORA, "--no_merge_adapters"]
    assert run_script("--align_gradients", *words, output_dir=tmp_path / "out") == 0
    detector, _ = load_detector(str(tmp_path / "out"))
    exported = export_program(detector, n_samples=8000).module()
    clips = make_clips(2, 8000)
    with torch.no_grad():
        torch.testing.assert_close(exported(clips), detector(clips).logits, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_lora_of_the_small_model(run_script, tmp_path, caplog):
    assert run_script(*LORA, "--lora_target_modules", "all-linear", output_dir=tmp_path / "out") == 0
    assert "which are random without --model_name_or_path" in caplog.text
    assert_same_scores(scores_of(tmp_path / "out"), score_again(tmp_path / "out"))
    assert run_script(*LORA, "--dry_run", output_dir=tmp_path / "dry") == 0


def test_lora_is_resumed(run_script, base, tmp_path):
    words = ["--align_gradients", "--model_name_or_path", str(base("detector")), *LORA, "--save_steps", "1"]
    words += ["--save_strategy", "steps", "--eval_strategy", "steps", "--eval_steps", "1", "--save_total_limit", "9"]
    assert run_script(*words, output_dir=tmp_path / "whole", max_steps=3) == 0
    assert json.loads((tmp_path / "whole" / "all_results.json").read_text())["averaged_checkpoints"] == 3
    parts = Path(shutil.copytree(tmp_path / "whole", tmp_path / "parts"))
    for step in (2, 3):
        shutil.rmtree(parts / f"checkpoint-{step}")
    for path in (parts / "best_checkpoints").glob("step-[23]*"):
        path.unlink()
    record = parts / "best_checkpoints" / "best_checkpoints.json"
    record.write_text(json.dumps([entry for entry in json.loads(record.read_text()) if entry["step"] == 1]))
    assert run_script("--resume_from_checkpoint", str(parts), output_dir=parts, max_steps=3) == 0
    for name in ("model.safetensors", "scores_test.txt", "conflicts.jsonl", "adapter/adapter_model.safetensors"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    changed = ["--resume_from_checkpoint", str(parts), "--lora_alpha", "9"]
    assert run_script(*changed, output_dir=parts, max_steps=3) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lora_r 0", "--lora_r must be 1 or more, got 0"),
        ("--lora_r 2 --lora_alpha 0", "--lora_alpha must be a positive number, got 0.0"),
        ("--lora_alpha 2", "--lora_alpha is an option of LoRA: also pass --lora_r"),
        ("--lora_target_modules q_proj", "--lora_target_modules is an option of LoRA: also pass --lora_r"),
        ("--lora_r 2 --lora_target_modules q_pro", "--lora_target_modules q_pro: Wav2Vec2Model has no linear layer"),
        ("--lora_r 2 --freeze_layers 0", "--lora_r freezes the encoder's own weights: remove --freeze_layers"),
        ("--lora_r 2 --freeze_backbone", "--lora_r freezes the encoder's own weights: remove --freeze_backbone"),
        ("--no_merge_adapters", "--no_merge_adapters is for models with adapters (--lora_r), but this model has none"),
    ],
)
def test_mistakes_with_lora(run_script, base, tmp_path, capsys, words, message):
    test_mistakes(run_script, base, tmp_path, capsys, words, message)


def test_adapters_that_could_not_be_loaded_again(run_script, base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(publication, "get_token", lambda: "hf_x")
    assert run_script(*LORA, "--no_merge_adapters", output_dir=tmp_path / "out") == 2
    assert "there is no base model for loading the adapters" in capsys.readouterr().err
    push = ["--push_to_hub", "--hub_model_id", "me/mine"]
    of_options = ["me/checkpoint", "--conversion_options", '{"num_attention_heads": 4}']
    for words in ([str(base("detector"))], of_options):
        words = ["--model_name_or_path", *words, *push]
        assert run_script(*LORA, "--no_merge_adapters", *words, output_dir=tmp_path / "out") == 2
        assert "the base model of the adapters; push the merged model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_peft_is_missing(run_script, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SystemExit, match="2"):
        run_script(*LORA, output_dir=tmp_path / "out")
    assert "--lora_r needs PEFT, which is not installed: pip install peft" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


UPLOAD = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("tester/encoder")
api.upload_folder(repo_id="tester/encoder", folder_path=sys.argv[1])
"""
WITHOUT_THE_PACKAGE = """
import sys
sys.modules["hf_gradalign"] = sys.modules["torchaudio"] = sys.modules["peft"] = None
import numpy, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
samples = numpy.load(sys.argv[1])
model = AutoModelForAudioClassification.from_pretrained("tester/merged", trust_remote_code=True)
inputs = AutoFeatureExtractor.from_pretrained("tester/merged", trust_remote_code=True)(
    samples, sampling_rate=16000, return_tensors="pt"
)
with torch.no_grad():
    spoof, bonafide = model.eval()(**inputs).logits[0].tolist()
print(bonafide - spoof)
"""
WITH_THE_PACKAGE = """
import sys
import numpy
from hf_gradalign import SpoofScorer
print(SpoofScorer("tester/adapter").score(numpy.load(sys.argv[1]))[0])
"""


@pytest.mark.long
@pytest.mark.slow
def test_lora_runs_on_the_hub(hub, quick_options, tmp_path):
    """Merged, a run loads where neither this package nor PEFT is; its adapters load with their base from the Hub."""
    encoder, samples = tmp_path / "encoder", tmp_path / "samples.npy"
    make_classifier().wav2vec2.save_pretrained(encoder)
    np.save(samples, np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32))
    script = Path(__file__).parents[2] / "scripts" / "run_audio_spoof.py"

    def run(*words, home="home", **options):
        done = forked_python.run([sys.executable, *map(str, words)], hub.environment(tmp_path / home, **options))
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("-c", UPLOAD, encoder)
    commit = hub.repos["tester/encoder"].commit("main").oid
    for name, more in (("merged", []), ("adapter", ["--no_merge_adapters"])):
        words = ["--model_name_or_path", "tester/encoder", "--head", "linear", *LORA, *more, "--push_to_hub"]
        words += ["--hub_model_id", f"tester/{name}", *quick_options(output_dir=tmp_path / name)]
        run(script, "--align_gradients", *words)
        elsewhere = WITHOUT_THE_PACKAGE if name == "merged" else WITH_THE_PACKAGE
        score = float(run("-c", elsewhere, samples, home=f"elsewhere {name}", token=None).splitlines()[-1])
        expected = SpoofScorer(tmp_path / "merged").score(np.load(samples))[0]
        assert score == pytest.approx(expected, abs=1e-5)
    settings = json.loads(hub.repos["tester/adapter"].files["adapter_config.json"].data)
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("tester/encoder", commit)
    assert b"base_model_relation: adapter" in hub.repos["tester/adapter"].files["README.md"].data
    assert "model.safetensors" not in hub.repos["tester/adapter"].files
