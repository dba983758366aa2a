import json
import stat
import sys
from pathlib import Path

import forked_python
import pytest
import torch
from published_layout import logits_of, make_published
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from hf_gradalign.conversion import read_state_dict

GOLDEN = Path(__file__).parents[1] / "fixtures"
SCRIPT = Path(__file__).parents[2] / "scripts" / "convert_checkpoint.py"


@pytest.fixture
def convert(load_script):
    script = load_script("convert_checkpoint")
    return lambda *words: script.main([str(word) for word in words])


def test_golden(convert, tmp_path, capsys):
    out = tmp_path / "out"
    check = ("--check", GOLDEN / "aasist.io.pth")
    assert convert(GOLDEN / "aasist.pth", "--output_dir", out, "--num_attention_heads", 4, *check) == 0
    printed = capsys.readouterr().out
    assert "head                 aasist" in printed
    assert "entries ignored      8: ssl_model.model.mask_emb" in printed
    assert "from the reference logits of 3 clips" in printed
    reference = torch.load(GOLDEN / "aasist.io.pth", weights_only=True)
    inputs = AutoFeatureExtractor.from_pretrained(out)(
        list(reference["input_values"].float().numpy()), sampling_rate=16_000, return_tensors="pt"
    )
    with torch.no_grad():
        logits = AutoModelForAudioClassification.from_pretrained(out)(**inputs).logits
    torch.testing.assert_close(logits, reference["logits"], atol=1e-4, rtol=0)
    files = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "README.md"} <= files
    assert {"modeling_spoof_detector.py", "feature_extraction_spoof_detector.py", "head_aasist.py"} <= files
    card = (out / "README.md").read_text()
    assert "SHA-256 of `aasist.pth`" in card
    assert "entries converted    314" in card


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("aasist_raw", ["--num_sinc_filters", 70], marks=pytest.mark.slow),
        ("sls", ["--num_attention_heads", 4]),
        ("nes2net_x", ["--num_attention_heads", 4, "--dilation", 2, "--activation", "relu"]),
        ("wavlm_nes2net_x_selu", ["--max_bucket_distance", 80, "--activation", "selu"]),
        ("antideepfake_w2v_small", ["--num_attention_heads", 4, "--no_stable_layer_norm"]),
    ],
)
def test_golden_checkpoints_there_and_back(convert, tmp_path, name, words):
    """The check normalizes where the published network does, and a single output stays one."""
    out, back = tmp_path / "out", tmp_path / "back.safetensors"
    assert convert(GOLDEN / f"{name}.pth", "--output_dir", out, *words, "--check", GOLDEN / f"{name}.io.pth") == 0
    assert convert(out, "--reverse", "--output_file", back) == 0
    state, again = read_state_dict(GOLDEN / f"{name}.pth"), load_file(back)
    assert again
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in again.items())
    assert convert(back, "--output_dir", tmp_path / "again", *words, "--check", GOLDEN / f"{name}.io.pth") == 0


@pytest.mark.slow
def test_aasist_on_raw_waveforms(convert, tmp_path, capsys):
    words = (GOLDEN / "aasist_raw.pth", "--output_dir", tmp_path / "out", "--check", GOLDEN / "aasist_raw.io.pth")
    # As the published configuration has them, with a fourth one that is not used.
    options = ("--pool_ratios", 0.5, 0.7, 0.5, 0.5, "--temperatures", 2, 2, 100, 100, "--sinc_kernel_size", 128)
    assert convert(*words, *options, "--license", "mit") == 0
    printed = capsys.readouterr().out
    assert (
        "given                sinc_kernel_size 128, pool_ratios [0.5, 0.7, 0.5], temperatures [2.0, 2.0, 100.0]"
        in printed
    )
    assert "assumed              num_sinc_filters 70\n" in printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AASIST on raw waveforms" in card
    assert "license: mit" in card
    assert "the first 64600 samples (4.0375 s)" in card
    assert AutoModelForAudioClassification.from_pretrained(tmp_path / "out").config.backbone_config.kernel_size == 129
    with pytest.raises(SystemExit):
        convert(*words, "--pool_ratios", 0.5, 0.7)
    assert "--pool_ratios takes three numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "sls",
            ["None is stated where the weights are published", "the log-probabilities of spoof (0) and bonafide (1)"],
        ),
        (
            "wavlm_nes2net",
            ["github.com/Liu-Tianchi/Nes2Net)", "The only output is higher for bona fide speech.", "{logits[0]:.3f}"],
        ),
        (
            "antideepfake_w2v",
            [
                *(
                    "license: cc-by-nc-sa-4.0",
                    "the license of the weights of AntiDeepfake",
                    "{logits.softmax(0)[1]:.3f}",
                ),
                "normalized to zero mean and unit variance: whole clips",
            ],
        ),
    ],
)
def test_cards_tell_license_input_and_output(convert, tmp_path, name, said):
    heads = [] if name == "wavlm_nes2net" else ["--num_attention_heads", 4]
    assert convert(GOLDEN / f"{name}.pth", "--output_dir", tmp_path / "out", *heads) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert all(sentence in card for sentence in said)
    assert convert(GOLDEN / f"{name}.pth", "--output_dir", tmp_path / "out", *heads, "--license", "mit") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license: mit" in card
    assert "mit, as given to the converter." in card


