import datetime
import logging

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.data.utterance_ids import file_ids

N = 4


@pytest.fixture
def save(tmp_path, write_clip):
    """Save a test split of so many clips with a column of ids; gives its folder."""

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
        ([1.5, 2.0, 3.0, 4.0], "'utterance_id' holds 1.5, which is no whole number.*--id_column_name none"),
        ([2.0**60, 2.0, 3.0, 4.0], "too large a one to be exact"),
        ([[1], [2], [3], [4]], "holds list.*not one id per clip.*--id_column_name"),
        ([b"\xff\xfe", b"a", b"b", b"c"], "holds .*binary, not one id per clip"),
    ],
)
def test_what_cannot_be_an_id(save, ids, message):
    with pytest.raises(CorpusError, match=message):
        ids_of(save(ids))


@pytest.mark.parametrize(
    "ids", [["a", None, "c", ""], [1, None, 3, None], ["a", "  ", "c", "\ufeff"], [1.0, float("nan"), 3.0, None]]
)
def test_ids_that_are_not_there_for_all(save, ids):
    folder = save(ids)
    with pytest.raises(CorpusError, match=r"split 'test': 2 of 4 utterance ids are empty \(rows 2, 4\).*_name none"):
        ids_of(folder)
    assert ids_of(folder, id_column="none") == [f"clip_{index}" for index in range(N)]


def test_a_column_without_any_id(save, caplog):
    assert ids_of(save([None, "", " ", None])) == [f"clip_{index}" for index in range(N)]
    assert "the column of utterance ids is empty; clips are named by their files" in caplog.text


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
