"""Which column has the scores, and when that is not clear enough."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_gradalign.score_files import ScoreFileError, read_scores

N = 60
PROBABILITIES = [f"{(k + 1) / (N + 2):.3f}" for k in range(N)]
OTHERS = [f"{k % 7 + 0.25:.2f}" for k in range(N)]
NAMES = [f"u{k}" for k in range(N)]


@pytest.fixture
def write(tmp_path):
    def write(header, *columns, separator=","):
        rows = [*([header] if header else []), *zip(*columns, strict=True)]
        path = tmp_path / "scores.csv"
        path.write_text("".join(f"{separator.join(row)}\n" for row in rows), encoding="utf-8")
        return path

    return write


def damaged(values, odd, index=3):
    return [*values[:index], odd, *values[index + 1 :]]


@pytest.mark.parametrize("odd", ["n/a", "", "nan?", "[0.62]"])
@pytest.mark.parametrize("other", ["snr", "column of anything"])
@pytest.mark.parametrize("name", ["prob_real", "x"])
def test_an_odd_value_gives_the_role_to_no_other_column(write, odd, other, name):
    path = write(["file", name, other], NAMES, damaged(PROBABILITIES, odd), OTHERS)
    with pytest.raises(ScoreFileError, match=rf"{name} could be the scores\. .*number 4 of {name} is .*--score_column"):
        read_scores(path)
    with pytest.raises(ScoreFileError, match="score number 4 is"):
        read_scores(path, score_column=name)
    path = write(["file", name, "y"], NAMES, damaged(PROBABILITIES, odd, N - 1), OTHERS)
    with pytest.raises(ScoreFileError, match=f"{name}, y could be the scores"):
        read_scores(path)


def test_odd_values_without_a_header(write):
    path = write(None, NAMES, damaged(PROBABILITIES, "nan?"), OTHERS, separator=" ")
    with pytest.raises(ScoreFileError, match="column_3, column_2 could be the scores"):
        read_scores(path)


def test_columns_of_text_with_numbers(write):
    path = write(["file", "bonafide", "spoof", "gap"], NAMES, *[[f"[{p}]" for p in PROBABILITIES]] * 2, OTHERS)
    with pytest.raises(ScoreFileError, match=r"gap, bonafide, spoof could be the scores\. Value number 1 of bonafide"):
        read_scores(path)


def test_ids_are_found_by_name_before_the_first_column_counts_as_ids(write):
    with pytest.raises(ScoreFileError, match="bonafide_prob, gap could be the scores"):
        read_scores(write(["bonafide_prob", "gap", "file"], PROBABILITIES, OTHERS, NAMES))


@pytest.mark.parametrize("other", ["duration", "SNR", "speaker_id", "sample-rate", "Epoch", "id"])
def test_columns_that_are_never_scores(write, other):
    clips = read_scores(write([other, "prob", "file"], OTHERS, PROBABILITIES, NAMES))
    assert clips.scores.tolist() == list(map(float, PROBABILITIES))
    assert clips.utterance_ids.to_pylist() == NAMES
    with pytest.raises(ScoreFileError, match="none of them could be the scores"):
        read_scores(write(["file", other, "text"], NAMES, OTHERS, ["hello"] * N))


@pytest.mark.parametrize("name", ["score", "prob_real", "bonafide"])
@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_lists_give_the_role_to_no_other_column(tmp_path, name, suffix):
    path = tmp_path / f"scores.{suffix}"
    columns = {"file": ["a", "b"], name: [[0.1], [0.2]], "x": [0.3, 0.4]}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    with pytest.raises(ScoreFileError, match=f"{name} may be the scores, but contains lists or objects"):
        read_scores(path)
    assert read_scores(path, score_column="x").scores.tolist() == [0.3, 0.4]


def test_lists_beside_a_column_of_scores_do_not_matter(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text(json.dumps({name: {"score": 0.5, "meta": {"logits": [0, 1]}} for name in "ab"}))
    assert read_scores(path).scores.tolist() == [0.5, 0.5]
    classes = [{"label": "fake", "score": 0.4}, {"label": "real", "score": 0.6}]
    path.write_text(json.dumps({"results": [{"utt": name, "scores": classes} for name in "ab"]}))
    assert read_scores(path).scores.tolist() == [0.6, 0.6]
    path.write_text(json.dumps({"results": [{"utt": name, "scores": [1, 2], "x": 3} for name in "ab"]}))
    with pytest.raises(ScoreFileError, match="scores may be the scores, but contains lists"):
        read_scores(path)
    path.write_text('{"a": null}')
    with pytest.raises(ScoreFileError, match="none of them could be the scores"):
        read_scores(path)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_one_column_per_class_in_any_order(write, order):
    columns = [("p_real", PROBABILITIES), ("p_fake", [f"{1 - float(p):.3f}" for p in PROBABILITIES]), ("file", NAMES)]
    columns = [columns[index] for index in order]
    clips = read_scores(write([name for name, _ in columns], *[values for _, values in columns]))
    assert clips.scores.tolist() == list(map(float, PROBABILITIES))
    assert clips.utterance_ids.to_pylist() == NAMES


def test_speakers_are_not_ids(write):
    clips = read_scores(write(["score", "speaker"], PROBABILITIES, NAMES))
    assert clips.utterance_ids.to_pylist() == [str(k + 1) for k in range(N)]
    assert "has no utterance ids" in clips.notes[0]


def test_scores_of_spoof_are_recognized_in_the_first_column(write):
    with pytest.raises(ScoreFileError, match="refers to spoof"):
        read_scores(write(["p_spoof", "duration", "file"], PROBABILITIES, OTHERS, NAMES))


def test_numbers_around_names_without_a_header(write):
    for columns in ((PROBABILITIES, NAMES, OTHERS), (OTHERS, NAMES, PROBABILITIES)):
        with pytest.raises(ScoreFileError, match="column_1, column_3 could be the scores"):
            read_scores(write(None, *columns, separator=" "))
    clips = read_scores(write(None, PROBABILITIES, NAMES, separator=" "))
    assert clips.utterance_ids.to_pylist() == NAMES
    assert clips.scores.tolist() == list(map(float, PROBABILITIES))


def test_a_note_names_a_column_whose_name_does_not_say_scores(write):
    for name, has_note in (("output", True), ("prob", False), ("Bona Fide", False)):
        notes = read_scores(write(["file", name], NAMES, PROBABILITIES)).notes
        assert ["its column 'output', because no other" in note for note in notes] == [True] * has_note
        assert read_scores(write(["file", name], NAMES, PROBABILITIES), score_column=name).notes == ()


@pytest.mark.parametrize(
    ("name", "of_trials", "has_note"),
    [("asv-score", False, True), ("asv-score", True, True), ("cm-score", True, True), ("sasv-score", True, False)],
)
def test_a_note_says_that_scores_are_of_another_task(write, name, of_trials, has_note):
    path = write(["file", name], NAMES, PROBABILITIES)
    notes = read_scores(path, of_trials=of_trials).notes
    assert [f"Its column '{name}' is evaluated instead" in note for note in notes] == [True] * has_note
    assert read_scores(path, of_trials=of_trials, score_column=name).notes == ()
