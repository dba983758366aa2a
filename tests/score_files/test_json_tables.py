"""Rows of JSON and JSON Lines as score files."""

import json

import numpy as np
import pytest

from hf_gradalign.score_files import ScoreFileError, read_scores

IDS = ["LA_E_1000147", "LA_E_1000273", "LA_E_1000791"]
SCORES = [1.25, -0.5, 3.0]


@pytest.fixture
def write(tmp_path):
    def write(text, name):
        path = tmp_path / name
        path.write_bytes(text.encode())
        return path

    return write


def test_objects_in_rows_of_json(write):
    ids = [{"path": f"x/{name}", "bytes": None} for name in IDS]
    meta = [{"score": 9, "lang": "en"}, {"lang": "de"}, {}]
    more = [{"lang": "fr"}] * 3
    rows = [
        {"audio": audio, "scores": {"cm_score": score}, "score": score, "meta": first, "more": second}
        for audio, score, first, second in zip(ids, SCORES, meta, more, strict=True)
    ]
    del rows[0]["score"], rows[1]["scores"], rows[2]["scores"]
    with pytest.raises(ScoreFileError, match="score number 2 is ''"):
        read_scores(write(json.dumps(rows), "a.json"))  # no row takes its score from elsewhere
    clips = read_scores(write(json.dumps([{**row, "cm_score": row.get("score", SCORES[0])} for row in rows]), "a.json"))
    assert clips.utterance_ids.to_pylist() == [f"x/{name}" for name in IDS]
    assert clips.scores.tolist() == SCORES
    assert clips.columns["meta.lang"].to_pylist() == ["en", "de", ""]
    assert clips.columns["more.lang"].to_pylist() == ["fr"] * 3


def test_predictions_beside_a_label_are_not_the_label(write):
    rows = [
        {"utt": name, "label": label, "output": [{"label": "spoof", "score": 0.9}]}
        for name, label in zip("abcd", ["spoof", "bonafide"] * 2, strict=True)
    ]
    clips = read_scores(write(json.dumps(rows), "a.json"))
    assert clips.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(clips.scores, 0.1)
    for row in rows:
        row["score"] = 1
    with pytest.raises(ScoreFileError, match="a row has score both directly and in 'output'"):
        read_scores(write(json.dumps(rows), "a.json"))


def test_line_separators_in_strings_of_json_lines(write):
    clips = read_scores(write('{"utt": "a\u2028b\x85c", "score": 1}\r\n\n{"utt": "d", "score": 2}\n', "a.jsonl"))
    assert clips.utterance_ids.to_pylist() == ["a\u2028b\x85c", "d"]


def test_row_numbers_are_not_ids_if_rows_have_ids(write):
    rows = {
        str(index): {"utt": name, "score": score} for index, (name, score) in enumerate(zip(IDS, SCORES, strict=True))
    }
    clips = read_scores(write(json.dumps(rows), "pandas.json"))  # orient="index"
    assert clips.utterance_ids.to_pylist() == IDS
    assert clips.scores.tolist() == SCORES
    numbers = {str(index): {"score": score} for index, score in enumerate(SCORES)}
    assert read_scores(write(json.dumps(numbers), "numbers.json")).utterance_ids.to_pylist() == ["0", "1", "2"]
    named = {name: {"path": f"{name}.wav", "score": score} for name, score in zip(IDS, SCORES, strict=True)}
    assert read_scores(write(json.dumps(named), "named.json")).utterance_ids.to_pylist() == IDS
