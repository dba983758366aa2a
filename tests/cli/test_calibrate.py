"""hf-gradalign calibrate: from score files to calibrated score files and models."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_detectors import make_detector

from hf_gradalign import hub
from hf_gradalign.cli import calibrate
from hf_gradalign.cli.calibrate import main
from hf_gradalign.metrics import Calibration, fit_calibration
from hf_gradalign.scoring import SpoofScorer, read_score_file
from hf_gradalign.scoring.fingerprint import digest_of_weights
from hf_gradalign.utils.file_locks import hold_output

N = 120
LABELS = np.arange(N) // 10 % 2
SCORES = np.round(np.random.default_rng(0).normal(size=N) + 2 * LABELS, 6)
FIT = ["dev.txt", "keys.tsv", "--bootstrap", "5", "--formats", "none"]
APPLY = ["--apply", "eval.txt", "--output_file", "llr.txt"]
WINDOWING = {"windows": "first", "window_samples": 3200, "hop_samples": None, "combine": None, "rms_level": None}


def write_scores(path, scores=SCORES, part="dev"):
    Path(path).write_text("".join(f"{part}_{k:03d} {score:.6f}\n" for k, score in enumerate(scores)))


def write_settings(path, **settings):
    content = {"settings": {**WINDOWING, **settings}, "report": {"score_file": Path(path).name}}
    Path(path).with_suffix(".json").write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Scores of a development and an evaluation set, and keys with speakers."""
    monkeypatch.chdir(tmp_path)
    write_scores("dev.txt")
    write_scores("eval.txt", SCORES[::-1], "eval")
    rows = [f"s{k % 12}\tdev_{k:03d}\t{'bonafide' if LABELS[k] else 'spoof'}\n" for k in range(N)]
    Path("keys.tsv").write_text("".join(["speaker\tfilename\tcm-label\n", *rows]))
    return tmp_path


@pytest.fixture(scope="module")
def detector():
    return make_detector(n_samples=3200)


