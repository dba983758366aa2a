import json
import sys
from pathlib import Path

import numpy as np
import pytest

from hf_gradalign.metrics import (
    accuracy_at_threshold,
    actual_detection_cost,
    asv_error_rates,
    equal_error_rate,
    interpolated_equal_error_rate,
    log_likelihood_ratio_cost,
    min_detection_cost,
    min_tandem_detection_cost,
    roc_auc,
)

RNG = np.random.default_rng(0)
N = 300
LABELS = (RNG.random(N) < 0.4).astype(int)
SCORES = np.round(3 * (RNG.normal(size=N) + 2 * LABELS - 1), 6)
NAMES = [f"LA_E_{k:07d}" for k in range(N)]
KEYS = ["bonafide" if label else "spoof" for label in LABELS]
ATTACKS = ["-" if label else f"A{k % 2 + 17}" for k, label in enumerate(LABELS)]


@pytest.fixture
def evaluate(load_script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return load_script("evaluate_scores").main


@pytest.fixture
def write(tmp_path):
    def write(name, *columns, separator=" ", header=None):
        rows = [separator.join(map(str, row)) for row in zip(*columns, strict=True)]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*([header] if header else []), *rows]) + "\n")
        return str(path)

    return write


@pytest.fixture
def protocol(write):
    speakers = [f"LA_{k % 10:04d}" for k in range(N)]
    subsets = ["eval" if k % 3 else "progress" for k in range(N)]
    codecs = [["alaw", "gsm"][k % 2] for k in range(N)]
    return write("CM/trial_metadata.txt", speakers, NAMES, codecs, ["loc"] * N, ATTACKS, KEYS, ["notrim"] * N, subsets)


def rows_of(text, title=None):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1:] for row in cells}


