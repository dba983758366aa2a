"""Timelines against labels over time, from files to equal error rates."""

import json
import os
import pickle

import numpy as np
import pytest

from hf_gradalign.cli import evaluate_timeline
from hf_gradalign.score_files import (
    ScoreFileError,
    evaluate_localization,
    read_segment_labels,
    read_timelines,
)
from hf_gradalign.score_files.array_pickles import load_object_array


def write_windows(path, **recordings):
    """Scores of windows of a second, without overlap."""
    rows = [
        {"utterance_id": name, "start": start, "end": start + 1, "score": score}
        for name, scores in recordings.items()
        for start, score in enumerate(scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_turns(path, **recordings):
    lines = [
        f"SPEAKER {name} 1 {start} {end - start} <NA> <NA> {label} <NA> <NA>\n"
        for name, turns in recordings.items()
        for start, end, label in turns
    ]
    path.write_text("".join(lines))
    return path


@pytest.fixture
def windows(tmp_path):
    return write_windows(tmp_path / "w.jsonl", a=[2, 1, -1, -2], b=[3, 0.5, 4, 5])


HALVES = {"a": [(0, 2, "bonafide"), (2, 4, "spoof")], "b": [(0, 1, "bonafide"), (1, 2, "fake"), (2, 4, "genuine")]}


def evaluate(timelines, labels, **options):
    return evaluate_localization(read_timelines(timelines), labels, n_draws=0, **options)


def test_turns(windows, tmp_path):
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **HALVES))
    result = evaluate(windows, labels, resolutions=[1, 2])
    assert result.rows["range_eer"].value == 0
    assert result.rows["range_eer"].threshold == 0.5
    assert (result.n_recordings, result.bonafide_seconds, result.spoof_seconds) == (2, 5, 3)
    assert result.rows["segment_eer_1"].value == 0
    assert list(result.rows) == ["range_eer", "segment_eer_1", "segment_eer_2"]
    assert "segment EER at 2 s" in result.table()
    assert list(evaluate(windows, labels).rows)[1:] == [
        f"segment_eer_{seconds}" for seconds in (0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
    ]


def test_line_separators_in_names(tmp_path):
    row = '{"utterance_id": "a\u2028b", "start": 0, "end": 1, "score": 2}\n'
    (tmp_path / "w.jsonl").write_text(row, encoding="utf-8")
    assert list(read_timelines(tmp_path / "w.jsonl").recordings) == ["a\u2028b"]


def test_arrays_of_partialspoof(windows, tmp_path):
    arrays = {"a": np.array(list("11110000")), "b": np.array(list("11001111"))}
    np.save(tmp_path / "dev_seglab_0.50.npy", arrays)
    labels = read_segment_labels(tmp_path / "dev_seglab_0.50.npy")
    assert labels.resolution == 0.5
    result = evaluate(windows, labels)
    assert list(result.rows) == ["range_eer", "segment_eer_0.64"]
    assert result.rows["range_eer"].value == 0
    assert result.spoof_seconds == 3
    with pytest.raises(ValueError, match=r"last 0.5 s each, so segments of 0.16 s do not have "):
        evaluate(windows, labels, resolutions=[0.16])
    swapped = read_segment_labels(tmp_path / "dev_seglab_0.50.npy", label_map={"0": "bonafide", "1": "spoof"})
    assert evaluate(windows, swapped).rows["range_eer"].value > 0.5


@pytest.mark.parametrize("dtype", [int, float, object, "S1"])
def test_types_of_labels(windows, tmp_path, dtype):
    numbers = np.array(["1", "1", "0", "0"])
    numbers = numbers.astype(int).astype(dtype) if dtype in (int, float) else numbers.astype(dtype)
    np.save(tmp_path / "labels.npy", {"a": numbers, "b": numbers})
    labels = read_segment_labels(tmp_path / "labels.npy", resolution=1)
    assert np.asarray(labels.recordings["a"]).tolist() == [[0, 2], [2, 4], [1, 0]]
    assert evaluate(windows, labels).n_recordings == 2


def test_silence_and_missing_labels_are_not_scored(windows, tmp_path):
    turns = {"a": [(0, 1, "bonafide"), (1, 2, "silence"), (2, 3, "spoof"), (3, 4, "-")]}
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **turns))
    assert labels.recordings["a"].starts.tolist() == [0, 2]
    (tmp_path / "l.rttm").open("a").write("NOSCORE a 1 2.5 1 <NA> <NA> <NA> <NA> <NA>\n")
    assert read_segment_labels(tmp_path / "l.rttm").recordings["a"].ends.tolist() == [1, 2.5]


def test_spoof_in_overlapping_turns(tmp_path):
    turns = {"a": [(0, 3, "bonafide"), (1, 2, "spoof"), (2.5, 4, "bonafide")]}
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **turns))
    ranges = labels.recordings["a"]
    spoofed = [(start, end) for start, end, value in zip(*ranges, strict=True) if value == 0]
    assert spoofed == [(1, 2)]
    assert ranges.starts[0] == 0
    assert ranges.ends[-1] == 4