@pytest.fixture
def model(detector, folder):
    detector.save_pretrained(folder / "model")
    return folder / "model"


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fit_report_and_apply(folder, capsys):
    given = files(folder)
    assert main([*FIT, *APPLY]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "held out (5 folds, no speaker is in two of them)" in captured.out
    assert files(folder) - given == {"calibration/calibration.json", "llr.txt", "llr.json"}
    expected = fit_calibration(SCORES, LABELS)
    assert list(read_score_file("llr.txt").values()) == pytest.approx(expected(SCORES[::-1]), abs=1e-5)
    content = json.loads(Path("calibration/calibration.json").read_text())
    assert Calibration.from_dict(content) == expected
    assert (content["n_bonafide"], content["n_spoof"]) == (60, 60)
    assert content["fitted_on"]["scores"] == "dev.txt"
    assert content["fitted_on"]["keys"] == "keys.tsv"
    assert len(content["fitted_on"]["scores_sha256"]) == len(content["fitted_on"]["keys_sha256"]) == 64
    assert content["report"]["after"]["cllr"]["low"] < content["report"]["before"]["cllr"]["value"]
    assert main(FIT) == 2
    assert "calibration.json already exists: choose another file, or pass --overwrite" in capsys.readouterr().err
    write_scores("eval.txt", 100 * SCORES + 50, "eval")  # of another system
    assert main([*FIT, *APPLY, "--overwrite"]) == 0
    assert "of the scores of eval.txt" in (warning := capsys.readouterr().err)
    assert "lie outside the range of the scores of dev.txt that the fit used (" in warning
    assert main([*FIT, "--overwrite", "--method", "pav"]) == 0
    assert json.loads(Path("calibration/calibration.json").read_text())["method"] == "pav"


def test_the_reliability_diagram(folder, capsys, monkeypatch):
    assert main([*FIT[:-2], "--formats", "svg"]) == 0
    assert "share of bona fide clips" in Path("calibration/reliability.svg").read_text()

    def missing(_):
        raise ImportError("figures need matplotlib")

    monkeypatch.setattr(calibrate.score_files, "import_matplotlib", missing)
    assert main([*FIT[:-2], "--output_dir", "other"]) == 0
    assert "note: no reliability diagram is drawn: figures need matplotlib" in capsys.readouterr().err
    assert [path.name for path in Path("other").iterdir()] == ["calibration.json"]


def test_stored_in_a_model(model, detector, capsys):
    write_settings("dev.txt", model_sha256=digest_of_weights(detector))
    assert main([*FIT, "--model", "model"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "model is calibrated: its scores are log-likelihood ratios now" in captured.out
    stored = json.loads((model / "config.json").read_text())["calibration"]
    assert Calibration.from_dict(stored) == fit_calibration(SCORES, LABELS)
    assert stored["windowing"] == WINDOWING
    assert SpoofScorer(model).calibration == fit_calibration(SCORES, LABELS)
    card = (model / "README.md").read_text()
    assert "Fitted on: 60 bona fide and 60 spoofed clips (dev.txt, keys.tsv)" in card
    assert "| min Cllr |" in card
    # A second one replaces the first, and says so.
    assert main([*FIT, "--overwrite", "--model", "model", "--prior", "0.3"]) == 0
    assert f"The model's calibration of {stored['date']} is replaced." in capsys.readouterr().out
    assert SpoofScorer(model).calibration.prior == 0.3
    assert (model / "README.md").read_text().count("## Calibration") == 1


def test_what_the_model_cannot_apply_is_refused_before_the_work(model, capsys):
    write_settings("dev.txt", windows="all", combine="mean")
    assert main([*FIT, "--model", "model", "--method", "pav"]) == 2
    assert "a PAV calibration of the mean of windows" in capsys.readouterr().err
    assert not Path("calibration/calibration.json").exists()


def test_calibrated_scores_are_refused(capsys):
    write_settings("dev.txt", calibration={"method": "affine", "slope": 1.0, "offset": 0.0})
    assert main(FIT) == 2
    assert "dev.txt has calibrated scores already (its settings in dev.json say so)" in capsys.readouterr().err
    Path("dev.json").rename("eval.json")
    write_settings("eval.txt", calibration={"method": "affine", "slope": 1.0, "offset": 0.0})
    assert main([*FIT, *APPLY]) == 2
    assert "eval.txt has calibrated scores already" in capsys.readouterr().err
    assert not Path("llr.txt").exists()


def test_what_it_calibrated_is_not_calibrated_again(capsys):
    assert main([*FIT, *APPLY]) == 0
    assert main([*FIT, *APPLY, "--overwrite"]) == 0
    assert main([*FIT, "--overwrite", "--apply", "llr.txt", "--output_file", "twice.txt"]) == 2
    assert "llr.txt has calibrated scores already (its settings in llr.json say so)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eval_raw.txt", "notes.txt", "calibration/calibration.txt"])
def test_settings_of_the_output_replace_no_other_file(name, capsys):
    write_settings("eval_raw.txt", model_sha256="0")
    Path("notes.json").write_text("{}")
    before = Path("eval_raw.json").read_text()
    assert main([*FIT, "--apply", "eval.txt", "--output_file", name, "--overwrite"]) == 2
    assert f"the settings of {name} would be written to" in capsys.readouterr().err
    assert (Path("eval_raw.json").read_text(), Path("notes.json").read_text()) == (before, "{}")


def test_scores_of_another_model_are_refused(model, capsys):
    write_settings("dev.txt", model_sha256="0" * 64)
    write_settings("eval.txt", model_sha256="1" * 64)
    assert main([*FIT, "--model", "model"]) == 2
    assert "the scores come from another model than model" in capsys.readouterr().err
    assert main([*FIT, *APPLY]) == 2
    assert "eval.txt has scores of another model than dev.txt" in capsys.readouterr().err
    assert "calibration" not in json.loads((model / "config.json").read_text())


def test_scores_of_unknown_origin_warn(model, capsys):
    assert main([*FIT, "--model", "model"]) == 0
    assert "warning: dev.json, in which hf-gradalign score writes" in capsys.readouterr().err


def test_other_windows_warn(capsys):
    write_settings("dev.txt", model_sha256="0")
    write_settings("eval.txt", model_sha256="0", windows="all")
    assert main([*FIT, *APPLY]) == 0
    assert "eval.txt was scored with other windows than dev.txt" in capsys.readouterr().err


def test_settings_of_another_score_file_of_the_same_stem_do_not_count(capsys):
    Path("dev.tsv").write_text("another score file")
    write_settings("dev.tsv", calibration={"method": "affine"})
    assert hub.scoring_settings("dev.txt") is None
    Path("dev.json").write_text("[]")
    assert hub.scoring_settings("dev.txt") is None


@pytest.mark.parametrize("change", [lambda line: line.split("\t", 1)[1], lambda line: line.replace("s1\t", "-\t")])
def test_keys_without_speakers(change, capsys):
    Path("keys.tsv").write_text("".join(map(change, Path("keys.tsv").read_text().splitlines(keepends=True))))
    assert main(FIT) == 0
    assert "held out (5 folds" in capsys.readouterr().out


def write_table(path, *columns, header):
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    Path(path).write_text("\n".join([header, *rows]) + "\n")


def test_how_the_other_scores_were_read_is_said(capsys):
    names = [f"eval_{k:03d}" for k in range(N)]
    for header, columns, note in (
        ("utt,score", ([*names, names[0]], [*SCORES, SCORES[0]]), "1 of 121 lines of eval.csv repeat other lines"),
        ("score,speaker", (SCORES, np.arange(N) % 7), "eval.csv has no utterance ids. Its lines are numbered"),
        ("utt,score,label", (names, SCORES, LABELS), "The meaning of the labels in eval.csv is unclear"),
    ):
        write_table("eval.csv", *columns, header=header)
        assert main([*FIT, "--apply", "eval.csv", "--output_file", "llr.txt", "--overwrite"]) == 0
        assert note in capsys.readouterr().err
        ratios = list(read_score_file("llr.txt").values())
        assert ratios == pytest.approx(fit_calibration(SCORES, LABELS)(SCORES), abs=1e-5)


def test_scores_of_another_form_are_not_calibrated(model, capsys):
    p = 1 / (1 + np.exp(-SCORES))
    names = [f"dev_{k:03d}" for k in range(N)]
    write_table("dev.csv", names, p, 1 - p, header="utt,bonafide,spoof")
    write_table("eval.csv", names, SCORES, -SCORES, header="utt,bonafide,spoof")
    fit = ["dev.csv", *FIT[1:]]
    assert main([*fit, "--apply", "eval.csv", "--output_file", "llr.txt"]) == 2
    assert "eval.csv are the scores of bona fide minus those of spoof, but those of dev.csv" in capsys.readouterr().err
    assert main([*fit, "--model", str(model)]) == 2
    assert "dev.csv has probabilities of both classes instead of a model's scores" in capsys.readouterr().err
    assert not Path("calibration").exists()
    assert main([*fit, "--apply", "dev.csv", "--output_file", "llr.txt"]) == 0


def test_confidences_that_may_be_are_not_calibrated(capsys):
    names = [f"eval_{k:03d}" for k in range(N)]
    write_table("eval.csv", names, ["spoof", "bonafide"] * 60, 0.5 + np.arange(N) / 300, header="utt,label,score")
    assert main([*FIT, "--apply", "eval.csv", "--output_file", "llr.txt"]) == 2
    assert "may be the confidence of predicted labels" in capsys.readouterr().err


def test_labels_in_the_score_file(capsys):
    rows = (
        f"dev_{k:03d} {'-' if LABELS[k] else 'A1'} {'bonafide' if LABELS[k] else 'spoof'} {SCORES[k]}\n"
        for k in range(N)
    )
    Path("dev.txt").write_text("".join(rows))
    assert main(["dev.txt", *FIT[2:]]) == 0
    assert "stratified by class" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (-SCORES, "--higher_is spoof"),
        (np.where(np.arange(N) == 7, np.nan, SCORES), "1 of 120 scores are NaN or infinite"),
        (0 * SCORES, "carry no information"),
    ],
)
def test_scores_that_cannot_be_calibrated(scores, message, capsys):
    write_scores("dev.txt", scores)
    assert main(FIT) == 2
    assert message in capsys.readouterr().err