def test_a_table_from_a_score_file_alone(evaluate, write, capsys):
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    assert evaluate([path, "--bootstrap", "0", "--threshold", "0.5"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    rows = rows_of(captured.out)
    assert rows["EER (%)"] == [f"{100 * equal_error_rate(SCORES, LABELS)['eer']:.3f}"]
    interpolated = interpolated_equal_error_rate(SCORES, LABELS)["eer"]
    assert rows["EER (interpolated) (%)"] == [f"{100 * interpolated:.3f}"]
    assert rows["minDCF"] == [f"{min_detection_cost(SCORES, LABELS)['min_dcf']:.5f}"]
    assert rows["actDCF"] == [f"{actual_detection_cost(SCORES, LABELS)['act_dcf']:.5f}"]
    assert rows["Cllr"] == [f"{log_likelihood_ratio_cost(SCORES, LABELS)['cllr']:.5f}"]
    assert rows["ROC-AUC (%)"] == [f"{100 * roc_auc(SCORES, LABELS)['roc_auc']:.3f}"]
    decided = accuracy_at_threshold(SCORES, LABELS, 0.5)
    assert rows["accuracy (%)"] == [f"{100 * decided['accuracy']:.3f}"]
    assert rows["F1 (spoof) (%)"] == [f"{100 * decided['f1_spoof']:.3f}"]


def test_keys_subset_breakdowns_json_and_figures(evaluate, write, protocol, tmp_path, capsys):
    order = RNG.permutation(N)
    path = write("scores.txt", np.array(NAMES)[order], SCORES[order])
    words = [path, protocol, "--by", "system", "codec", "--bootstrap", "20", "--output_dir", "out"]
    assert evaluate(words) == 0
    captured = capsys.readouterr()
    assert "note: Subset eval of" in captured.err
    chosen = np.arange(N) % 3 > 0
    content = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert content["metrics"]["eer"]["value"] == equal_error_rate(SCORES[chosen], LABELS[chosen])["eer"]
    assert content["metrics"]["eer"]["low"] < content["metrics"]["eer"]["high"]
    assert content["n_bonafide"] + content["n_spoof"] == chosen.sum()
    assert content["breakdowns"]["system"]["against"] == "all_bonafide"
    assert content["breakdowns"]["codec"]["against"] == "within"
    rows = rows_of(captured.out)
    assert set(rows) >= {"A17", "A18", "alaw", "gsm"}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {
        f"{name}.{kind}" for name in ("det", "scores", "eer_by_system", "eer_by_codec") for kind in ("png", "svg")
    }
    assert names == {"evaluation.json", *figures}
    assert all(f"out/{name}" in captured.out for name in names)
    assert evaluate([path, protocol, "--subset", "all", "--bootstrap", "0", "--output_json", "all.json"]) == 0
    content = json.loads((tmp_path / "all.json").read_text())
    assert content["metrics"]["eer"]["value"] == equal_error_rate(SCORES, LABELS)["eer"]
    assert not (tmp_path / "all").exists()


def test_other_costs(evaluate, write, protocol, capsys):
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    words = [path, protocol, "--subset", "all", "--by", "codec", "--bootstrap", "0", "--p_spoof", "0.5", "--c_fa", "2"]
    assert evaluate([*words, "--output_json", "costs.json"]) == 0
    out = capsys.readouterr().out
    expected = min_detection_cost(SCORES, LABELS, p_spoof=0.5, c_fa=2)["min_dcf"]
    assert rows_of(out)["minDCF"] == [f"{expected:.5f}"]
    expected = actual_detection_cost(SCORES, LABELS, p_spoof=0.5, c_fa=2)["act_dcf"]
    assert rows_of(out)["actDCF"] == [f"{expected:.5f}"]
    chosen = np.arange(N) % 2 == 0
    expected = min_detection_cost(SCORES[chosen], LABELS[chosen], p_spoof=0.5, c_fa=2)["min_dcf"]
    assert rows_of(out)["alaw"][-1] == f"{expected:.5f}"
    assert "minDCF, actDCF: p_spoof 0.5, c_miss 1, c_fa 2." in out
    assert json.loads(Path("costs.json").read_text())["costs"]["act_dcf"] == {"p_spoof": 0.5, "c_miss": 1, "c_fa": 2}
    assert evaluate([*words, "--c_miss", "0"]) == 2
    assert "Costs must be positive" in capsys.readouterr().err


def test_tandem_cost(evaluate, write, capsys):
    kinds = ["target", "nontarget", "spoof"] * 30
    asv = RNG.normal(size=90) + 3 * (np.array(kinds) != "nontarget")
    verifier = write("asv.txt", ["x"] * 90, kinds, asv)
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    assert evaluate([path, "--asv_scores", verifier, "--bootstrap", "0"]) == 0
    rows = rows_of(capsys.readouterr().out)
    rates = asv_error_rates(asv, kinds)
    for title, form in (("min t-DCF", "2021"), ("min t-DCF (2019)", "2019")):
        expected = min_tandem_detection_cost(SCORES, LABELS, rates, form=form)["min_tdcf"]
        assert rows[title] == [f"{expected:.5f}"]
    assert evaluate([path, "--asv_rates", *map(str, rates), "--bootstrap", "0"]) == 0
    again = capsys.readouterr()
    assert rows_of(again.out) == rows
    assert f"miss {100 * rates.miss:.4f} %" in again.out


def test_two_systems(evaluate, write, protocol, tmp_path, capsys):
    first = write("a/scores.txt", NAMES, SCORES)
    second = write("b/scores.txt", [f"flac/{name}.flac" for name in NAMES], SCORES - 2 * LABELS, separator="\t")
    words = [first, protocol, "--subset", "all", "--compare", second, "--bootstrap", "50", "--output_dir", "out"]
    assert evaluate([*words, "--formats", "svg"]) == 0
    captured = capsys.readouterr()
    assert "matched without folders and file extensions" in captured.err
    assert "(first) against" in captured.out
    assert "paired bootstrap of clips within each class, 50 draws, seed 0:" in captured.out
    assert "not corrected for the number of tests (6)" in captured.out
    content = json.loads((tmp_path / "out/evaluation.json").read_text())["comparisons"][second]
    assert content["n_clips"] == N
    assert content["eer"]["difference"] < 0
    assert content["eer"]["p_value"] < 0.05
    assert "b/scores.txt: EER" in (tmp_path / "out/det.svg").read_text()  # with the folder, because names agree
    assert evaluate([first, protocol, "--subset", "all", "--compare", second, "nothing.txt"]) == 2
    assert capsys.readouterr().out == ""  # all files are read before any work


def test_problems_of_the_other_system(evaluate, write, protocol, capsys):
    ours, theirs = write("ours.txt", NAMES, SCORES), write("theirs.txt", NAMES, -SCORES)
    assert evaluate([ours, protocol, "--subset", "all", "--compare", theirs, "--bootstrap", "5"]) == 0
    assert f"warning: {theirs}: The equal error rate is" in capsys.readouterr().err
    few = write("few.txt", NAMES[:40], LABELS[:40] + np.arange(40) / 80 + 1)
    assert evaluate([ours, protocol, "--subset", "all", "--partial", "--compare", few, "--bootstrap", "5"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    expected = [f"{ours}, clips of both: An equal", f"{few}: All scores lie on", f"{few}: The scores separate"]
    assert len(warnings) == len(expected)  # none of them once more without the name
    assert all(line.startswith(f"warning: {start}") for line, start in zip(warnings, expected, strict=True))


def test_names_in_notes_are_plain_text(evaluate, write, capsys):
    names = [f"\x1b[31m\u202e{name}" for name in NAMES]
    path, keys = write("scores.txt", names[:-1], SCORES[:-1]), write("keys.txt", names, KEYS)
    assert evaluate([path, keys, "--compare", write("theirs.txt", names[1:], SCORES[1:]), "--bootstrap", "2"]) == 0
    output = "".join(capsys.readouterr())
    assert f"have no score in {path} ({NAMES[-1]})" in output
    assert f"utterances are in both {path}" in output
    assert not {"\x1b", "\u202e"} & set(output)


@pytest.mark.parametrize("option", ["--output_json", "--threshold"])
def test_no_input_is_replaced(evaluate, write, protocol, tmp_path, capsys, option):
    path = write("scores.txt", NAMES, SCORES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/evaluation.json").write_text('{"eer_threshold": 0.5}')
    words = [protocol] if option == "--output_json" else ["out/evaluation.json", "--output_dir", "out"]
    before = (tmp_path / "out/evaluation.json").read_bytes(), Path(protocol).read_bytes()
    assert evaluate([path, protocol, "--bootstrap", "0", option, *words]) == 2
    captured = capsys.readouterr()
    assert "is an input, and the output would replace it: choose another output" in captured.err
    assert captured.out == ""
    assert ((tmp_path / "out/evaluation.json").read_bytes(), Path(protocol).read_bytes()) == before


def test_numbers_as_labels_do_not_matter_with_keys(evaluate, write, protocol, capsys):
    path = write("numbered.csv", NAMES, 1 - LABELS, SCORES, separator=",", header="file,label,score")
    assert evaluate([path, protocol, "--subset", "all", "--bootstrap", "0"]) == 0
    captured = capsys.readouterr()
    assert rows_of(captured.out)["EER (%)"] == [f"{100 * equal_error_rate(SCORES, LABELS)['eer']:.3f}"]
    assert "numbered.csv is unclear, so they are not used" in captured.err
    assert evaluate([path, "--bootstrap", "0"]) == 2
    assert "labels must be bonafide or spoof" in capsys.readouterr().err


def test_predicted_labels_with_their_confidence(evaluate, write, protocol, capsys):
    probabilities = 1 / (1 + np.exp(-SCORES))
    predicted = ["bonafide" if p > 0.5 else "spoof" for p in probabilities]
    confidence = np.maximum(probabilities, 1 - probabilities)
    files = [f"{name}.flac" for name in NAMES]
    path = write("best.csv", files, predicted, confidence, separator=",", header="file,label,score")
    assert evaluate([path, protocol, "--subset", "all", "--bootstrap", "0"]) == 0
    captured = capsys.readouterr()
    assert rows_of(captured.out)["EER (%)"] == [f"{100 * equal_error_rate(SCORES, LABELS)['eer']:.3f}"]
    assert "best.csv are predictions" in captured.err
    for words, message in (
        ([], "Only keys can tell: add KEYS"),
        (["--score_is", "confidence"], "contains no true labels: add KEYS"),
        (["--score_is", "score"], "they may not be the ground truth"),
        ([protocol, "--higher_is", "spoof"], "--score_is confidence if they are"),
    ):
        assert evaluate([path, *words, "--bootstrap", "0"]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.out == ""


def test_physical_access_by_its_columns(evaluate, write, capsys):
    rooms = [f"R{k % 2 + 1}" for k in range(N)]
    distances = [f"{'D' if label else 'd'}{k % 3 + 1}" for k, label in enumerate(LABELS)]
    devices = ["-" if label else f"s{k % 2 + 2}" for k, label in enumerate(LABELS)]
    words = ["-" if label else "r1" for label in LABELS], ["-" if label else "m1" for label in LABELS]
    talkers = ["-" if label else f"c{k % 3 + 2}" for k, label in enumerate(LABELS)]
    names = [name.replace("LA", "PA") for name in NAMES]
    columns = [names, names, rooms, ["M1"] * N, distances, *words, devices, talkers, KEYS, ["notrim"] * N, ["eval"] * N]
    keys = write("keys/trial_metadata.txt", *columns)
    path = write("scores.txt", names, SCORES)
    assert evaluate([path, keys, "--bootstrap", "0", "--by", "system"]) == 2
    assert "no column 'system' (--by)" in capsys.readouterr().err
    by = ["asv_room", "distance_to_asv", "replay_device", "distance_to_talker"]
    assert evaluate([path, keys, "--bootstrap", "0", "--by", *by, "--output_json", "pa.json"]) == 0
    rows = rows_of(capsys.readouterr().out)
    assert set(rows) >= {"R1", "R2", "d1", "d2", "d3", "s2", "s3", "c2", "c3", "c4"}
    assert "n/a" not in rows["d1"]  # compared with all talkers, whose distances are D1 to D3


def test_a_threshold_from_development_data(evaluate, write, capsys):
    dev = write("dev.txt", NAMES, ATTACKS, KEYS, SCORES + 1)
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    assert evaluate([dev, "--bootstrap", "0", "--output_json", "dev.json"]) == 0
    capsys.readouterr()
    assert evaluate([path, "--bootstrap", "0", "--threshold", "dev.json"]) == 0
    threshold = equal_error_rate(SCORES + 1, LABELS)["threshold"]
    accuracy = accuracy_at_threshold(SCORES, LABELS, threshold)["accuracy"]
    assert rows_of(capsys.readouterr().out)["accuracy (%)"] == [f"{100 * accuracy:.3f}"]
    assert evaluate([path, "--threshold", "nothing.json"]) == 2
    assert "must be a number or the evaluation.json" in capsys.readouterr().err


def test_a_threshold_of_scores_of_another_form(evaluate, write, capsys):
    keys = write("keys.txt", NAMES, KEYS)
    p = 1 / (1 + np.exp(-SCORES))
    dev = write("dev.csv", NAMES, p, 1 - p, separator=",", header="file,bonafide,spoof")
    logits = write("logits.csv", NAMES, SCORES, -SCORES, separator=",", header="file,bonafide,spoof")
    assert evaluate([dev, keys, "--bootstrap", "0", "--output_json", "dev.json"]) == 0
    assert evaluate([dev, keys, "--bootstrap", "0", "--threshold", "dev.json"]) == 0
    capsys.readouterr()
    assert evaluate([logits, keys, "--bootstrap", "0", "--threshold", "dev.json"]) == 2
    assert "those of dev.json were the probability of bona fide" in capsys.readouterr().err
    assert evaluate([logits, keys, "--bootstrap", "0", "--threshold", "0.5"]) == 0


def test_speaker_verification(evaluate, write, capsys):
    kinds = ["target", "nontarget", "spoof"] * 20
    scores = RNG.normal(size=60) + 3 * (np.array(kinds) == "target")
    columns = [[f"s{k}" for k in range(60)], NAMES[:60], scores - 5, scores]
    path = write("sasv.tsv", *columns, separator="\t", header="spk\tfilename\tcm-score\tsasv-score")
    cm = ["spoof" if kind == "spoof" else "bonafide" for kind in kinds]
    keys = write(
        "keys.tsv", columns[0], NAMES[:60], cm, kinds, separator="\t", header="spk\tfilename\tcm-label\tasv-label"
    )
    assert evaluate([path, keys, "--sasv", "--bootstrap", "0"]) == 0
    assert set(rows_of(capsys.readouterr().out)) >= {"min a-DCF", "min a-DCF (ASVspoof 5)", "SASV-EER (%)"}
    assert evaluate([path, keys, "--bootstrap", "0"]) == 0  # scores and labels of the countermeasure by default
    assert "minDCF" in rows_of(capsys.readouterr().out)
    assert evaluate([write("cm.txt", NAMES, ATTACKS, KEYS, SCORES), "--sasv"]) == 2
    assert "--sasv needs labels that are target, nontarget or spoof" in capsys.readouterr().err


def test_suspicious_scores_make_warnings(evaluate, write, capsys):
    path = write("cm.txt", NAMES, ATTACKS, KEYS, -SCORES)
    assert evaluate([path, "--bootstrap", "0"]) == 0
    assert "warning: The equal error rate is" in capsys.readouterr().err
    assert evaluate([path, "--bootstrap", "0", "--higher_is", "spoof"]) == 0
    assert capsys.readouterr().err == ""
    path = write("ties.txt", NAMES, ATTACKS, KEYS, np.round(SCORES / 4))
    assert evaluate([path, "--bootstrap", "0"]) == 0
    assert "warning: Clips of both classes share scores" in capsys.readouterr().err


def test_few_speakers(evaluate, write, capsys):
    speakers = ["only bona fide" if label else f"spoof {k % 3}" for k, label in enumerate(LABELS)]
    path = write("cm.tsv", NAMES, SCORES, KEYS, speakers, separator="\t", header="utterance_id\tscore\tlabel\tspeaker")
    assert evaluate([path, "--bootstrap", "40", "--bootstrap_over", "speaker"]) == 0
    printed = capsys.readouterr().err
    assert "undefined in" in printed
    assert printed.count("Only 1 of the speakers") == 1  # by the evaluation, and not once more by the bootstrap


def test_clips_of_one_class(evaluate, write, tmp_path, capsys):
    spoofs = np.flatnonzero(LABELS == 0)
    columns = (np.array(values)[spoofs] for values in (NAMES, ATTACKS, KEYS, SCORES))
    path = write("spoofs.txt", *columns)
    assert evaluate([path, "--threshold", "0", "--by", "attack", "--bootstrap", "20"]) == 0
    rows = rows_of(capsys.readouterr().out)
    expected = 100 * np.mean(SCORES[spoofs] >= 0)
    assert rows["spoofs accepted (1 - SRR) (%)"][0] == f"{expected:.3f}"
    assert " to " in rows["spoofs accepted (1 - SRR) (%)"][1]
    assert {"A17", "A18"} <= rows.keys()
    assert evaluate([path, "--threshold", "0", "--compare", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--compare needs clips of both classes" in captured.err
    whole = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    assert evaluate([whole, "--compare", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "those in cm.txt and spoofs.txt are all of one" in captured.err.replace(f"{tmp_path}/", "")


def test_a_corpus_in_place_of_keys(evaluate, write, capsys):
    from hf_gradalign.score_files import read_keys_of_corpus

    keys = read_keys_of_corpus("demo")
    names = keys.utterance_ids.to_pylist()
    path = write("demo.txt", names, RNG.normal(size=len(names)) + keys.labels)
    assert evaluate([path, "demo", "--bootstrap", "0", "--by", "system"]) == 0
    assert "EER (%)" in rows_of(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.txt"], "error: There is no file nothing.txt"),
        (["plain.txt"], "plain.txt contains no true labels: add KEYS"),
        (["plain.txt", "nowhere/keys"], "error: There is no file nowhere/keys"),
        (["plain.txt", "in_the_wild:nowhere"], "nowhere does not exist"),
        (["cm.txt", "--by", "codec"], "error: There is no column 'codec' (--by)"),
        (["cm.txt", "--asv_rates", "5", "5", "50"], "not percentages"),
        (["trials.txt", "--by", "speaker", "--threshold", "0"], "--by, --threshold: only for countermeasures"),
        (["trials.txt", "--p_spoof", "0.5"], "--p_spoof: only for countermeasures"),
        (["spoofs.txt", "--threshold", "0", "--c_fa", "1"], "--c_fa: only for clips of both classes, but spoofs.txt"),
        (["spoofs.txt", "--asv_rates", "0", "0", "1"], "--asv_rates: only for clips of both classes"),
        (["cm.txt", "--output_dir", "out", "--formats", "xyz", "--bootstrap", "0"], "'xyz' is not supported"),
    ],
)
def test_mistakes_are_errors(evaluate, write, capsys, words, message):
    write("plain.txt", NAMES, SCORES)
    write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    write("spoofs.txt", NAMES[:3], SCORES[:3], ["spoof"] * 3)
    write("trials.txt", NAMES[:3], SCORES[:3], ["target", "nontarget", "spoof"])
    assert evaluate(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""  # before any work


@pytest.mark.parametrize(
    "words",
    [
        ["--asv_rates", "0", "0", "1", "--asv_scores", "x"],
        ["--bootstrap", "1"],
        ["--compare", "y", "--bootstrap", "0"],
        [],
    ],
)
def test_options_that_do_not_fit(evaluate, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate(["cm.txt", *words] if words else [])
    assert stopped.value.code == 2
    assert capsys.readouterr().err


def test_without_matplotlib(evaluate, write, monkeypatch, capsys):
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert evaluate([path, "--output_dir", "out"]) == 2
    assert "its extra `plots`; or draw none, with --formats none" in capsys.readouterr().err
    assert evaluate([path, "--output_dir", "out", "--formats", "none", "--bootstrap", "0"]) == 0


def test_where_nothing_can_be_written(evaluate, write, capsys):
    path = write("cm.txt", NAMES, ATTACKS, KEYS, SCORES)
    for words in (["--output_dir", "cm.txt/out"], ["--output_json", "/proc/none.json"]):
        assert evaluate([path, *words]) == 2
        output = capsys.readouterr()
        assert output.err.startswith("error: ")
        assert not output.out  # an error before the work