def test_a_file_of_spoofed_turns_alone(windows, tmp_path):
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", a=[(2, 3.5, "spoof")]))
    assert labels.rest_is_bonafide
    result = evaluate(windows, labels, resolutions=[0.5])
    assert (result.bonafide_seconds, result.spoof_seconds) == (6.5, 1.5)
    assert result.notes == (f"1 recordings without a spoofed turn in {labels.source} count as bona fide.",)
    (tmp_path / "l.rttm").open("a").write("NOSCORE a 1 0.5 1 <NA> <NA> <NA> <NA> <NA>\n")
    assert evaluate(windows, read_segment_labels(tmp_path / "l.rttm"), resolutions=[0.5]).bonafide_seconds == 5.5
    whole = read_segment_labels(write_turns(tmp_path / "l.rttm", a=[(0, 4, "spoof")]))
    assert evaluate(windows, whole, resolutions=[1]).spoof_seconds == 4


def test_labels_of_other_lengths(windows, tmp_path):
    def labeled(n):
        np.save(tmp_path / "x_0.1.npy", {"a": np.array(["1"] * (n - 5) + ["0"] * 5), "b": np.array(["1"] * 40)})
        return read_segment_labels(tmp_path / "x_0.1.npy")

    for n in (39, 40, 41):
        assert evaluate(windows, labeled(n)).n_recordings == 2
    for n in (38, 42):
        with pytest.raises(ScoreFileError, match=rf"The labels of 'a' in .* end at {n / 10:.3f} s, but its scores end"):
            evaluate(windows, labeled(n))
    short = write_turns(tmp_path / "l.rttm", a=[(0, 1, "bonafide"), (1, 2, "spoof")])
    assert evaluate(windows, read_segment_labels(short)).spoof_seconds == 1  # silence at the end has no turn
    long = write_turns(tmp_path / "l.rttm", a=[(0, 1, "bonafide"), (1, 5, "spoof")])
    with pytest.raises(ScoreFileError, match=r"end at 5\.000 s, but its scores end at 4\.000 s"):
        evaluate(windows, read_segment_labels(long))


def test_names_that_do_not_match(windows, tmp_path):
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **{"A.wav": HALVES["a"], "B.wav": HALVES["b"]}))
    result = evaluate(windows, labels)
    assert "matched" in result.notes[0]
    other = read_segment_labels(write_turns(tmp_path / "l.rttm", c=HALVES["a"]))
    with pytest.raises(ScoreFileError, match=r"No recording of .* \(a, b\) is in .*l.rttm \(c\)"):
        evaluate(windows, other)
    more = read_segment_labels(write_turns(tmp_path / "l.rttm", c=HALVES["a"], **HALVES))
    with pytest.raises(ScoreFileError, match=r"1 of 3 recordings .* have no scores \(c\). That is more than 5%"):
        evaluate(windows, more)
    assert "They are skipped" in evaluate(windows, more, allow_missing=True).notes[0]
    fewer = read_segment_labels(write_turns(tmp_path / "l.rttm", a=HALVES["a"]))
    assert evaluate(windows, fewer).notes == (f"1 recordings of {windows} have no labels (b).",)


def test_intervals_draw_recordings(tmp_path):
    generator = np.random.default_rng(0)
    scores = {f"r{index}": [*generator.normal(1, 1, 3), *generator.normal(-1, 1, 3)] for index in range(30)}
    timelines = read_timelines(write_windows(tmp_path / "w.jsonl", **scores))
    turns = {name: [(0, 3, "bonafide"), (3, 6, "spoof")] for name in scores}
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **turns))
    rows = [evaluate_localization(timelines, labels, resolutions=[1], n_draws=50, seed=seed).rows for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]
    for row in rows[0].values():
        assert row.interval.low < row.value == row.interval.value < row.interval.high
    result = evaluate_localization(timelines, labels, resolutions=[1], n_draws=50, confidence=0.9)
    assert "90 % interval (%)" in result.table()
    assert result.describe().endswith("Intervals: bootstrap of recordings, 50 draws.")
    assert result.notes == ()
    # Segments of a second are those that have a score of their own.
    assert rows[0]["range_eer"].value == pytest.approx(rows[0]["segment_eer_1"].value)


def test_few_recordings_or_errors_give_no_intervals(tmp_path):
    scores = {f"r{index}": [3.0 + index, 3.5, -3.0, -3.5 + index / 9] for index in range(9)}
    timelines = read_timelines(write_windows(tmp_path / "w.jsonl", **scores))
    turns = {name: [(0, 2, "bonafide"), (2, 4, "spoof")] for name in scores}
    labels = read_segment_labels(write_turns(tmp_path / "l.rttm", **turns))
    few, separated = evaluate_localization(timelines, labels, resolutions=[1], n_draws=10).notes
    assert "one of the classes: 9. With fewer than 10" in few
    assert "intervals of range-based EER, segment EER at 1 s mean nothing" in separated
    assert evaluate_localization(timelines, labels, resolutions=[1], n_draws=0).notes == ()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol_are_read(tmp_path, protocol):
    content = {"a": np.array(["1", "0"]), "b": np.array([b"1"]), "n": np.int64(3), "list": [1, 2.5, ("x",)]}
    array = np.empty((), object)
    array[()] = content
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=protocol)
    loaded = load_object_array(tmp_path / "a.npy")
    assert loaded["a"].tolist() == ["1", "0"]
    assert loaded["b"].tolist() == [b"1"]
    assert loaded["n"] == 3
    assert loaded["list"] == content["list"]


