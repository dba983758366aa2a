import datetime
import json
import logging
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.data.utterance_ids import file_ids, refuse_contradictions_between

N = 4


@pytest.fixture
def save(tmp_path, write_clip):
    """Save a test split of this many clips with a column of ids. Returns its folder."""

    def save(ids, column="utterance_id", feature=None):
        paths = [str(write_clip(f"audio/clip_{index}.wav", 400, seed=index)) for index in range(len(ids))]
        labels = ["spoof" if index % 2 else "real" for index in range(len(ids))]
        features = {"audio": Value("string"), "label": Value("string")}
        if feature is not None:
            features[column] = feature
        rows = {"audio": paths, "label": labels, column: ids}
        dataset = Dataset.from_dict(rows, features=Features(features) if feature is not None else None)
        dataset.save_to_disk(tmp_path / "corpus")
        return str(tmp_path / "corpus")

    return save


def ids_of(folder, **options):
    return load_corpus(folder, splits=("test",), **options)["test"]["utterance_id"][:]


@pytest.mark.parametrize(
    ("ids", "feature", "expected"),
    [
        ([1000, 1001, 1002, 1003], None, ["1000", "1001", "1002", "1003"]),
        ([-3, 0, 7, 2**60], Value("int64"), ["-3", "0", "7", str(2**60)]),
        ([1.0, 2.0, 30.0, 4.0], None, ["1", "2", "30", "4"]),
        ([b"a1", b"a2", "gr\u00f6\u00dfe".encode(), b"a4"], None, ["a1", "a2", "gr\u00f6\u00dfe", "a4"]),
        ([" a1 ", "\ufeffa2", '"a3"', "'a4'\r"], None, ["a1", "a2", "a3", "a4"]),
        (["gro\u0308\u00dfe", "b", "c", "d"], None, ["gr\u00f6\u00dfe", "b", "c", "d"]),
        (["a", "b", "c", "d"], Value("large_string"), ["a", "b", "c", "d"]),
        ([2, 0, 1, 3], ClassLabel(names=["w", "x", "y", "z"]), ["y", "w", "x", "z"]),
        (
            [datetime.date(2026, 11, day) for day in range(1, 5)],
            Value("date32"),
            [f"2026-11-0{day}" for day in range(1, 5)],
        ),
    ],
)
def test_ids_of_any_type_are_text(save, ids, feature, expected):
    corpus = load_corpus(save(ids, feature=feature), splits=("test",))["test"]
    assert corpus["utterance_id"][:] == expected
    assert corpus.features["utterance_id"] == Value("string")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.5, 2.0, 3.0, 4.0], "'utterance_id' holds 1.5, which is not a whole number.*--id_column_name none"),
        ([2.0**60, 2.0, 3.0, 4.0], "too large to be exact"),
        ([[1], [2], [3], [4]], "holds list.*not one id per clip.*--id_column_name"),
        ([b"\xff\xfe", b"a", b"b", b"c"], "holds .*binary, not one id per clip"),
    ],
)
def test_invalid_ids(save, ids, message):
    with pytest.raises(CorpusError, match=message):
        ids_of(save(ids))


@pytest.mark.parametrize(
    "ids", [["a", None, "c", ""], [1, None, 3, None], ["a", "  ", "c", "\ufeff"], [1.0, float("nan"), 3.0, None]]
)
def test_ids_that_are_missing_for_some(save, ids):
    folder = save(ids)
    with pytest.raises(CorpusError, match=r"split 'test': 2 of 4 utterance ids are empty \(rows 2, 4\).*_name none"):
        ids_of(folder)
    assert ids_of(folder, id_column="none") == [f"clip_{index}" for index in range(N)]


def test_a_column_without_any_id(save, caplog):
    assert ids_of(save([None, "", " ", None])) == [f"clip_{index}" for index in range(N)]
    assert "the column of utterance ids is empty, so clips are named by their files" in caplog.text


def test_another_column(save):
    folder = save([7, 8, 9, 10], column="key")
    assert ids_of(folder) == [f"clip_{index}" for index in range(N)]
    corpus = load_corpus(folder, splits=("test",), id_column="key")["test"]
    assert corpus["utterance_id"][:] == ["7", "8", "9", "10"]
    assert corpus["key"][:] == [7, 8, 9, 10]
    with pytest.raises(CorpusError, match=r"has no column 'keys'; its columns are .*key.*--id_column_name"):
        ids_of(folder, id_column="keys")


def test_ids_that_are_text_stay_as_they_are(save, caplog):
    with caplog.at_level(logging.WARNING):
        assert ids_of(save(["b", "a", "d e", "c"])) == ["b", "a", "d e", "c"]
    assert not caplog.records


def test_names_from_files():
    paths = ["/a/x.wav", "/b/x.wav", "/a/y.tar.gz", "/c/.z", None, "", "/a/w.wav", "/a/w.wav", "/a/gro\u0308.wav"]
    expected = ["/a/x.wav", "/b/x.wav", "y.tar", ".z", "row_000004", "row_000005", "row_000006", "row_000007"]
    assert file_ids(pa.array(paths)).to_pylist() == [*expected, "gr\u00f6"]


@pytest.fixture
def write(tmp_path, write_clip):
    """Write clips and a table with one row per clip. Returns the table."""

    def write(*rows, name="clips.jsonl"):
        for row in rows:
            write_clip(row["file_name"], 400, seed=len(row["file_name"]))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def row(file_name, label="real", **more):
    return {"file_name": file_name, "label": label, **more}


