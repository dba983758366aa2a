"""hf-gradalign fuse: from score files to fused score files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from hf_gradalign.cli.fuse import main
from hf_gradalign.metrics import log_likelihood_ratio_cost
from hf_gradalign.score_files import Fusion
from hf_gradalign.scoring import read_score_file
from hf_gradalign.utils.file_locks import hold_output

N = 120
LABELS = np.arange(N) // 10 % 2
NOISE = np.random.default_rng(0).normal(size=(2, N))
AASIST, SLS = NOISE + 2 * LABELS
DEV = ["dev/aasist.txt", "dev/sls.txt"]
KEYS = ["--keys", "keys.tsv", "--bootstrap", "20"]
APPLY = ["--apply", "eval/aasist.txt", "eval/sls.txt", "--output_file", "fused.txt"]


def write(path, scores, part, count=N):
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text("".join(f"{part}_{k:03d} {scores[k]:.6f}\n" for k in range(count)))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Scores of two systems for a development and an evaluation set, and keys with speakers."""
    monkeypatch.chdir(tmp_path)
    for part in ("dev", "eval"):
        write(f"{part}/aasist.txt", AASIST, part)
        write(f"{part}/sls.txt", 100 * SLS, part)
    rows = [f"s{k % 12}\tdev_{k:03d}\t{'bonafide' if LABELS[k] else 'spoof'}\n" for k in range(N)]
    Path("keys.tsv").write_text("".join(["speaker\tfilename\tcm-label\n", *rows]))
    return tmp_path


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fit_report_and_apply(folder, capsys):
    given = files(folder)
    assert main([*DEV, *KEYS, *APPLY]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "Held out (5 folds, no speaker is in two of them)" in captured.out
    assert "the best single system in" in captured.out
    assert files(folder) - given == {"fusion/fusion.json", "fusion/held_out.txt", "fused.txt"}
    fusion = Fusion.load("fusion/fusion.json")
    assert fusion.names == ["aasist.txt", "sls.txt"]
    assert (fusion.n_bonafide, fusion.n_spoof) == (60, 60)
    assert f"eval/sls.txt has the weight of sls.txt: {fusion.weights[1]:.6g}" in captured.out
    scores = np.stack([AASIST, 100 * SLS], axis=1)
    assert list(read_score_file("fused.txt").values()) == pytest.approx(fusion(scores), abs=1e-4)
    content = json.loads(Path("fusion/fusion.json").read_text())
    assert content["fitted_on"]["keys"] == "keys.tsv"
    assert content["held_out"]["n_folds"] == 5
    assert len(content["systems"][0]["sha256"]) == len(content["fitted_on"]["keys_sha256"]) == 64
    held_out = list(read_score_file("fusion/held_out.txt").values())
    assert content["held_out"]["fusion"]["cllr"] == pytest.approx(
        log_likelihood_ratio_cost(held_out, LABELS)["cllr"], abs=1e-5
    )
    # Without another fit, the result is the same to the byte.
    fused = Path("fused.txt").read_bytes()
    assert main(["--fusion", "fusion/fusion.json", *APPLY]) == 2
    assert "fused.txt already exists: choose another file, or pass --overwrite" in capsys.readouterr().err
    assert main(["--fusion", "fusion/fusion.json", *APPLY[:-1], "again.txt"]) == 0
    assert Path("again.txt").read_bytes() == fused


def test_nothing_is_replaced_unless_told(folder, capsys):
    assert main([*DEV, *KEYS]) == 0
    before = Path("fusion/fusion.json").read_bytes()
    capsys.readouterr()
    assert main([*DEV, *KEYS, "--l2", "1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fusion/fusion.json already exists: choose another file, or pass --overwrite" in captured.err
    assert Path("fusion/fusion.json").read_bytes() == before
    assert main([*DEV, *KEYS, "--l2", "1", "--overwrite"]) == 0
    assert Fusion.load("fusion/fusion.json").l2 == 1


def test_one_writer(folder, capsys):
    with hold_output("fusion/fusion.json"):
        assert main([*DEV, *KEYS]) == 2
    assert f"{folder / 'fusion/fusion.json'} is in use by process" in capsys.readouterr().err


def test_missing_clips_are_listed(folder, capsys):
    write("dev/sls.txt", SLS, "dev", N - 2)
    write("eval/sls.txt", SLS, "eval", N - 10)
    assert main([*DEV, *KEYS, *APPLY]) == 2  # before the fit
    captured = capsys.readouterr()
    assert captured.out == ""
    assert (
        "note: 118 of 120 utterances are in all files; dev/sls.txt lacks 2 (dev_118, dev_119). fusion/missing.tsv lists"
    ) in captured.err
    assert "error: 110 of 120 utterances are in all files; eval/sls.txt lacks 10 (eval_110, eval_111," in captured.err
    assert "--partial" in captured.err
    assert not {"fusion/fusion.json", "fused.txt"} & files(folder)
    lines = Path("fused_missing.tsv").read_text().splitlines()
    assert lines == ["file\tlacks", *(f"eval/sls.txt\teval_{k}" for k in range(110, 120))]
    assert main([*DEV, *KEYS, *APPLY, "--partial"]) == 0
    assert len(read_score_file("fused.txt")) == 110
    assert len(read_score_file("fusion/held_out.txt")) == 118
    # A list of an earlier fit does not stay.
    write("dev/sls.txt", SLS, "dev")
    assert main([*DEV, *KEYS, "--overwrite"]) == 0
    assert "fusion/missing.tsv" not in files(folder)


def test_keys_with_other_utterances(capsys):
    text = Path("keys.tsv").read_text()
    Path("keys.tsv").write_text("\n".join(text.splitlines()[:100]))
    assert main([*DEV, *KEYS]) == 0
    assert "99 of 99 utterances are in all files; keys.tsv lacks 21 (dev_099, " in capsys.readouterr().err
    Path("keys.tsv").write_text(text.replace("dev_", "d3v_"))
    assert main([*DEV, *KEYS, "--overwrite"]) == 2
    assert "No utterance of dev/aasist.txt (dev_000, " in capsys.readouterr().err


def test_another_order_is_refused(folder, capsys):
    swapped = ["--apply", "eval/sls.txt", "eval/aasist.txt", "--output_file", "fused.txt"]
    assert main([*DEV, *KEYS, *swapped]) == 2
    assert "suggest another order than in the fit: eval/aasist.txt for aasist.txt" in capsys.readouterr().err
    assert "fusion/fusion.json" not in files(folder)
    assert main([*DEV, *KEYS, "--apply", "eval/sls.txt", "--output_file", "fused.txt"]) == 2
    assert "fitted on 2 systems (aasist.txt, sls.txt), but there are 1 files" in capsys.readouterr().err


def test_labels_in_the_score_files(capsys):
    for system, scores in (("aasist", AASIST), ("sls", SLS)):
        rows = [
            f"dev_{k:03d} {'-' if LABELS[k] else 'A1'} {'bonafide' if LABELS[k] else 'spoof'} {scores[k]:.6f}\n"
            for k in range(N)
        ]
        Path(f"dev/{system}.txt").write_text("".join(rows))
    assert main([*DEV, "--bootstrap", "20"]) == 0
    assert "Held out (5 folds, stratified by class)" in capsys.readouterr().out
    assert json.loads(Path("fusion/fusion.json").read_text())["fitted_on"] == {}


def settings_of(path, **changes):
    """What hf-gradalign score writes next to a score file."""
    settings = {"model_sha256": Path(path).stem, "windows": "first", "window_samples": 66_800, **changes}
    content = {"settings": settings, "report": {"score_file": Path(path).name}}
    Path(path).with_suffix(".json").write_text(json.dumps(content))


def test_only_scores_of_the_same_models_are_fused(capsys):
    for part in ("dev", "eval"):
        for system in ("aasist", "sls"):
            settings_of(f"{part}/{system}.txt")
    assert main([*DEV, *KEYS, *APPLY]) == 0
    assert Fusion.load("fusion/fusion.json").systems[1].scored_with["model_sha256"] == "sls"
    assert capsys.readouterr().err == ""
    stored = ["--fusion", "fusion/fusion.json", *APPLY, "--overwrite"]
    for path, changes, status, message in (
        (
            "eval/sls.txt",
            {"model_sha256": "x"},
            2,
            "eval/sls.txt has scores of another model, but is in the position of",
        ),
        ("eval/sls.txt", {"model_sha256": "aasist"}, 2, "eval/sls.txt has scores of the model of aasist.txt, but"),
        (
            "eval/sls.txt",
            {"calibration": {"slope": 2}},
            2,
            "which the fusion was fitted on, are not calibrated in the same way",
        ),
        ("eval/sls.txt", {"windows": "all"}, 0, "warning: eval/sls.txt was scored with other windows than sls.txt"),
    ):
        settings_of(path, **changes)
        assert main(stored) == status
        assert message in capsys.readouterr().err
    # The settings of a score file do not stay beside fused scores.
    settings_of("fused.txt")
    settings_of("eval/sls.txt")
    assert main(stored) == 2
    assert "fused.txt is the output of hf-gradalign score" in capsys.readouterr().err


def test_files_are_read_as_in_the_fit(capsys):
    for part in ("dev", "eval"):
        for system, scores in (("aasist", AASIST), ("sls", SLS)):
            rows = "".join(f"{part}_{k:03d}\t{-scores[k]:.6f}\n" for k in range(N))
            Path(f"{part}/{system}.txt").write_text("id\tp_spoof\n" + rows)
    assert main([*DEV, *KEYS, "--higher_is", "spoof", *APPLY]) == 0
    fused = read_score_file("fused.txt")
    assert np.mean(np.array(list(fused.values()))[LABELS == 1]) > 0
    stored = ["--fusion", "fusion/fusion.json", *APPLY, "--overwrite"]
    assert main(stored) == 0
    assert read_score_file("fused.txt") == fused
    capsys.readouterr()
    assert main([*stored, "--higher_is", "bonafide"]) == 2
    assert "was fitted with --higher_is spoof, but you passed --higher_is bonafide" in capsys.readouterr().err


def test_confidences_are_converted_as_in_the_fit():
    """Only keys tell that scores are those of predicted labels. Files without keys are read as their system was."""
    probabilities = 1 / (1 + np.exp(-SLS))
    for part in ("dev", "eval"):
        rows = [
            f"{part}_{k:03d},{'bonafide' if p >= 0.5 else 'spoof'},{max(p, 1 - p):.6f}\n"
            for k, p in enumerate(probabilities)
        ]
        Path(f"{part}/sls.txt").write_text("id,label,score\n" + "".join(rows))
    assert main([*DEV, *KEYS, *APPLY]) == 0
    fusion = Fusion.load("fusion/fusion.json")
    assert [system.score_is for system in fusion.systems] == [None, "confidence"]
    expected = fusion(np.stack([AASIST, probabilities], axis=1))
    assert list(read_score_file("fused.txt").values()) == pytest.approx(expected, abs=1e-4)
    assert main(["--fusion", "fusion/fusion.json", *APPLY, "--overwrite"]) == 0
    assert list(read_score_file("fused.txt").values()) == pytest.approx(expected, abs=1e-4)


def test_scores_of_another_form_are_not_fused(capsys):
    for part, values in (("dev", 1 / (1 + np.exp(-SLS))), ("eval", SLS)):
        others = 1 - values if part == "dev" else -values
        rows = [f"{part}_{k:03d},{values[k]},{others[k]}\n" for k in range(N)]
        Path(f"{part}/sls.txt").write_text("".join(["utt,real,fake\n", *rows]))
    assert main([*DEV, *KEYS]) == 0
    fusion = Fusion.load("fusion/fusion.json")
    assert [system.score_form for system in fusion.systems] == ["as written", "probability"]
    capsys.readouterr()
    assert main(["--fusion", "fusion/fusion.json", *APPLY]) == 2
    assert "but those of sls.txt were the probability of bona fide" in capsys.readouterr().err
    content = json.loads(Path("fusion/fusion.json").read_text())
    for system in content["systems"]:
        del system["score_form"]  # as earlier versions wrote it
    Path("fusion/fusion.json").write_text(json.dumps(content))
    assert main(["--fusion", "fusion/fusion.json", *APPLY]) == 0


def test_scores_through_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, Path(DEV[0]).read_bytes())
    os.close(writing)
    try:
        assert main([f"/dev/fd/{reading}", DEV[1], *KEYS]) == 0
    finally:
        os.close(reading)
    first, second = Fusion.load("fusion/fusion.json").systems
    assert first.sha256 is None
    assert len(second.sha256) == 64


def test_odd_systems(capsys):
    write("dev/sls.txt", -SLS, "dev")
    assert main([DEV[0], DEV[0], DEV[1], *KEYS]) == 0
    captured = capsys.readouterr()
    assert "warning: The scores of aasist.txt (1) and aasist.txt (2) are the same up to a scale" in captured.err
    assert "warning: The weight of sls.txt is negative" in captured.err
    assert "| aasist.txt (2) |" in captured.out
    write("dev/sls.txt", 0 * SLS, "dev")
    assert main([*DEV, *KEYS, "--overwrite"]) == 2
    assert (
        "All scores of sls.txt are 0, so they carry no information. Leave this system out." in capsys.readouterr().err
    )
    write("dev/sls.txt", np.where(np.arange(N) == 7, np.nan, SLS), "dev")
    assert main([*DEV, *KEYS, "--overwrite"]) == 2
    assert "dev/sls.txt: 1 of 120 scores are NaN or infinite; the first is number 8" in capsys.readouterr().err
    Path("dev/sls.txt").write_text("dev_000 1\ndev_000 2\n")
    assert main([*DEV, *KEYS, "--overwrite"]) == 2
    assert "'dev_000' has two values of the score" in capsys.readouterr().err
    assert main([DEV[0], "dev/asist.txt", *KEYS, "--overwrite"]) == 2
    assert "dev/asist.txt" in capsys.readouterr().err
    Path("keys.tsv").write_text(Path("keys.tsv").read_text().replace("spoof", "bonafide"))
    write("dev/sls.txt", SLS, "dev")
    assert main([*DEV, *KEYS, "--overwrite"]) == 2
    assert "bona fide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.txt", "--keys", "keys.tsv"], "at least two systems, not 1; for one system, use hf-gradalign calibrate"),
        ([], "at least two systems, not 0"),
        ([*DEV, "--apply", "a", "b"], "--apply and --output_file go together"),
        ([*DEV, "--output_file", "a"], "--apply and --output_file go together"),
        (["--fusion", "f.json"], "--fusion needs files to fuse"),
        ([*DEV, "--fusion", "f.json", *APPLY], "--fusion is already fitted: leave SCORES and --keys out"),
        (["--fusion", "f.json", *APPLY, "--l2", "1", "--folds", "3"], "already fitted: leave out --l2, --folds"),
    ],
)
def test_command_lines_that_make_no_sense(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_outputs_that_cannot_be_written(folder, capsys):
    Path("file").touch()
    for words, message in (
        (["--output_dir", "file"], f"{folder / 'file'}: File exists; move the existing file away"),
        ([*APPLY[:-1], "eval/../eval/sls.txt"], "eval/../eval/sls.txt is an input, and the output would replace it"),
        ([*APPLY[:-1], "fused.json"], "fused.json cannot be the score file, which is text: use a name like"),
        ([*APPLY[:-1], "keys.tsv"], "keys.tsv is an input, and the output would replace it"),
        ([*APPLY[:-1], "eval"], "eval: Is a directory; a folder is where a file should be"),
    ):
        assert main([*DEV, *KEYS, *words, "--overwrite"]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""
    assert main(["--fusion", "nothing.json", *APPLY]) == 2
    assert "There is no file nothing.json. Pass the fusion.json of an earlier fit." in capsys.readouterr().err


def test_numbers_out_of_range(capsys):
    for option, value, message in (
        ("--prior", "1", "prior must be a probability between 0 and 1"),
        ("--l2", "-1", "l2 must be 0 or more"),
        ("--folds", "1", "at least 2 folds"),
        ("--confidence", "95", "no p-value is below 0.048, so no difference would count at a confidence of 95"),
        ("--bootstrap", "19", "With 19 draws, no p-value is below 0.05"),
        ("--seed", "-1", "The seed must be 0 or more, not -1"),
    ):
        assert main([*DEV, *KEYS, option, value]) == 2
        assert message in capsys.readouterr().err