def test_no_code_of_a_pickle_is_run(tmp_path):
    np.save(tmp_path / "a.npy", {"a": Touch(tmp_path / "was_run")})
    with pytest.raises(ScoreFileError, match=r"it contains (posix|nt)\.system, but only arrays, text, numbers"):
        load_object_array(tmp_path / "a.npy")
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a .npy file of arrays, or is damaged"),
        (b"\x93NUMPY\x01\x00", "is not a .npy file of arrays, or is damaged"),
        (np.arange(3), "does not contain a dictionary of labels"),
        ({}, "does not contain a dictionary of labels"),
        ({"a": np.ones((2, 2))}, "has no list of labels for 'a'"),
        ({"a": np.array(["1", "7"])}, "Cannot tell which labels of .* mean spoof and which bona fide: 7"),
        ({3: np.array(["1", "0"])}, "has no list of labels for 3"),
    ],
    ids=range(7),
)
def test_arrays_that_cannot_be_labels(tmp_path, content, message):
    path = tmp_path / "a_0.02.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(ScoreFileError, match=message):
        read_segment_labels(path)


def test_a_name_without_a_resolution(tmp_path):
    np.save(tmp_path / "labels.npy", {"a": np.array(["1"])})
    with pytest.raises(ScoreFileError, match="Say how many seconds a label lasts with --label_resolution"):
        read_segment_labels(tmp_path / "labels.npy")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{", "line 1 is not a window like"),
        ('{"utterance_id": "a", "start": 0, "end": 1}', "line 1 is not a window like .*'score'"),
        ('\n{"utterance_id": "a", "start": 1, "end": 1, "score": 0}', "line 2: times must ascend"),
        ('{"utterance_id": "a", "start": 0, "end": 1, "score": NaN}', "line 1: times must ascend, all numbers"),
        ('{"utterance_id": 3, "start": 0, "end": 1, "score": 0}', "the id must be text"),
        ('{"utterance_id": "a", "start": 0, "end": 1, "score": 0}\n' * 2, "the windows of 'a' cannot be used"),
        ("", "has no windows"),
    ],
    ids=range(7),
)
def test_lines_that_are_no_windows(tmp_path, lines, message):
    (tmp_path / "w.jsonl").write_text(lines)
    with pytest.raises(ScoreFileError, match=message):
        read_timelines(tmp_path / "w.jsonl")


def test_the_command(windows, tmp_path, capsys):
    labels = write_turns(tmp_path / "l.rttm", **HALVES)
    output = tmp_path / "result.json"
    words = [str(windows), str(labels), "--resolution", "1", "--bootstrap", "20", "--output_json", str(output)]
    assert evaluate_timeline.main(words) == 0
    printed = capsys.readouterr().out
    assert "2 recordings, 5.0 s bona fide and 3.0 s spoofed." in printed
    assert "| range-based EER" in printed
    assert json.loads(output.read_text())["rows"]["segment_eer_1"]["value"] == 0
    for read in (windows, labels):
        before = read.read_bytes()
        assert evaluate_timeline.main([*words[:-1], str(read)]) == 2
        assert "and the output would replace it" in capsys.readouterr().err
        assert read.read_bytes() == before
    (tmp_path / "empty").mkdir()
    assert evaluate_timeline.main([str(tmp_path / "empty"), str(labels)]) == 2
    assert "has no .jsonl files. Write them with hf-gradalign score --timeline" in capsys.readouterr().err


def test_notes_are_plain_lines(tmp_path, capsys):
    scores = [2, 1, -1, -2]
    windows = write_windows(tmp_path / "w.jsonl", a=scores, b=scores, **{"\x1b[2Jother\nerror: no": scores})
    labels = write_turns(tmp_path / "l.rttm", **HALVES)
    assert evaluate_timeline.main([str(windows), str(labels), "--resolution", "1", "--bootstrap", "0"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "have no labels" in line
    assert "\x1b" not in line


def test_one_recording_has_no_intervals(tmp_path, capsys):
    windows = write_windows(tmp_path / "w.jsonl", a=[2, 1, -1, -2])
    words = [str(windows), str(write_turns(tmp_path / "l.rttm", a=HALVES["a"]))]
    assert evaluate_timeline.main(words) == 2
    assert "there is only one: set --bootstrap 0" in capsys.readouterr().err
    assert evaluate_timeline.main([*words, "--bootstrap", "0"]) == 0
