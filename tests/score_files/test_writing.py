import pytest

from hf_gradalign.data import BadClip
from hf_gradalign.score_files import read_scores
from hf_gradalign.score_files.writing import read_score_file, write_bad_clips
from hf_gradalign.scoring import write_score_file


def test_two_columns(tmp_path):
    path = tmp_path / "scores.txt"
    write_score_file(path, ["a", "b/c.flac"], [-1.23456789, 1e-9])
    assert path.read_text() == "a -1.234568\nb/c.flac 0.000000\n"
    assert read_score_file(path) == {"a": -1.234568, "b/c.flac": 0.0}


def test_further_columns_and_ids_with_blanks(tmp_path):
    path = tmp_path / "scores.txt"
    write_score_file(path, ["a"], [1.0], {"label": ["spoof"], "system": [None]})
    assert path.read_text() == "utterance_id\tscore\tlabel\tsystem\na\t1.000000\tspoof\t\n"
    assert read_score_file(path) == {"a": 1.0}
    write_score_file(path, ["my clip", "b"], [1.0, 2.0])
    assert path.read_text() == "utterance_id\tscore\nmy clip\t1.000000\nb\t2.000000\n"
    assert read_score_file(path) == {"my clip": 1.0, "b": 2.0}


@pytest.mark.parametrize(
    "names",
    [
        ["my clip"],
        [" a", "a"],
        ["a ", "a\u2028b", "x\u00a0y"],
        ["Icon\r", "a"],
        ["\r"],
        ["a\nb"],
        ["a\tb"],
        ['"q"', "'q'"],
    ],
)
@pytest.mark.parametrize("columns", [None, {"system": ["A\r1"]}])
def test_any_name_is_read_back(tmp_path, names, columns):
    path = tmp_path / "scores.txt"
    scores = {name: float(number) for number, name in enumerate(names)}
    write_score_file(path, names, list(scores.values()), columns and {"system": columns["system"] * len(names)})
    assert read_score_file(path) == scores


@pytest.mark.parametrize("name", ["a,b.wav", "a;b", "a|b", '"q".wav', "it's", "#1", "=1", "-1", "sep=;"])
def test_other_delimiters_in_a_name(tmp_path, name):
    write_score_file(tmp_path / "scores.txt", [name], [1.5])
    read = read_scores(tmp_path / "scores.txt")
    assert (read.utterance_ids.to_pylist(), read.scores.tolist()) == ([name], [1.5])


def test_bad_clips(tmp_path):
    path = tmp_path / "bad.tsv"
    write_bad_clips(path, [BadClip("a", "x/a.wav", "it is\ttruncated"), BadClip("b", None, "empty")])
    assert path.read_text() == 'utterance_id\tpath\treason\na\tx/a.wav\t"it is\ttruncated"\nb\t\tempty\n'
    write_bad_clips(path, [])
    assert not path.exists()
