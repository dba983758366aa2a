import json

import pytest

from hf_gradalign.data import CorpusError
from hf_gradalign.data.metadata_folder import find_metadata, read_metadata


def _read(folder):
    return read_metadata(find_metadata(folder), audio_column="audio", train_split="train")


def _summary(corpus):
    return {split: [path.rsplit("/", 1)[1] for path in dataset["audio"]] for split, dataset in corpus.items()}


def test_no_metadata_is_found_where_there_is_none(tmp_path):
    (tmp_path / "train").mkdir()
    assert find_metadata(tmp_path) == {}


def test_split_column(tmp_path):
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,split\nx/a.wav,spoof,train\nx/b.wav,real,test\nx/c.wav,real,\n"
    )
    corpus = _read(tmp_path)
    assert _summary(corpus) == {"train": ["a.wav", "c.wav"], "test": ["b.wav"]}
    assert corpus["train"][0] == {"audio": str(tmp_path / "x/a.wav"), "label": "spoof"}


def test_split_from_the_first_folder(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/sub/a.wav,spoof\ntest/b.wav,real\n")
    assert _summary(_read(tmp_path)) == {"train": ["a.wav"], "test": ["b.wav"]}


def test_folders_that_are_no_splits(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\nwavs/a.wav,spoof\nb.wav,real\n")
    assert _summary(_read(tmp_path)) == {"train": ["a.wav", "b.wav"]}


def test_one_file_a_split(tmp_path):
    for split, suffix in (("train", "csv"), ("dev", "jsonl")):
        (tmp_path / split).mkdir()
        row = "file_name,label\na.wav,spoof\n" if suffix == "csv" else json.dumps({"file_name": "b.wav", "label": 1})
        (tmp_path / split / f"metadata.{suffix}").write_text(row)
    corpus = _read(tmp_path)
    assert _summary(corpus) == {"train": ["a.wav"], "dev": ["b.wav"]}
    assert corpus["dev"][0] == {"audio": str(tmp_path / "dev/b.wav"), "label": 1}


def test_csv_values_stay_text(tmp_path):
    # pandas would make numbers of ids, and a missing value of the name NA.
    text = '\ufefffile_name,label,speaker,text\na.wav,1,0007,"a, b"\nb.wav,0,NA,\n'
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    rows = list(_read(tmp_path)["train"])
    assert [row["speaker"] for row in rows] == ["0007", "NA"]
    assert [row["text"] for row in rows] == ["a, b", None]
    assert [row["label"] for row in rows] == ["1", "0"]


def test_jsonl_rows_need_not_be_alike(tmp_path):
    lines = [{"file_name": "a.wav", "label": 1}, {"file_name": "b.wav", "label": 0, "system": "A01"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert list(_read(tmp_path)["train"]["system"]) == [None, "A01"]


def test_absolute_paths_stay(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\n/elsewhere/a.wav,real\n")
    assert list(_read(tmp_path)["train"]["audio"]) == ["/elsewhere/a.wav"]


def test_the_audio_column_may_be_called_otherwise(tmp_path):
    (tmp_path / "metadata.csv").write_text("wav,label\na.wav,real\n")
    corpus = read_metadata(find_metadata(tmp_path), audio_column="wav", train_split="train")
    assert corpus["train"][0] == {"wav": str(tmp_path / "a.wav"), "label": "real"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "", r"metadata.csv has no rows"),
        ("metadata.csv", "file_name,label\n", r"metadata.csv has no rows"),
        ("metadata.csv", "path,label\na,b\n", r"no column 'file_name'.*path, label.*--audio_column_name"),
        ("metadata.csv", "file_name,label\na\n", r"metadata.csv, line 2: not 2 values"),
        ("metadata.csv", "file_name,label\na,b,c\n", r"metadata.csv, line 2: not 2 values"),
        ("metadata.csv", "file_name,label\n,b\n", r"rows without a file name in the column 'file_name'"),
        ("metadata.jsonl", "{oops", r"Cannot read .*metadata.jsonl"),
        ("metadata.jsonl", "[1]", r"each line must be a JSON object"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message):
        _read(tmp_path)


def test_not_utf_8(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\n\xff\xfe.wav,real\n")
    with pytest.raises(CorpusError, match=r"Cannot read .*metadata.csv.*utf-8"):
        _read(tmp_path)
