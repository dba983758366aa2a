"""Published checkpoints load by name: converted once, completely, and never mistaken for one another."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from kill_simulation import Killed, every_kill, killed_before
from published_layout import logits_of, make_published
from safetensors.torch import save_file

import hf_gradalign
from hf_gradalign.conversion import ConversionError, by_name, cache_folder, model_folder
from hf_gradalign.models import create_detector, load_audio_classifier
from hf_gradalign.scoring import SpoofScorer

FIXTURES = Path(__file__).parents[1] / "fixtures"
SIZES = {"hidden_size": 32, "num_attention_heads": 16, "num_conv_pos_embedding_groups": 4}  # 16 heads, as published


@pytest.fixture(scope="module")
def published():
    return make_published("mamba", **SIZES)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_GRADALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(published, tmp_path):
    torch.save(published[1], tmp_path / "best.pth")
    return tmp_path / "best.pth"


def folders(cache):
    return sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


def logits_on_reference(name, fixture, **options):
    """The largest difference of a detector's logits, through its feature extractor, from the published ones."""
    model, extractor = hf_gradalign.load_detector(str(name), conversion_options=options)
    reference = torch.load(FIXTURES / f"{fixture}.io.pth", weights_only=True)
    clips = list(reference["input_values"].float().numpy())
    inputs = extractor(clips, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        return float((model(**inputs).logits - reference["logits"]).abs().max())


@pytest.mark.parametrize(
    "fixture",
    [
        *("mamba", "sls", "antideepfake_hubert"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("aasist", "conformer_tcm", "nes2net_x")),
    ],
)
def test_golden_checkpoints(fixture):
    assert logits_on_reference(FIXTURES / f"{fixture}.pth", fixture, num_attention_heads=4) < 1e-4


def test_file_name_gives_settings_that_shapes_do_not_show(tmp_path):
    """Only options are taken from the name: license and figures are not, because the file may be anyone's."""
    plain, named = tmp_path / "best.pt", tmp_path / "WavLM_Nes2Net_X_SeLU_e74_seed420.pt"
    for path in (plain, named):
        shutil.copy(FIXTURES / "wavlm_nes2net_x_selu.pth", path)
    assert logits_on_reference(named, "wavlm_nes2net_x_selu", max_bucket_distance=80) < 1e-4
    assert logits_on_reference(plain, "wavlm_nes2net_x_selu", max_bucket_distance=80, activation="selu") < 1e-4
    assert logits_on_reference(plain, "wavlm_nes2net_x_selu", max_bucket_distance=80) > 1e-2
    for card in cache_folder().glob("*/README.md"):
        assert "None are known to the converter" in card.read_text()


def test_works_wherever_a_model_does(checkpoint, published):
    name, expected = str(checkpoint), logits_of(published[0])
    for model in (
        hf_gradalign.load_detector(name)[0],
        load_audio_classifier(name)[0].eval(),
        SpoofScorer(checkpoint, device="cpu").model,
        SpoofScorer(name, device="cpu").model,
    ):
        assert torch.equal(logits_of(model), expected)
        assert model.name_or_path == name  # what adapters say that they were trained on
    with pytest.raises(ValueError, match="is a detector with the head mamba: remove --head"):
        create_detector(name, head="linear")


def test_adapters_do_not_mistake_a_checkpoint_with_other_options_for_their_base(checkpoint, cache):
    model, _ = hf_gradalign.load_detector(str(checkpoint), conversion_options={"num_attention_heads": 8})
    assert model.name_or_path == str(folders(cache)[0])


def test_a_conversion_is_used_again(checkpoint, cache, monkeypatch, caplog):
    first, options = model_folder(str(checkpoint), {"revision": None})
    assert options == {}
    assert Path(first).parent == cache == cache_folder()
    record = json.loads(Path(first, "conversion.json").read_text())
    assert record["sha256"][:16] == Path(first).name[:16]
    assert record["source"] == "best.pth"
    assert "assumed              num_attention_heads 16" in record["report"]
    card = Path(first, "README.md").read_text()
    assert f"SHA-256 of `best.pth`: `{record['sha256']}`" in card
    monkeypatch.setattr(by_name, "convert_state_dict", None)
    assert model_folder(str(checkpoint), {})[0] == first
    copy = shutil.copy(checkpoint, checkpoint.with_name("other.pt"))
    assert model_folder(str(copy), {})[0] == first  # by content


def test_other_options_are_converted_separately(checkpoint, published, cache):
    first = model_folder(str(checkpoint), {})[0]
    other = model_folder(str(checkpoint), {"conversion_options": {"num_attention_heads": 8}})[0]
    assert other != first
    changed = {name: value + 1 if value.is_floating_point() else value for name, value in published[1].items()}
    torch.save(changed, checkpoint)
    assert model_folder(str(checkpoint), {})[0] not in (first, other)
    assert len(folders(cache)) == 3


def test_an_older_converter_s_copy_is_replaced(checkpoint, cache, monkeypatch):
    monkeypatch.setattr(by_name, "_converter_version", lambda: "older")
    old = model_folder(str(checkpoint), {})[0]
    monkeypatch.undo()
    monkeypatch.setenv("HF_GRADALIGN_CACHE", str(cache))
    new = model_folder(str(checkpoint), {})[0]
    assert old.endswith("-older")
    assert folders(cache) == [Path(new)]


@pytest.mark.parametrize("layout", ["state dict", "lightning", "safetensors", "folder", "folder with settings"])
def test_forms_of_a_checkpoint(layout, published, tmp_path):
    model, state = published
    path = tmp_path / "given"
    if layout.startswith("folder"):
        path.mkdir()
        save_file(state, path / "model.safetensors")
        (path / "README.md").write_text("A card.")
        if layout == "folder with settings":  # not those of transformers
            (path / "config.json").write_text('{"model_type": "wav2vec2", "hidden_size": 32}')
    elif layout == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(state, path)
    elif layout == "lightning":
        path = path.with_suffix(".ckpt")
        prefixed = {f"model.{key}": value for key, value in state.items()}
        torch.save({"epoch": 3, "state_dict": prefixed, "pytorch-lightning_version": "2.5"}, path)
    else:
        path = path.with_suffix(".pth")
        torch.save(state, path)
    assert torch.equal(logits_of(hf_gradalign.load_detector(str(path))[0]), logits_of(model))


def test_models_of_transformers_are_left_alone(published, tmp_path, cache):
    published[0].save_pretrained(tmp_path / "ours")
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name in ("ours", "run", "empty"):
        options = {"revision": "main", "trust_remote_code": True}
        assert model_folder(str(tmp_path / name), options) == (str(tmp_path / name), options)
    assert not cache.exists()
    with pytest.raises(ConversionError, match=r"ours is a transformers model, not a published .*: remove --conv"):
        model_folder(str(tmp_path / "ours"), {"conversion_options": {"dilation": 2}})
    with pytest.raises(ConversionError, match=rf"is a file, but a model is a folder: pass {tmp_path / 'ours'}"):
        model_folder(str(tmp_path / "ours" / "model.safetensors"), {})


def test_unknown_file_error_lists_its_contents(tmp_path, cache):
    path = tmp_path / "resnet.pth"
    torch.save({f"conv{index}.weight": torch.ones(2, 3) for index in range(9)}, path)
    text = r"^resnet\.pth is not a published checkpoint that can be converted: .* 9 entries, first conv0\.weight \(2, "
    with pytest.raises(ConversionError, match=text + r".*conv4\.weight \(2, 3\)\. `hf-gradalign detectors` lists what"):
        model_folder(str(path), {})
    with pytest.raises(
        ConversionError, match=rf"^{tmp_path} has no config\.json, .*{tmp_path} has: resnet\.pth \(\S+ kB\)"
    ):
        model_folder(str(tmp_path), {})
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    with pytest.raises(ConversionError, match=rf"^If {path} belongs to a transformers model, pass its folder, "):
        model_folder(str(path), {})
    assert folders(cache) == []


def test_a_damaged_or_dangerous_file_is_refused(checkpoint, cache, capsys):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match=r"best\.pth is truncated"):
        model_folder(str(checkpoint), {})
    torch.save({"model": Path("x"), "run": print}, checkpoint)
    with pytest.raises(ConversionError, match="could run code"):
        model_folder(str(checkpoint), {})
    assert folders(cache) == []


