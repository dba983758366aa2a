"""Tables that cannot be read, and those whose files number the classes differently, which would be read wrongly."""

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from hf_gradalign.data import CorpusError, load_corpus, stream_corpus


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


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
@pytest.mark.parametrize("other", [["fake", "real"], None, ["real", "fake", "noise"]], ids=str)
def test_files_of_a_split_that_number_the_classes_differently(tmp_path, ending, other):
    write(tmp_path / "train-00000-of-00002", ["real", "fake"], ending)
    write(tmp_path / "train-00001-of-00002", other, ending)
    pattern = f"{tmp_path}/*.{ending}"
    with pytest.raises(CorpusError, match="do not number the classes of the column 'label' alike: real/fake and "):
        load_corpus(pattern, splits=("train",))
    with pytest.raises(CorpusError, match="do not number the classes"):
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
        with pytest.raises(CorpusError, match=r"README.md and .*do not number the classes .*: fake/real and real/fake"):
            load(str(tmp_path))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "home").touch()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "home" / "datasets")
    with pytest.raises(
        CorpusError, match=r"demo corpus as a data set: .*in another folder, set HF_HOME or HF_DATASETS"
    ):
        load_corpus(splits=("test",))