def test_a_check_that_fails_writes_nothing(convert, tmp_path, capsys):
    out = tmp_path / "out"
    check = ("--check", GOLDEN / "mamba.io.pth")
    assert convert(GOLDEN / "mamba.pth", "--output_dir", out, "--num_attention_heads", 8, *check) == 1
    assert "that is more than 0.0001; nothing was written. Check --num_attention_heads" in capsys.readouterr().err
    assert not out.exists()


def test_files_that_are_there_are_not_replaced(convert, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("model.safetensors", "README.md", "run_arguments.json"):
        (run / name).write_text(f"my {name}")

    def contents():
        return {path.name: path.read_bytes() for path in run.iterdir()}

    before = contents()
    words = (GOLDEN / "mamba.pth", "--output_dir", run, "--num_attention_heads", 4)
    assert convert(*words) == 2
    assert (
        "already contains files (README.md, model.safetensors, run_arguments.json): choose another folder, or pass"
        in (capsys.readouterr().err)
    )
    with monkeypatch.context() as patch:  # the disk is full
        patch.setattr("hf_gradalign.models.SpoofDetectorFeatureExtractor.save_pretrained", fail)
        assert convert(*words, "--overwrite") == 2
    assert contents() == before
    assert convert(*words, "--overwrite") == 0
    assert (run / "run_arguments.json").read_bytes() == before["run_arguments.json"]
    assert AutoModelForAudioClassification.from_pretrained(run).config.head == "mamba"
    assert stat.S_IMODE((run / "model.safetensors").stat().st_mode) == stat.S_IMODE((run / "README.md").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no draft is left
    assert convert(*words) == 2  # still a run
    (run / "run_arguments.json").unlink()
    assert convert(*words) == 0  # what this script wrote it replaces

    back = tmp_path / "back.pth"
    back.write_text("precious")
    assert convert(run, "--reverse", "--output_file", back) == 2
    assert f"{back} already exists: choose another file, or pass --overwrite to replace it" in capsys.readouterr().err
    assert back.read_text() == "precious"
    assert convert(run, "--reverse", "--output_file", back, "--overwrite") == 0
    assert torch.load(back, weights_only=True)


def fail(*_, **__):
    raise OSError(28, "No space left on device")


def test_average_and_reverse(convert, tmp_path, capsys):
    model, state = make_published("mamba")
    for index, factor in enumerate((1.0, 3.0)):
        scaled = {name: value * factor if value.is_floating_point() else value for name, value in state.items()}
        torch.save(scaled, tmp_path / f"best_{index}.pth")
    paths = [tmp_path / f"best_{index}.pth" for index in range(2)]
    out = tmp_path / "out"
    assert convert("--average", *paths, "--output_dir", out, "--num_attention_heads", 6) == 0
    assert "the arithmetic mean of 2 checkpoints" in (out / "README.md").read_text()
    assert convert(out, "--reverse", "--output_file", tmp_path / "back.pth") == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    torch.testing.assert_close(back["LL.weight"], 2 * state["LL.weight"])
    assert "calibration" not in capsys.readouterr().err
    config = json.loads((out / "config.json").read_text())
    config["calibration"] = {"method": "affine", "slope": 2.0, "offset": 1.0}
    (out / "config.json").write_text(json.dumps(config))
    assert convert(out, "--reverse", "--output_file", tmp_path / "raw.pth") == 0
    assert "no place for the model's calibration: its scores are raw" in capsys.readouterr().err
    assert torch.equal(torch.load(tmp_path / "raw.pth", weights_only=True)["LL.weight"], back["LL.weight"])
    assert convert(paths[0], "--output_dir", out, "--num_attention_heads", 6, "--class_weights", 0.1, 0.9) == 0
    converted = AutoModelForAudioClassification.from_pretrained(out)
    assert torch.equal(logits_of(converted), logits_of(model))
    assert converted.config.class_weights == [0.1, 0.9]


def test_half_precision_is_averaged_in_float32(convert, tmp_path):
    _, state = make_published("mamba")
    halves = [
        {name: (value * factor).half() if value.is_floating_point() else value for name, value in state.items()}
        for factor in (1.0, 1.001)
    ]
    paths = [tmp_path / f"best_{index}.pth" for index in range(2)]
    for half, path in zip(halves, paths, strict=True):
        torch.save(half, path)
    assert convert("--average", *paths, "--output_dir", tmp_path / "out", "--num_attention_heads", 6) == 0
    merged = AutoModelForAudioClassification.from_pretrained(tmp_path / "out").head.projection.linear.weight
    assert torch.equal(merged, (halves[0]["LL.weight"].float() + halves[1]["LL.weight"].float()) / 2)


def test_checkpoints_of_two_models_have_no_average(convert, tmp_path, capsys):
    for head in ("mamba", "aasist"):
        torch.save(make_published(head)[1], tmp_path / f"{head}.pth")
    paths = [tmp_path / "mamba.pth", tmp_path / "aasist.pth"]
    assert convert("--average", *paths, "--output_dir", tmp_path / "out") == 2
    assert "mamba.pth and" in (said := capsys.readouterr().err)
    assert "are not checkpoints of the same model; they differ in GAT_layer_S.att_proj.bias" in said


def test_errors(convert, tmp_path, capsys):
    out = ("--output_dir", tmp_path / "out")
    assert convert("nowhere.pth", *out) == 2
    assert "error: nowhere.pth is not a file or folder; name a checkpoint on the Hub" in capsys.readouterr().err
    whole = (GOLDEN / "mamba.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[:100_000])
    assert convert(tmp_path / "cut.pth", *out) == 2
    assert "cut.pth is truncated (100,000 bytes; the list of contents at its end is missing)" in capsys.readouterr().err
    assert convert(GOLDEN / "mamba.pth", "--check", GOLDEN / "mamba.pth", "--num_attention_heads", 4, *out) == 2
    assert "it needs input_values and logits" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        convert(GOLDEN / "mamba.pth")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.slow
def test_from_the_hub_and_to_it(hub, tmp_path):
    environment = hub.environment(tmp_path / "home")

    def run(*words):
        command = [sys.executable, *map(str, words)]
        return forked_python.run(command, environment)

    upload = (
        "from huggingface_hub import HfApi; import sys; api = HfApi(); api.create_repo('tester/published');"
        "api.upload_file(path_or_fileobj=sys.argv[1], path_in_repo='best.pth', repo_id='tester/published')"
    )
    assert run("-c", upload, GOLDEN / "mamba.pth").returncode == 0
    options = ["--output_dir", tmp_path / "out", "--num_attention_heads", "4", "--check", GOLDEN / "mamba.io.pth"]
    done = run(SCRIPT, "tester/published:best.pth", "--push_to_hub", "tester/converted", *options)
    assert done.returncode == 0, done.stderr
    assert "sha256 " in done.stdout
    files = set(hub.repos["tester/converted"].files)
    assert {"model.safetensors", "head_mamba.py", "selective_scan.py", "preprocessor_config.json", "README.md"} <= files
    missing = run(SCRIPT, "tester/published:worst.pth", *options)
    assert missing.returncode == 2
    size = (GOLDEN / "mamba.pth").stat().st_size / 1000
    assert f"tester/published has no file worst.pth. It has: best.pth ({size:.1f} kB)" in missing.stderr


def test_model_cards_are_those_that_the_code_writes(load_script, tmp_path, capsys):
    load_script("write_model_cards").main([str(tmp_path)])
    kept = Path(__file__).parents[2] / "model_cards"
    written = sorted(tmp_path.iterdir())
    assert len(written) == 3
    for path in written:
        assert (kept / path.name).read_text() == path.read_text()
        assert "| In-the-Wild |" in path.read_text()
    assert (kept / "conversion_card_template.md").is_file()
