"""Publishing to a local Hub: uploads, downloads, and messages on failures."""

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_server import READ_ONLY_TOKEN, REFUSED_TOKEN

from hf_gradalign.hub import ModelCardFacts, PublishingError, publish, push_command, write_model_card
from hf_gradalign.hub.publishing import stage_model

PUBLISHED = {"README.md", "config.json", "model.safetensors", "notes/curve.png", "all_results.json", "vocab.txt"}
PUBLISHED |= {"conflicts.jsonl", "figures/conflicts.png"}
LEFT_BEHIND = {
    "checkpoint-10/model.safetensors",
    "checkpoint-10/optimizer.pt",
    "best_checkpoints/step-5/model.safetensors",
    "runs/today/events.out.tfevents.1.host",
    "training_args.bin",
    "optimizer.pt",
    "rng_state.pth",
    "state.pkl",
    "_interrupted/config.json",
    "_conflicts.jsonl",
    ".DS_Store",
    "notes/.DS_Store",
}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "out put"
    for name in PUBLISHED | LEFT_BEHIND:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(f"content of {name}".encode())
    (path / "README.md").write_text("---\nlibrary_name: transformers\n---\n")
    return path


PUBLISH = """
from hf_gradalign.hub import PublishingError, check_access, publish
def outcome(action, *positional, **options):
    try:
        return action(*positional, **options)
    except PublishingError as error:
        return str(error)
"""


def test_publishes_the_model_and_nothing_else(hub, run_client, folder, tmp_path):
    telling = tmp_path / "telling" / "out put"
    shutil.copytree(folder, telling)
    settings, row = f'{{"output_dir": "{telling}", "n": 1}}', f"c1\t{telling}/a b.wav\tbroken\n"
    (telling / "all_results.json").write_text(settings)
    (telling / "bad_clips.tsv").write_text(row)
    (telling / "vocab.json").write_text(f'{{"{telling}": 1}}')  # the model's own
    (telling / "run_arguments.json").write_text(settings)
    program = PUBLISH + (
        "urls = [publish(args[0], 'tester/model', commit_message='The model')]\n"
        "urls += [publish(args[0], 'short-name', private=True), publish(args[0], 'tester/model', revision='v2')]\n"
        "publish(args[1], 'tester/telling')\n"
        "report(urls + [check_access('tester/checked')])"
    )
    *urls, checked = run_client(program, folder, telling)
    model, short = f"{hub.url}/tester/model", f"{hub.url}/tester/short-name"
    assert (urls, checked) == ([model, short, f"{model}/tree/v2"], None)
    repository = hub.repos["tester/model"]
    assert set(repository.files) == PUBLISHED
    assert repository.files["model.safetensors"].data == b"content of model.safetensors"
    assert repository.commit("main").title == "The model"
    assert not repository.private
    assert hub.repos["tester/short-name"].private
    assert set(repository.commit("v2").files) == PUBLISHED
    assert hub.repos["tester/checked"].files == {}

    # Paths of this machine are not published, and stay in the folder.
    files = {name: file.data.decode() for name, file in hub.repos["tester/telling"].files.items()}
    assert files["all_results.json"] == '{"output_dir": "out put", "n": 1}'
    assert files["bad_clips.tsv"] == "c1\ta b.wav\tbroken\n"
    assert files["vocab.json"] == (telling / "vocab.json").read_text()
    assert files["model.safetensors"] == "content of model.safetensors"
    assert "run_arguments.json" not in files
    assert (telling / "all_results.json").read_text() == settings
    assert (telling / "bad_clips.tsv").read_text() == row
    command = push_command(telling, "tester/model")
    assert "--exclude all_results.json --exclude bad_clips.tsv" in command


@pytest.mark.slow
def test_a_refused_publication_is_explained(hub, run_client, folder):
    program = PUBLISH + (
        "folder, refused, read_only = args\n"
        "publish(folder, 'tester/mine')\n"
        "report({\n"
        "    'refused': outcome(publish, folder, 'tester/model', token=refused),\n"
        "    'refused check': outcome(check_access, 'tester/model', refused),\n"
        "    'read-only': outcome(publish, folder, 'tester/mine', token=read_only),\n"
        "    'read-only check': outcome(check_access, 'tester/mine', read_only),\n"
        "    'name': outcome(publish, folder, 'not a name'),\n"
        "    'name check': outcome(check_access, 'a/b/c'),\n"
        "})"
    )
    told = run_client(program, folder, REFUSED_TOKEN, READ_ONLY_TOKEN)
    assert "the Hub refused the access token (401). It may be mistyped, expired or revoked" in told["refused"]
    assert "the access token has no permission to write there (403)" in told["read-only"]
    assert "Cannot publish to 'not a name': this is not a valid name for a repository" in told["name"]
    for case in ("refused", "read-only", "name"):
        assert f"\nThe trained model is safe in {folder}. To push it later:\n    hf upload " in told[case]
    assert f"hf upload tester/model '{folder}' . --exclude" in told["refused"]
    assert f"hf upload your-name/your-model '{folder}' ." in told["name"]
    assert "the Hub refused the access token (401)" in told["refused check"]
    assert "no permission to write there (403)" in told["read-only check"]
    assert "this is not a valid name" in told["name check"]
    for case in ("refused check", "read-only check", "name check"):
        assert told[case].endswith("Fix this, or train without publishing.")
    assert set(hub.repos) == {"tester/mine"}
    assert len(hub.repos["tester/mine"].branches["main"]) == 2
    assert (folder / "model.safetensors").exists()


@pytest.fixture
def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # bound, but not listening


