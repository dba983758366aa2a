import pytest

from hf_gradalign.score_files import ScoreFileError
from hf_gradalign.score_files.rttm import Turn, read_rttm, rttm_lines


def test_round_trip(tmp_path):
    turns = [Turn(0.0, 1.25, "bonafide"), Turn(1.25, 3.7, "spoof")]
    text = rttm_lines("my talk", turns) + rttm_lines("b", turns[:1])
    (tmp_path / "a.rttm").write_text(text)
    assert text.splitlines()[1] == "SPEAKER my_talk 1 1.250 2.450 <NA> <NA> spoof <NA> <NA>"
    assert all(len(line.split(" ")) == 10 for line in text.splitlines())
    assert read_rttm(tmp_path / "a.rttm") == {"my_talk": turns, "b": turns[:1]}


def test_other_lines_are_skipped(tmp_path):
    lines = [
        "\ufeff;; a comment",
        "",
        "SPKR-INFO a 1 <NA> <NA> <NA> unknown spoof <NA> <NA>",
        "SPEAKER\ta  1 0.5 1e0 <NA> <NA> spoof <NA>",
        "NON-SPEECH a 1 3 1 <NA> noise <NA> <NA> <NA>",
        "NOSCORE a 1 2 1 <NA> <NA> <NA> <NA> <NA>",
    ]
    (tmp_path / "a.rttm").write_text("\r\n".join(lines))
    assert read_rttm(tmp_path / "a.rttm") == {"a": [(0.5, 1.5, "spoof"), (2, 3, "NOSCORE")]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("SPEAKER a 1 0 1 <NA> <NA> spoof", "line 1: it has 8 fields and not 10"),
        ("TALKER a 1 0 1 <NA> <NA> spoof <NA> <NA>", "its type 'TALKER' is none of RTTM's"),
        ("SPEAKER a 1 0 -1 <NA> <NA> spoof <NA> <NA>", "'0' and '-1' are not a start and a duration"),
        ("SPEAKER a 1 x 1 <NA> <NA> spoof <NA> <NA>", "'x' and '1' are not a start and a duration"),
        ("SPEAKER a 1 0 nan <NA> <NA> spoof <NA> <NA>", "'0' and 'nan' are not a start and a duration"),
        ("", "has no line of the type SPEAKER"),
        ("utterance_id score", "its type 'utterance_id' is none"),
    ],
)
def test_invalid_files(tmp_path, line, message):
    (tmp_path / "a.rttm").write_text(line + "\n")
    with pytest.raises(ScoreFileError, match=message):
        read_rttm(tmp_path / "a.rttm")


def test_bytes_that_are_not_text(tmp_path):
    (tmp_path / "a.rttm").write_bytes(b"SPEAKER \xff")
    with pytest.raises(ScoreFileError, match=r"a\.rttm is not an RTTM file"):
        read_rttm(tmp_path / "a.rttm")
