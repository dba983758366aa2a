"""Broken models raise an error with one clear sentence."""

import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny_detectors import make_detector

from hf_gradalign.conversion import ConversionError
from hf_gradalign.models import create_detector, load_audio_classifier, model_files
from hf_gradalign.models.model_files import loading_model
from hf_gradalign.scoring import SpoofScorer
from hf_gradalign.utils.messages import SCRIPTS

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 377620000\n"
LOADERS = {
    "train": lambda folder: load_audio_classifier(str(folder)),
    "new head": lambda folder: create_detector(str(folder), head="linear"),
    "score": SpoofScorer,
}


class Malicious:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "whole"
    make_detector(n_samples=3200).save_pretrained(folder)
    return folder


@pytest.fixture
def broken(whole, tmp_path):
    def make(name, content):
        folder = tmp_path / "broken"
        shutil.copytree(whole, folder)
        if name == "pytorch_model.bin":
            (folder / "model.safetensors").unlink()
        path = folder / name
        if content is None:
            path.unlink()
        elif content == "folder":
            path.unlink()
            path.mkdir()
        elif callable(content):
            path.write_bytes(content(path.read_bytes()))
        else:
            path.write_bytes(content)
        return folder

    return make


FILES = [
    ("model.safetensors", POINTER, "model.safetensors is a Git LFS pointer"),
    (
        "model.safetensors",
        lambda data: data[: len(data) // 2],
        r"model.safetensors is truncated: it has [\d,]+ of",
    ),
    ("model.safetensors", "folder", "model.safetensors is a folder instead of a file"),
    ("model.safetensors", None, r"has no weights \(model.safetensors or pytorch_model.bin\)"),
    ("model.safetensors", b"\x80\x02}q\x00.", "is a file from torch.save.* rename it to pytorch_model.bin"),
    ("pytorch_model.bin", b"<html>", "pytorch_model.bin is a web page"),
    ("pytorch_model.bin", b"", "pytorch_model.bin is empty"),
    ("config.json", POINTER, "config.json is a Git LFS pointer"),
    ("config.json", b'{"model_type"', "config.json is truncated or not JSON"),
    ("config.json", None, r"broken has no config.json, which is needed to load it .*first backbone\."),
    ("config.json", lambda data: data.replace(b'"sampling_rate"', b'"hidden_size"'), "cannot load the model"),
]


@pytest.mark.parametrize("loader", ["train", "score"])
@pytest.mark.parametrize(
    ("name", "content", "message"), [*FILES, ("preprocessor_config.json", POINTER, "Git LFS pointer")]
)
def test_broken_files(loader, name, content, message, broken):
    with pytest.raises((OSError, ConversionError), match=message):
        LOADERS[loader](broken(name, content))


@pytest.mark.parametrize(("name", "content", "message"), FILES[:1] + FILES[7:9])
def test_an_encoder_for_a_new_head(name, content, message, broken):
    with pytest.raises(OSError, match=message):
        LOADERS["new head"](broken(name, content))


@pytest.mark.parametrize("loader", ["train", "score"])
def test_shards(loader, whole, tmp_path):
    def sharded(name):
        make_detector(n_samples=3200).save_pretrained(tmp_path / name, max_shard_size="20KB")
        return tmp_path / name, sorted((tmp_path / name).glob("model-*.safetensors"))

    folder, _ = sharded("whole")
    LOADERS[loader](folder)
    folder, shards = sharded("missing")
    shards[1].unlink()
    with pytest.raises(OSError, match=f"{shards[1].name} is missing"):
        LOADERS[loader](folder)
    folder, shards = sharded("cut")
    shards[0].write_bytes(shards[0].read_bytes()[:-10])
    with pytest.raises(OSError, match=f"{shards[0].name} is truncated"):
        LOADERS[loader](folder)
    folder, shards = sharded("twice")
    shutil.copy(shards[0], shards[1])
    with pytest.raises(ValueError, match=r"lacks \d+ weights"):
        LOADERS[loader](folder)
    for index, message in ((b"{}", "no weight_map"), (b"[1]", "not an object"), (POINTER, "Git LFS pointer")):
        (folder / "model.safetensors.index.json").write_bytes(index)
        with pytest.raises(OSError, match=f"model.safetensors.index.json .*{message}"):
            LOADERS[loader](folder)


@pytest.mark.parametrize("loader", ["train", "score"])
def test_a_pickle_that_would_run_code(loader, broken, whole, capsys):
    folder = broken("pytorch_model.bin", b"")
    state = load_file(whole / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    LOADERS[loader](folder)
    torch.save({**state, "more": Malicious()}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"contains more than tensors.*could run code") as raised:
        LOADERS[loader](folder)
    assert "\x1b" not in str(raised.value)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize("loader", ["train", "score"])
def test_weights_that_do_not_match_their_settings(loader, broken):
    def twice_as_wide(data):
        content = json.loads(data)
        content["backbone_config"]["hidden_size"] *= 2
        return json.dumps(content).encode()

    with pytest.raises((OSError, ValueError), match=r"differ from its config\.json"):
        LOADERS[loader](broken("config.json", twice_as_wide))


def test_settings_without_weights_beside_a_checkpoint(broken):
    folder = broken("model.safetensors", None)
    (folder / "best.pth").touch()
    with pytest.raises(
        OSError, match=f"has no weights .*; a published checkpoint loads by its own path, {folder}/best"
    ):
        load_audio_classifier(str(folder))


def test_a_file_in_place_of_a_folder(whole):
    for loader in LOADERS.values():
        with pytest.raises(ConversionError, match=f"is a file, but a model is a folder: pass {whole}"):
            loader(whole / "model.safetensors")


def test_a_model_on_the_hub_without_its_weights(whole, tmp_path, monkeypatch):
    """The error gives the reason, and does not say that the cache has no weights yet."""
    monkeypatch.setattr(model_files, "cached_snapshot", lambda name, hub_options: tmp_path)
    shutil.copy(whole / "config.json", tmp_path)
    with (
        pytest.raises(ValueError, match=r"cannot load the model you/there .*: it has code"),
        loading_model("you/there", {}),
    ):
        raise ValueError("it has code, and needs trust_remote_code")
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    with pytest.raises(OSError, match="is a Git LFS pointer"), loading_model("you/there", {}):
        raise ValueError("it cannot be read")


@pytest.mark.parametrize("script", ["score_audio_spoof", "run_audio_spoof", "export_onnx", "convert_checkpoint"])
def test_every_script_reports_it(script, broken, tmp_path, capsys, monkeypatch):
    command = {script: name for name, script in SCRIPTS.items()}[f"{script}.py"]
    module = importlib.import_module(f"hf_gradalign.cli.{command}")
    folder, out = str(broken("model.safetensors", POINTER)), str(tmp_path / "out")
    words = {
        "score_audio_spoof": [folder, "--output_file", out],
        "run_audio_spoof": ["--align_gradients", "--model_name_or_path", folder, "--output_dir", out],
        "export_onnx": [folder, "--output", out],
        "convert_checkpoint": [folder, "--reverse", "--output_file", out],
    }[script]
    assert module.main(words) == 2
    assert f"error: {folder}/model.safetensors is a Git LFS pointer" in capsys.readouterr().err


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize(
    ("state", "which", "step"),
    [
        ('{"best_model_checkpoint": "/gone/run/checkpoint-20"}', "best", 20),
        ('{"best_model_checkpoint": "/gone/run/checkpoint-10"}', "last", 30),  # it no longer exists
        ('{"best_model_checkpoint": null}', "last", 30),
        ("[[[", "last", 30),
        (None, "last", 30),
    ],
)
def test_unfinished_run_names_its_checkpoint(loader, state, which, step, whole, tmp_path):
    for number in (20, 30, 40):
        shutil.copytree(whole, tmp_path / f"checkpoint-{number}")
    (tmp_path / "checkpoint-40" / "config.json").unlink()  # not written yet
    if state is not None:
        (tmp_path / "checkpoint-30" / "trainer_state.json").write_text(state)
    with pytest.raises(OSError, match=f"is an unfinished run. Its {which} checkpoint so far is .*-{step}:"):
        loader(tmp_path)


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_folder_without_a_model(loader, whole, tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path} is not a model's folder: it has no config.json$"):
        loader(tmp_path)
    shutil.copytree(whole, tmp_path / "my-run")
    with pytest.raises(OSError, match=r"It contains models, such as .*my-run$"):
        loader(tmp_path)


def test_a_typo_in_the_name_of_a_folder(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(whole, "runs/my-run")
    with pytest.raises(OSError, match=r"cannot load the model runs/my-runn \(there is .* Did you mean runs/my-run\?\)"):
        LOADERS["score"]("runs/my-runn")
