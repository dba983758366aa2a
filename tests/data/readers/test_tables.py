"""Tables that cannot be read, and those whose files number the classes differently, which would be read wrongly."""

import errno
import shutil

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_gradalign.data import CorpusError, load_corpus, stream_corpus
from hf_gradalign.data.readers import tables
from hf_gradalign.utils.messages import error_line


def write(path, names, ending="parquet"):
    label = Value("int64") if names is None else ClassLabel(names=names)
    features = Features({"audio": {"bytes": Value("binary"), "path": Value("string")}, "label": label})
    audio = [{"bytes": path.name.encode() + bytes([number]), "path": None} for number in range(2)]
    clips = Dataset.from_dict({"audio": audio, "label": [0, 1]}, features=features)
    path.parent.mkdir(exist_ok=True)
    if ending == "parquet":
        clips.to_parquet(path.with_suffix(".parquet"))
    else:
        clips.save_to_disk(str(path.with_suffix("")))
        next(path.with_suffix("").glob("*.arrow")).rename(path.with_suffix(".arrow"))
        shutil.rmtree(path.with_suffix(""))


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("other", [["fake", "real"], ["real", "fake", "noise"]], ids=str)
def test_files_of_a_split_that_number_the_classes_differently(tmp_path, ending, other):
    write(tmp_path / "train-00000-of-00002", ["real", "fake"], ending)
    write(tmp_path / "train-00001-of-00002", other, ending)
    pattern = f"{tmp_path}/*.{ending}"
    with pytest.raises(CorpusError, match="number the classes of the column 'label' differently: real/fake and "):
        load_corpus(pattern, splits=("train",))
    with pytest.raises(CorpusError, match="number the classes"):
        stream_corpus(pattern)
    labels = load_corpus(f"{tmp_path}/train-00000*.{ending}", splits=("train",))["train"]["label"][:]
    assert labels == [1, 0]


def test_splits_may_number_the_classes_differently(tmp_path):
    write(tmp_path / "train", ["real", "fake"])
    write(tmp_path / "test", ["fake", "real"])
    corpus = load_corpus(str(tmp_path), splits=("train", "test"))
    assert {split: clips["label"][:] for split, clips in corpus.items()} == {"train": [1, 0], "test": [0, 1]}


CARD = """---
dataset_info:
  features:
  - name: audio
    struct:
    - name: bytes
      dtype: binary
    - name: path
      dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': fake
          '1': real
---
"""


@pytest.mark.parametrize(
    ("names", "labels"), [(["fake", "real"], [0, 1]), (None, [0, 1]), (["real", "fake"], None)], ids=str
)
def test_a_readme_that_numbers_the_classes_differently(tmp_path, names, labels):
    write(tmp_path / "train-00000-of-00001", names)
    (tmp_path / "README.md").write_text(CARD)
    if labels is not None:
        assert load_corpus(str(tmp_path), splits=("train",))["train"]["label"][:] == labels
        return
    for load in (load_corpus, stream_corpus):
        with pytest.raises(CorpusError, match=r"README.md and .*number the classes .*: fake/real and real/fake"):
            load(str(tmp_path))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    with pytest.raises(
        CorpusError, match=r"demo corpus as a data set: .*in another folder, set HF_HOME or HF_DATASETS"
    ):
        load_corpus(splits=("test",))


def test_a_cache_without_space(tmp_path, monkeypatch):
    write(tmp_path / "test", ["bonafide", "spoof"])
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def fail(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables, "load_dataset", fail)
    with pytest.raises(CorpusError) as error:
        load_corpus(str(tmp_path), splits=("test",))
    assert f"No space left on device. The cache of data sets is {tmp_path / 'cache'}. Free" in error_line(error.value)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_splits_that_are_read_with_the_names_of_the_first(tmp_path, ending):
    write(tmp_path / "train", ["bonafide", "spoof"], ending)
    write(tmp_path / "validation", ["spoof", "bonafide"], ending)
    for corpus in (str(tmp_path), f"{tmp_path}/*.{ending}"):
        with pytest.raises(CorpusError, match="number the classes"):
            stream_corpus(corpus, split="validation")
        if ending == "arrow":
            with pytest.raises(CorpusError, match="number the classes"):
                load_corpus(corpus, splits=("train", "validation"))
        assert [row["label"] for row in stream_corpus(corpus)] == [1, 0]


def test_only_the_labels_of_the_wanted_splits_count(tmp_path):
    write(tmp_path / "train-00000-of-00002", ["bonafide", "spoof"])
    write(tmp_path / "train-00001-of-00002", ["Bona-fide", "fake"])
    write(tmp_path / "test-00000-of-00003", ["spoof", "bonafide"])
    write(tmp_path / "test-00001-of-00003", ["bonafide", "spoof"])
    (tmp_path / "test-00002-of-00003.parquet").write_bytes(b"cut")
    assert load_corpus(str(tmp_path), splits=("train",))["train"]["label"][:] == [1, 0, 1, 0]
    assert [row["label"] for row in stream_corpus(str(tmp_path))] == [1, 0, 1, 0]
    with pytest.raises(CorpusError, match=r"Cannot read .*test-00002-of-00003\.parquet"):
        stream_corpus(str(tmp_path), split="test")


def test_other_columns_may_be_numbered_differently(tmp_path):
    for number, speaker in enumerate("ab"):
        write(tmp_path / f"clips-{number}", ["bonafide", "spoof"])
        clips = Dataset.from_parquet(str(tmp_path / f"clips-{number}.parquet"))
        numbered = clips.add_column("speaker", [0, 0], feature=ClassLabel(names=[speaker]))
        numbered.to_parquet(tmp_path / f"train-{number}.parquet")
    assert load_corpus(f"{tmp_path}/train-*.parquet", splits=("train",))["train"]["label"][:] == [1, 0, 1, 0]


@pytest.mark.parametrize("labels", [[0, 1], ["real", "fake"]], ids=str)
def test_files_that_pandas_wrote(tmp_path, labels, caplog):
    write(tmp_path / "train-00000-of-00002", ["real", "fake"])
    table = pq.read_table(tmp_path / "train-00000-of-00002.parquet").to_pandas().assign(label=labels)
    table["audio"] = [{"bytes": bytes([number]), "path": None} for number in range(2)]
    table.to_parquet(tmp_path / "train-00001-of-00002.parquet")
    assert load_corpus(str(tmp_path), splits=("train",))["train"]["label"][:] == [1, 0, 1, 0]
    assert ("are read with the names in" in caplog.text) == (labels == [0, 1])


def test_numbers_that_the_label_map_and_the_names_explain_differently(tmp_path):
    write(tmp_path / "train-00000-of-00002", None)
    write(tmp_path / "train-00001-of-00002", ["real", "fake"])
    label_map = {"0": "bonafide", "1": "spoof"}
    assert load_corpus(str(tmp_path), splits=("train",), label_map=label_map)["train"]["label"][:] == [1, 0, 1, 0]
    for other in (None, {"1": "bonafide", "0": "spoof"}):
        with pytest.raises(CorpusError, match="differently: no names and real/fake"):
            load_corpus(str(tmp_path), splits=("train",), label_map=other)
