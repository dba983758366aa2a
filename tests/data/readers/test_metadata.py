import json

import pytest

from hf_gradalign.data import CorpusError
from hf_gradalign.data.readers import read_source
from hf_gradalign.data.readers.metadata import find_metadata, read_metadata
from hf_gradalign.data.request import CorpusRequest
from hf_gradalign.utils.folder_listing import list_folder


def _read(folder, audio_column="audio"):
    return read_metadata(find_metadata(list_folder(folder)), audio_column=audio_column, train_split="train")


def _summary(corpus):
    return {split: [path.rsplit("/", 1)[1] for path in dataset["audio"]] for split, dataset in corpus.items()}


def test_folders_without_metadata(tmp_path):
    (tmp_path / "train").mkdir()
    assert find_metadata(list_folder(tmp_path)) == []


def test_split_column(tmp_path):
    (tmp_path / "metadata.csv").write_text(
        "file_name,label,split\nx/a.wav,spoof,train\nx/b.wav,real,test\nx/c.wav,real,\n"
    )
    corpus = _read(tmp_path)
    assert _summary(corpus) == {"train": ["a.wav", "c.wav"], "test": ["b.wav"]}
    assert corpus["train"][0] == {"audio": str(tmp_path / "x/a.wav"), "label": "spoof"}


def test_rows_without_a_split_are_reported(tmp_path, caplog):
    (tmp_path / "metadata.csv").write_text("file_name,split\na.wav,train\nb.wav,\nc.wav,test\n")
    _read(tmp_path)
    assert "1 of 3 rows name no split and are assigned to 'train'" in caplog.text
    caplog.clear()
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/a.wav,real\nb.wav,real\ntest/c.wav,real\n")
    _read(tmp_path)
    assert "1 of 3 rows name no split and are assigned to 'train'" in caplog.text


@pytest.mark.parametrize(
    ("column", "values", "is_told"),
    [
        ("subset", ["train", "dev", "eval"], True),
        ("Finetuning Set", ["Train", "Test", ""], True),
        ("subset", ["train", "train", "train"], False),
        ("condition", ["train", "bus", "street"], False),
        ("split", ["train", "dev", "test"], False),
    ],
)
def test_splits_in_a_column_of_another_name_are_reported(column, values, is_told, tmp_path, caplog):
    rows = "".join(f"{number}.wav,{value}\n" for number, value in enumerate(values))
    (tmp_path / "metadata.csv").write_text(f"file_name,{column}\n{rows}")
    _read(tmp_path)
    assert (f"the column {column!r}" in caplog.text and "all 3 rows belong to 'train'" in caplog.text) == is_told
    assert is_told or caplog.text == ""


ROWS = [
    ("x/a.wav", "spoof", "train", "A01"),
    (" ./x/b.wav", "spoof ", "train\u00a0", " A01"),
    ('"x/c.wav"', "", "", ""),
]


def test_values_are_stripped(tmp_path):
    names = ("file_name", " label", "split ", "\ufeffsystem")
    text = "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in ROWS)
    (tmp_path / "metadata.jsonl").write_text(text)
    corpus = _read(tmp_path)
    assert corpus["train"]["audio"][:] == [str(tmp_path / "x" / name) for name in ("a.wav", "b.wav", "c.wav")]
    assert corpus["train"]["label"][:] == ["spoof", "spoof", ""]
    assert corpus["train"]["system"][:] == ["A01", "A01", ""]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav", "label": 0, "label ": 1}')
    with pytest.raises(CorpusError, match="names a column twice, except for spaces: 'file_name', 'label', 'label '"):
        _read(tmp_path)


def test_labels_given_twice(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.wav", "label": "spoof", "label": "bonafide"}')
    with pytest.raises(CorpusError, match="an object has two different values for 'label'"):
        _read(tmp_path)


def test_line_separators_in_texts(tmp_path):
    rows = [{"file_name": "a.wav", "text": "x\u2028y"}, {"file_name": "b.wav", "text": "z"}]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "metadata.jsonl").write_bytes(text.encode())
    assert _read(tmp_path)["train"]["text"][:] == ["x\u2028y", "z"]