@pytest.mark.parametrize(
    "trouble", [pytest.param(trouble, marks=pytest.mark.slow) for trouble in ("no token", "offline", "no network")]
)
def test_missing_token_offline_mode_and_missing_network_are_explained(hub, run_client, folder, closed_port, trouble):
    token, environment, message = {
        "no token": (None, {}, "no access token was found. Please run `hf auth login`, or set HF_TOKEN,"),
        "offline": ("hf_any", {"HF_HUB_OFFLINE": "1"}, "offline mode is on. Unset HF_HUB_OFFLINE"),
        "no network": ("hf_any", {"HF_ENDPOINT": closed_port}, f"the Hub at {closed_port} cannot be reached (Connect"),
    }[trouble]
    program = PUBLISH + "report([outcome(publish, args[0], 'tester/model'), outcome(check_access, 'tester/model')])"
    published, checked = run_client(program, folder, token=token, **environment)
    assert message in published
    assert f"The trained model is safe in {folder}. To push it later:\n    hf upload tester/model" in published
    assert message in checked
    assert not hub.repos


def test_a_model_whose_weights_would_stay_behind(folder):
    """Nobody should have to trust a pickle, so it is not pushed; a model without weights is no use."""
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "model.safetensors").unlink()
    with pytest.raises(PublishingError, match=r"has only pytorch_model\.bin, a pickle, .* writes model\.safetensors"):
        publish(folder, "tester/model")


def test_adapters_whose_base_would_stay_behind(folder):
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/home/me/base"}')
    with pytest.raises(PublishingError, match="adapters for the model /home/me/base, which is on this machine only"):
        publish(folder, "tester/model")


def test_a_base_on_the_hub_may_be_in_the_working_folder_too(folder, tmp_path, monkeypatch):
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    for name in ("org/base", "base", "../base"):
        (tmp_path / "work" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    for name in ("base", "../base", "org/base"):
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
        with nullcontext() if name == "org/base" else pytest.raises(PublishingError, match="on this machine only"):
            stage_model(folder, tmp_path / "staged")  # what `publish` uploads


@pytest.mark.slow
def test_a_missing_folder_is_no_matter_of_the_hub(hub, run_client, tmp_path):
    program = PUBLISH + "try: publish(args[0], 'tester/model')\nexcept FileNotFoundError as error: report(str(error))"
    assert run_client(program, tmp_path / "nowhere") == f"There is no folder {tmp_path / 'nowhere'} to publish."
    assert not hub.calls


@pytest.mark.parametrize("options", [{}, {"private": True, "revision": "v2"}])
def test_push_command_uploads_what_publish_would(hub, folder, tmp_path, options):
    command = push_command(os.path.relpath(folder), "tester/later", **options)
    environment = hub.environment(tmp_path / "home")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    (tmp_path / "_bait").touch()  # the shell must not expand patterns to these
    (tmp_path / "bait.bin").touch()
    done = subprocess.run(command, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(hub.repos["tester/later"].commit(options.get("revision", "main")).files) == PUBLISHED
    assert hub.repos["tester/later"].private == options.get("private", False)


@pytest.fixture
def tiny_model(tmp_path):
    """A saved classifier with random weights, its card, and an audio file like the one in its card."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification, set_seed

    set_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16),
        conv_kernel=(10, 8),
        conv_stride=(10, 8),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        id2label={0: "spoof", 1: "bonafide"},
        label2id={"spoof": 0, "bonafide": 1},
    )
    folder = tmp_path / "tiny"
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(folder)
    write_model_card(
        folder,
        ModelCardFacts(model_name="tiny", dataset_name="noise", repo_id="tester/tiny", window_seconds=1.0),
    )
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(0).normal(0, 0.1, (20_000, 2)), 16_000)
    return folder


@pytest.mark.slow
def test_published_model_scores_as_the_local_one(hub, run_client, tiny_model):
    program = PUBLISH + (
        "import hf_gradalign, numpy, soundfile, torch\n"
        "url = publish(args[0], 'tester/tiny')\n"
        "from transformers import AutoFeatureExtractor, AutoModelForAudioClassification, pipeline\n"
        "samples = soundfile.read('speech.wav', dtype='float32')[0].mean(axis=1)[:16000]\n"
        "def logits(name):\n"
        "    inputs = AutoFeatureExtractor.from_pretrained(name)(samples, sampling_rate=16000, return_tensors='pt')\n"
        "    with torch.no_grad():\n"
        "        return AutoModelForAudioClassification.from_pretrained(name).eval()(**inputs).logits[0].tolist()\n"
        "outputs = pipeline('audio-classification', model='tester/tiny')(\n"
        "    {'array': samples, 'sampling_rate': 16000}, function_to_apply='none'\n"
        ")\n"
        "from huggingface_hub import ModelCard\n"
        "example = ModelCard.load('tester/tiny').text.split('```python')[1].split('```')[0]\n"
        "shown = {}\n"
        "exec(example, shown)\n"
        "by_label = {output['label']: output['score'] for output in outputs}\n"
        "piped = [by_label['spoof'], by_label['bonafide']]\n"
        "report([url, logits(args[0]), logits('tester/tiny'), piped, float(shown['score'])])"
    )
    url, local, published, piped, score = run_client(program, tiny_model)
    assert url == f"{hub.url}/tester/tiny"
    assert local[0] != local[1]
    np.testing.assert_allclose(published, local, rtol=0, atol=1e-5)
    np.testing.assert_allclose(piped, local, rtol=0, atol=1e-5)
    assert score == pytest.approx(local[1] - local[0], abs=1e-5)  # the card's own example
