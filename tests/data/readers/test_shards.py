"""A partial download is told by the names of the shards that are there."""

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


def test_what_is_there_is_used_on_request(partial, caplog):
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