def test_split_from_the_first_folder(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/sub/a.wav,spoof\ntest/b.wav,real\n")
    assert _summary(_read(tmp_path)) == {"train": ["a.wav"], "test": ["b.wav"]}


def test_folders_that_are_not_splits(tmp_path):
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
    # pandas would read ids as numbers, and the name NA as a missing value.
    text = '\ufefffile_name,label,speaker,text\na.wav,1,0007,"a, b"\nb.wav,0,NA,\n'
    (tmp_path / "metadata.csv").write_text(text, encoding="utf-8")
    rows = list(_read(tmp_path)["train"])
    assert [row["speaker"] for row in rows] == ["0007", "NA"]
    assert [row["text"] for row in rows] == ["a, b", None]
    assert [row["label"] for row in rows] == ["1", "0"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("column", ["file_name", "path"])
def test_other_delimiters(tmp_path, delimiter, column):
    rows = [f'"{column}";label;text', '"a;b.wav";spoof;1', "c.wav;real;2"]
    lines = [row.replace("b.wav", "b,c|d.wav").replace(";", delimiter) for row in rows]
    (tmp_path / "metadata.csv").write_text("\ufeff" + "\r\n".join(lines))
    corpus = _read(tmp_path, "path")
    name = f"a{delimiter}b,c|d.wav"
    assert corpus["train"]["path"][:] == [str(tmp_path / name), str(tmp_path / "c.wav")]
    assert corpus["train"]["label"][:] == ["spoof", "real"]


def test_commas_come_first(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,a;b;c\nx.wav,1\n")
    assert _read(tmp_path)["train"].column_names == ["audio", "a;b;c"]


def test_jsonl_rows_may_differ(tmp_path):
    lines = [{"file_name": "a.wav", "label": 1}, {"file_name": "b.wav", "label": 0, "system": "A01"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert list(_read(tmp_path)["train"]["system"]) == [None, "A01"]


def test_absolute_paths_stay(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\n/elsewhere/a.wav,real\n")
    assert list(_read(tmp_path)["train"]["audio"]) == ["/elsewhere/a.wav"]


def test_the_audio_column_may_have_another_name(tmp_path):
    (tmp_path / "metadata.csv").write_text("wav,label\na.wav,real\n")
    corpus = _read(tmp_path, "wav")
    assert corpus["train"][0] == {"wav": str(tmp_path / "a.wav"), "label": "real"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "", r"metadata.csv has no rows"),
        ("metadata.csv", "file_name,label\n", r"metadata.csv has no rows"),
        ("metadata.csv", "path,label\na,b\n", r"no column 'file_name'.*path, label.*--audio_column_name"),
        ("metadata.csv", "path;label\na;b\n", r"no column 'file_name'.*path, label.*--audio_column_name"),
        ("metadata.csv", "file_name,label\na\n", r"metadata.csv, line 2: not 2 values"),
        ("metadata.csv", "file_name,label\na,b,c\n", r"metadata.csv, line 2: not 2 values"),
        ("metadata.csv", "file_name,label\n,b\n", r"rows without a file name in the column 'file_name'"),
        ("metadata.jsonl", "{oops", r"Cannot read .*metadata.jsonl"),
        ("metadata.jsonl", "[1]", r"each line must be a JSON object"),
    ],
)
def test_unreadable_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message):
        _read(tmp_path)


def test_not_utf_8(tmp_path):
    (tmp_path / "metadata.csv").write_bytes(b"file_name,label\n\xff\xfe.wav,real\n")
    with pytest.raises(CorpusError, match=r"Cannot read .*metadata.csv.*utf-8"):
        _read(tmp_path)


@pytest.fixture
def write(tmp_path):
    """Write text files. Returns their folder."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_deep_files_of_splits(write):
    folder = write(
        {
            "data/train/metadata.csv": "file_name,label\na.wav,spoof\n",
            "data/dev/part1/metadata.csv": "file_name,label,system\nb.wav,spoof,A01\n",
            "data/dev/part2/metadata.jsonl": '{"file_name": "c.wav", "label": 1}\n',
            "data/extra/metadata.csv": "file_name,label\nd.wav,spoof\n",
        }
    )
    corpus = _read(folder)
    assert _summary(corpus) == {"dev": ["b.wav", "c.wav"], "extra": ["d.wav"], "train": ["a.wav"]}
    assert corpus["dev"][0]["audio"] == str(folder / "data/dev/part1/b.wav")
    assert corpus["dev"]["system"][:] == ["A01", None]
    assert corpus["dev"]["label"][:] == ["spoof", "1"]


def test_one_deep_file_has_a_split_column(write):
    folder = write({"archive/corpus/metadata.csv": "file_name,label,split\na.wav,spoof,train\nb.wav,real,test\n"})
    assert _summary(_read(folder)) == {"train": ["a.wav"], "test": ["b.wav"]}


def test_files_of_class_folders_are_of_one_split(write):
    rows = "file_name,label\na{0}.wav,{0}\n"
    folder = write({f"{place}/metadata.csv": rows.format(place) for place in ("real", "fake")})
    assert _summary(_read(folder)) == {"train": ["afake.wav", "areal.wav"]}


def test_names_of_requested_splits(write):
    folder = write({f"{place}/metadata.csv": "file_name,label\na.wav,real\n" for place in ("clean", "noisy")})
    assert list(_read(folder)) == ["train"]
    assert [metadata.split for metadata in find_metadata(list_folder(folder), ["noisy"])] == ["clean", "noisy"]


def test_a_metadata_file_that_another_one_hides_is_named(write, caplog):
    row = "file_name,label\n{}.wav,real\n"
    folder = write({"metadata.csv": row.format("a"), "metadata.jsonl": "{}", "train/metadata.csv": row.format("b")})
    assert _summary(_read(folder)) == {"train": ["a.wav"]}
    assert f"Not read, because there is another metadata file for the same folder: {folder / 'metadata.jsonl'}" in (
        caplog.text
    )
    assert str(folder / "train" / "metadata.csv") in caplog.text


def test_hidden_metadata_is_ignored(write):
    folder = write({"._metadata.csv": "", "train/._metadata.csv": "", ".old/metadata.csv": ""})
    assert find_metadata(list_folder(folder)) == []


def test_audio_that_no_metadata_names_is_reported(write, monkeypatch, caplog):
    rows = "file_name,label\na.wav,real\nlinked/b.wav,real\n"
    folder = write({"metadata.csv": rows, "a.wav": "", "c.wav": "", "real/b.wav": "", "notes.txt": ""})
    (folder / "linked").symlink_to(folder / "real")
    monkeypatch.chdir(folder.parent)
    read_source(folder.name, CorpusRequest({"train": "train"}))
    assert f"{folder.name}: 1 of 3 audio files are in no metadata file and are left out: {folder.name}/c.wav." in (
        caplog.text
    )
    assert "Left out: 1 file that is not audio (1 .txt)." in caplog.text


def test_values_of_several_types_become_text(write):
    lines = [{"file_name": "a.wav", "label": "real", "id": 1}, {"file_name": "b.wav", "label": "fake", "id": "x"}]
    folder = write({"metadata.jsonl": "\n".join(map(json.dumps, lines))})
    assert _read(folder)["train"]["id"][:] == ["1", "x"]


LJSPEECH = 'LJ001-0001|Printing, in "the only sense|Printing, in the only sense\n'


def test_transcripts_called_metadata_do_not_hide_class_folders(write, caplog):
    folder = write({"real/LJSpeech-1.1/metadata.csv": LJSPEECH, "real/LJSpeech-1.1/wavs/LJ001-0001.wav": ""})
    write({"fake/melgan/LJ001-0001_gen.wav": ""})
    corpus = read_source(str(folder), CorpusRequest(splits={"train": "train"}))
    assert sorted(corpus["train"]["label"]) == ["fake", "real"]
    assert "has none of the columns file_name, audio, label, split: " in caplog.text
    assert "LJSpeech-1.1/metadata.csv" in caplog.text


def test_transcripts_called_metadata_do_not_hide_metadata_below(write):
    folder = write({"metadata.csv": LJSPEECH, "wavs/metadata.csv": '"file_name"|"label"\n"a.wav"|"real"\n'})
    corpus = read_source(str(write({"wavs/a.wav": ""})), CorpusRequest(splits={"train": "train"}))
    assert corpus["train"]["audio"][:] == [str(folder / "wavs" / "a.wav")]


def test_metadata_with_labels_must_name_files(write):
    folder = write({"metadata.csv": "filename,label\na.wav,real\n", "real/a.wav": ""})
    with pytest.raises(CorpusError, match=r"no column 'file_name'.*its columns are filename, label"):
        read_source(str(folder), CorpusRequest(splits={"train": "train"}))


TABLE = "file_name,label\nreal/a.wav,fake\n"


@pytest.mark.parametrize(
    ("table", "error"),
    [
        (TABLE.encode("utf-16"), "is it UTF-8 text"),
        (TABLE.encode("utf-16-le"), "line 3: not 2 values"),
        ("Störung,Klasse\nreal/a.wav,fake\n".encode("latin-1"), "is it UTF-8 text"),
        (b"File_Name,Label\nreal/a.wav,fake\n", "no column 'file_name'.*its columns are File_Name, Label"),
        (b"sep=;\nfile_name;label\nreal/a.wav;fake\n", "the first line, 'sep=;', is only for Excel. Remove this line"),
        (b'\xef\xbb\xbf"SEP=,"\r\nFile,Label\r\n', "the first line, 'SEP=,', is only for Excel"),
        (b"\nFile_Name,Label\nreal/a.wav,fake\n", "has no rows"),
        (b"", "has no rows"),
    ],
)
def test_class_folders_do_not_label_clips_if_the_table_cannot_be_read(table, error, write):
    folder = write({"metadata.csv": "", "real/a.wav": ""})
    (folder / "metadata.csv").write_bytes(table)
    with pytest.raises(CorpusError, match=error):
        read_source(str(folder), CorpusRequest(splits={"train": "train"}))


def test_transcripts_of_excel_called_metadata_do_not_hide_class_folders(write):
    folder = write({"metadata.csv": "sep=|\nid|text\n1|one\n", "real/a.wav": ""})
    assert read_source(str(folder), CorpusRequest(splits={"train": "train"}))["train"]["label"][:] == ["real"]


@pytest.mark.parametrize("name", ["clips.tsv", "CLIPS.TSV"])
@pytest.mark.parametrize("given", ["{}", "[cC]*"])
def test_a_table_with_tabs(write, name, given):
    folder = write({name: "file_name\tlabel\na, b.wav\treal\nc.wav\tfake\n"})
    corpus = read_source(str(folder / given.format(name)), CorpusRequest(splits={"train": "train"}))
    assert corpus["train"]["label"][:] == ["real", "fake"]
    assert _summary(corpus) == {"train": ["a, b.wav", "c.wav"]}
