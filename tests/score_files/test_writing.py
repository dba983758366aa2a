from hf_gradalign.data import BadClip
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


def test_bad_clips(tmp_path):
    path = tmp_path / "bad.tsv"
    write_bad_clips(path, [BadClip("a", "x/a.wav", "it is\ttruncated"), BadClip("b", None, "empty")])
    assert path.read_text() == 'utterance_id\tpath\treason\na\tx/a.wav\t"it is\ttruncated"\nb\t\tempty\n'
    write_bad_clips(path, [])
    assert not path.exists()