def test_too_few_or_one_class(capsys):
    lines = Path("keys.tsv").read_text().splitlines(keepends=True)
    Path("keys.tsv").write_text("".join([lines[0], *lines[8:15]]))
    assert main([*FIT, "--partial"]) == 2
    assert "3 bona fide" not in capsys.readouterr().out
    Path("keys.tsv").write_text("".join(lines).replace("spoof", "bonafide"))
    assert main(FIT) == 2
    assert "bona fide" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dve.txt", "keys.tsv"], "dve.txt"),
        (["dev.txt", "kyes.tsv"], "kyes.tsv"),
        ([*FIT, "--model", "you/detector"], "there is no folder you/detector"),
        ([*FIT, "--model", "."], ". has no config.json"),
        ([*FIT, "--model", "dev.txt"], "dev.txt is a file: a calibration is stored in the folder of a complete model"),
        ([*FIT, "--apply", "evla.txt", "--output_file", "llr.txt"], "evla.txt"),
        ([*FIT, "--prior", "1"], "between 0 and 1"),
        ([*FIT, "--folds", "1"], "at least 2 folds"),
        ([*FIT, "--hold_out", "codec"], "--hold_out"),
        (
            [*FIT, "--apply", "eval.txt", "--output_file", "llr.json"],
            "llr.json cannot be the score file, which is text",
        ),
        (
            [*FIT, "--apply", "eval.txt", "--output_file", "keys.tsv"],
            "keys.tsv is an input, and the output would replace it",
        ),
    ],
)
def test_errors_end_with_one_line_and_write_nothing(words, message, folder, capsys):
    before = files(folder)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert files(folder) == before


def test_trials_of_speaker_verification(capsys):
    rows = Path("keys.tsv").read_text().replace("bonafide", "target").replace("cm-label", "asv-label")
    Path("keys.tsv").write_text(rows)
    assert main(FIT) == 2
    assert "has trials of speaker verification" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*FIT, "--apply", "eval.txt"], "--apply and --output_file go together"),
        ([*FIT, "--output_file", "llr.txt"], "--apply and --output_file go together"),
        ([*FIT, "--bootstrap", "1"], "--bootstrap must be 0"),
        ([*FIT, "--model", "model", "--higher_is", "spoof"], "leave out --higher_is"),
    ],
)
def test_command_lines_that_make_no_sense(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


def test_two_at_once(capsys):
    with hold_output("calibration/calibration.json"):
        assert main(FIT) == 2
    assert "calibration.json" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_module(folder):
    done = subprocess.run(
        [sys.executable, "-m", "hf_gradalign.cli", "calibrate", *FIT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "calibration.json" in done.stdout
