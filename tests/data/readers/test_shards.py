"""The names of the shards that are there show that others are missing."""

import logging
import shutil

import pytest

from hf_gradalign.data import CorpusError, load_corpus, stream_corpus
from hf_gradalign.data.readers import demo_corpus_files
from hf_gradalign.data.readers.shards import report_missing_shards
from hf_gradalign.data.request import CorpusRequest


@pytest.fixture(scope="module")
def partial(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial")
    for name in ("train-00000-of-00003", "train-00002-of-00003", "test-00000-of-00001"):
        shutil.copy(demo_corpus_files()["validation"], folder / f"{name}.parquet")
    return folder


def test_a_folder_without_a_shard_is_refused(partial):
    for load in (load_corpus, stream_corpus):
        with pytest.raises(CorpusError, match=r"1 shard is missing, .*train-00001-of-00003.parquet.*on_missing_audio"):
            load(str(partial), **({"splits": ("train",)} if load is load_corpus else {}))
    assert len(load_corpus(str(partial), splits=("test",))["test"])  # which lacks nothing


def test_remaining_shards_are_used_on_request(partial, caplog):
    clips = []
    for corpus in (str(partial), f"{partial}/train-*.parquet"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            clips.append(load_corpus(corpus, splits=("train",), on_missing_audio="skip", id_column="none")["train"])
        assert "1 shard is missing" in caplog.text
    assert len(clips[0]) == len(clips[1])


@pytest.mark.parametrize(
    ("names", "n_missing"),
    [
        (["train-00000-of-00002-0123456789abcdef.parquet", "train-00001-of-00002-fedcba9876543210.parquet"], 0),
        ([f"train-0000{i}-of-00002-{'0123456789abcdef'[i:][:8] * 4}.parquet" for i in range(2)], 0),
        (["x_1-of-3.tar", "x_2-of-3.tar", "x_3-of-3.tar"], 0),
        (["x_1-of-3.tar", "x_3-of-3.tar", "dev-0-of-9.tar"], 1),
        (["train-0.tar", "train-2.tar", "a-of-b.tar"], 0),
        (["set-1-of-99999999999999.tar"], 0),
        (["a/0-of-2.arrow", "b/1-of-2.arrow"], 2),
    ],
)
def test_names(names, n_missing, tmp_path):
    files = [tmp_path / name for name in names]
    request = CorpusRequest(splits={"train": "train"})
    if not n_missing:
        report_missing_shards(files, request)
        return
    with pytest.raises(CorpusError, match=f"^{n_missing} shard"):
        report_missing_shards(files, request)


def test_only_requested_data_counts(tmp_path):
    shards = ["en/train-00000-of-00001", "de/train-00000-of-00002", "en/test-00000-of-00002"]
    for name in shards:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(demo_corpus_files()["validation"], tmp_path / f"{name}.parquet")
    for name in ("slide 3-of-10.pdf", "model-00002-of-00003.safetensors", "en/train-00000-of-00002.parquet.bak"):
        (tmp_path / name).touch()
    splits = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train-*.parquet\n"
        for name in ("en", "de")
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{splits}---\n")
    assert load_corpus(str(tmp_path), config_name="en", splits=("train",))["train"]
    with pytest.raises(CorpusError, match=r"de/train-00001-of-00002.parquet\."):
        load_corpus(str(tmp_path), config_name="de", splits=("train",))


def test_shards_that_may_count_from_one(tmp_path):
    files = [tmp_path / f"train-{number}-of-4.tar" for number in (1, 2, 3)]
    with pytest.raises(CorpusError, match=r"^1 shard is .*train-0-of-4.tar \(or train-4-of-4.tar\)\."):
        report_missing_shards(files, CorpusRequest(splits={"train": "train"}))


def test_shards_that_were_not_requested(tmp_path, caplog):
    for number in range(2):
        shutil.copy(demo_corpus_files()["validation"], tmp_path / f"train-0000{number}-of-00002-{number:032x}.parquet")
    load_corpus(f"{tmp_path}/train-00000*.parquet", splits=("train",))
    assert "missing" not in caplog.text
    assert set(load_corpus(f"{tmp_path}/*.parquet", splits=("train",), id_column="none")) == {"train"}