def load(path, **options):
    return load_corpus(path, splits=("test",), require_labels=False, **options)["test"]


def test_a_row_that_comes_again_is_left_out_and_no_other_clip_is_renamed(write, caplog):
    clips = load(write(row("a.wav"), row("b.wav", "fake"), row("./b.wav", " FAKE "), row("c.wav"), row("a.wav")))
    assert clips["utterance_id"][:] == ["a", "b", "c"]
    assert clips["label"][:] == [1, 0, 1]
    assert "split 'test': 2 rows repeat earlier ones and are left out: row 3 (" in caplog.text
    assert "a.wav, bonafide)" in caplog.text


def test_repeated_rows_with_their_own_ids(write, caplog):
    clips = load(write(row("a.wav", utterance_id=1), row("b.wav", utterance_id=2), row("a.wav", utterance_id=1)))
    assert clips["utterance_id"][:] == ["1", "2"]
    assert "1 row repeats an earlier one and is left out: row 3" in caplog.text


def test_a_doubled_name_of_different_clips(write, caplog):
    clips = load(write(row("x/a.wav"), row("b.wav"), row("y/a.wav")))
    names = clips["utterance_id"][:]
    assert names[1] == "b"
    assert [Path(name).parent.name for name in (names[0], names[2])] == ["x", "y"]
    assert not caplog.records


def test_a_file_with_other_values_is_kept_and_reported(write, caplog):
    clips = load(write(row("a.wav", start=0), row("b.wav", start=0), row("a.wav", start=2)))
    assert clips["utterance_id"][:] == ["row_000000", "b", "row_000002"]
    assert "1 row names an audio file that an earlier one names, with other values: row 3 (" in caplog.text
    assert "These clips are named by their rows." in caplog.text


def test_a_file_under_two_paths(write, tmp_path, caplog):
    path = write(row("x/a.wav"), row("b.wav"))
    repeats = [row(str(tmp_path / "x/a.wav")), row("x/../x/a.wav"), row(f"{tmp_path}//x/./a.wav")]
    path.write_text(path.read_text() + "".join(json.dumps(entry) + "\n" for entry in repeats))
    assert load(path)["utterance_id"][:] == ["a", "b"]
    assert "3 rows repeat earlier ones" in caplog.text


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize("label", ["spoof", "Fake"])
def test_both_labels_of_one_clip(write, has_ids, label):
    rows = [row("b.wav"), row("a.wav"), row("c.wav", "fake"), row("a.wav", label)]
    if has_ids:
        rows = [{**entry, "utterance_id": entry["file_name"]} for entry in rows]
    message = r"1 clip has both labels: row 2 \(.*a.wav, bonafide\) and row 4 \(.*a.wav, spoof\)"
    with pytest.raises(CorpusError, match=message):
        load(write(*rows))


def test_both_labels_under_different_ids(write):
    path = write(row("a.wav", utterance_id=1), row("a.wav", "fake", utterance_id=2))
    with pytest.raises(CorpusError, match=r"row 1 \(.*a.wav, bonafide\) and row 2 \(.*a.wav, spoof\)"):
        load(path)


def test_an_id_of_two_clips(write):
    path = write(row("a.wav", utterance_id="u"), row("b.wav", utterance_id="v"), row("c.wav", utterance_id="u"))
    with pytest.raises(CorpusError, match=r"1 utterance id is not unique. u: row 1 .*a.wav.* and row 3 .*_name none"):
        load(path)
    assert load(path, id_column="none")["utterance_id"][:] == ["a", "b", "c"]


def test_ids_that_differ_only_in_blanks_are_the_same(write):
    path = write(row("a.wav", utterance_id="u"), row("b.wav", utterance_id="u "))
    with pytest.raises(CorpusError, match="1 utterance id is not unique"):
        load(path)


def test_bytes_are_compared(tmp_path, write_clip):
    data = [write_clip(f"{index}.wav", 400, seed=index).read_bytes() for index in range(3)]
    audio = [{"bytes": data[index], "path": name} for index, name in ((0, "a"), (1, "a"), (0, "a"), (2, "b"))]

    def save(labels):
        DatasetDict({"test": Dataset.from_dict({"audio": audio, "label": labels})}).save_to_disk(tmp_path / "set")
        return str(tmp_path / "set")

    clips = load(save(["real", "fake", "real", "fake"]))
    assert clips["utterance_id"][:] == ["row_000000", "row_000001", "b"]
    assert [row["audio"]["bytes"] for row in clips] == data
    with pytest.raises(CorpusError, match=r"row 1 \(a, bonafide\) and row 3 \(a, spoof\)"):
        load(save(["real", "fake", "fake", "fake"]))


def test_a_file_of_two_splits(write):
    path = write(row("a.wav", split="train"), row("b.wav", "fake", split="train"), row("./a.wav", "fake", split="test"))
    message = r"1 audio files have both labels, such as .*a.wav: bonafide in split 'train', spoof in split 'test'"
    with pytest.raises(CorpusError, match=message):
        load_corpus(path, splits=("train", "test"))
    assert len(load_corpus(path, splits=("train",))["train"]) == 2


def test_data_sets_that_agree(write):
    clips = load(write(row("a.wav"), row("b.wav", "?")))
    refuse_contradictions_between({"one": clips, "two": clips})