def test_options_that_do_not_exist(checkpoint):
    with pytest.raises(ConversionError, match=r"mamba has no option dilatation; it has size, "):
        model_folder(str(checkpoint), {"conversion_options": {"dilatation": 2}})
    with pytest.raises(TypeError, match="no option revison for loading a model: did you mean revision"):
        hf_gradalign.load_detector(str(checkpoint), revison="v2")
    with pytest.raises(TypeError, match="published checkpoints have no option local_files_only; available: revision, "):
        hf_gradalign.load_detector(str(checkpoint), local_files_only=True)


def test_models_of_transformers_take_its_options(published, tmp_path):
    published[0].save_pretrained(tmp_path)
    options = {"local_files_only": True, "force_download": False, "subfolder": "", "proxies": None}
    options |= {"code_revision": "main", "attn_implementation": "eager"}
    model, _ = hf_gradalign.load_detector(str(tmp_path), **options)
    assert model.config._attn_implementation == "eager"
    with pytest.raises(TypeError, match="no option revison for loading a model: did you mean revision"):
        hf_gradalign.load_detector(str(tmp_path), revison="v2")


@pytest.mark.slow
def test_a_conversion_killed_at_any_change_is_never_half_used(checkpoint, published, cache):
    expected = logits_of(published[0])

    def attempt(change):
        shutil.rmtree(cache, ignore_errors=True)
        try:
            with killed_before(change):
                model_folder(str(checkpoint), {})
        except Killed:
            assert torch.equal(logits_of(hf_gradalign.load_detector(str(checkpoint))[0]), expected)
            assert len(folders(cache)) == 1
            assert not [path for path in cache.glob(".*.draft/**/*") if path.is_file()]
            return False
        return True

    assert every_kill(attempt) > 20


def convert_and_report(name, count, barrier):
    convert = by_name.convert_state_dict

    def counted(*args, **options):
        with open(count, "a") as file:
            file.write("x")
        time.sleep(0.2)
        return convert(*args, **options)

    by_name.convert_state_dict = counted
    barrier.wait()
    os._exit(0 if Path(model_folder(name, {})[0], "config.json").is_file() else 1)


def test_two_processes_convert_once(checkpoint, cache, tmp_path):
    context = multiprocessing.get_context("fork")
    count, barrier = tmp_path / "count", context.Barrier(2)
    processes = [
        context.Process(target=convert_and_report, args=(str(checkpoint), str(count), barrier)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert count.read_text() == "x"


def convert_slowly(name, saving):
    def wait(*_):
        Path(saving).touch()
        time.sleep(60)

    by_name.flush_to_disk = wait  # all files are written, and the folder is not in its place yet
    model_folder(name, {})


def test_a_killed_process_blocks_no_other(checkpoint, published, cache, tmp_path):
    context = multiprocessing.get_context("fork")
    saving = tmp_path / "saving"
    process = context.Process(target=convert_slowly, args=(str(checkpoint), str(saving)))
    process.start()
    while not saving.exists():
        assert process.is_alive()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert folders(cache) == []  # only a draft
    assert torch.equal(logits_of(hf_gradalign.load_detector(str(checkpoint))[0]), logits_of(published[0]))
    assert len(folders(cache)) == 1


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    monkeypatch.setenv("HF_GRADALIGN_CACHE", str(tmp_path / "home" / "cache"))
    with pytest.raises(
        OSError, match=r"cannot be converted into the cache .*choose another folder with HF_GRADALIGN_CACHE"
    ):
        model_folder(f"{FIXTURES}/antideepfake_w2v.pth", {"conversion_options": {"num_attention_heads": 4}})
