import json

import numpy as np
import pytest

from hf_gradalign.data import CorpusError, decode_audio, load_corpus, stream_corpus


def members(clip, label, *names, suffix="wav", **values):
    """Clips of shards, each with its label in a .cls and values in a .json file."""
    made = {}
    for number, name in enumerate(names):
        seed = sum(map(ord, name)) + number
        made[f"{name}.{suffix}"] = clip(seed, suffix)
        made[f"{name}.cls"] = label.encode()
        made[f"{name}.json"] = json.dumps({"system": "A01", **values}).encode()
    return made


def test_shards_of_splits(pack, clip):
    folder = pack("train-00000.tar", members(clip, "spoof", "000", "001")).parent
    pack("train-00001.tar", members(clip, "bonafide", "000", suffix="flac", speaker="p1"))
    pack("validation-00000.tar.gz", members(clip, "real\n", "dir/002", suffix="mp3"))
    corpus = load_corpus(folder)
    assert list(corpus) == ["train", "validation"]
    train = corpus["train"]
    assert train["label"][:] == [0, 0, 1]
    assert train["utterance_id"][:] == ["train-00000/000.wav", "001", "train-00001/000.flac"]
    assert train["__key__"][:] == ["train-00000/000", "train-00000/001", "train-00001/000"]
    assert train["system"][:] == ["A01"] * 3
    assert train["speaker"][:] == [None, None, "p1"]
    assert corpus["validation"]["utterance_id"][:] == ["002"]
    assert len(decode_audio(train[2]["audio"], None)) == 400


def test_the_columns_of_load_dataset(pack, clip):
    path = pack("test-00000.tar", members(clip, "1", "a", suffix="flac") | members(clip, "0", "b", suffix="flac"))
    options = {"audio_column": "flac", "label_column": "cls", "label_map": {"0": "bonafide", "1": "spoof"}}
    for corpus in (path, path.parent, path.parent / "*.tar"):
        split = load_corpus(corpus, splits=("test",), **options)["test"]
        assert dict(zip(split["utterance_id"], split["label"], strict=True)) == {"a": 0, "b": 1}
    with pytest.raises(CorpusError, match=r"Found: '\d' .*--label_map"):
        load_corpus(path, splits=("test",))
    # A single file is the requested split, like a parquet file.
    assert len(load_corpus(path, splits=("train",), **options)["train"]) == 2


@pytest.mark.parametrize(
    "texts",
    [
        {"json": b'{"label": "fake", "seconds": 1.5}'},
        {"json": b'{"key": "fake", "text": "hello"}'},
        {"txt": b"fake"},
        {"text": b"hello there", "lab": b"Deep-Fake"},
        {"json": b'"spoof"'},
    ],
)
def test_where_the_label_may_be(pack, clip, texts):
    path = pack("x.tar", {"a.wav": clip(1)} | {f"a.{ending}": data for ending, data in texts.items()})
    assert load_corpus(path, splits=("test",))["test"]["label"][:] == [0]


def test_ambiguous_labels_need_an_option(pack, clip):
    path = pack("x.tar", {"a.wav": clip(1), "a.json": b'{"voice": "human", "speech": "fake"}'})
    with pytest.raises(CorpusError, match=r"has no column 'label'; its columns are .*voice, speech.*label_column_name"):
        load_corpus(path, splits=("test",))
    assert load_corpus(path, splits=("test",), label_column="speech")["test"]["label"][:] == [0]


def test_folders_may_name_the_class(pack, clip):
    path = pack("x.tar", {"real/a.wav": clip(1), "real/a.txt": b"hello", "fake/b.wav": clip(2), "fake/b.txt": b"you"})
    split = load_corpus(path, splits=("test",))["test"]
    assert dict(zip(split["txt"], split["label"], strict=True)) == {"hello": 1, "you": 0}


def test_names_with_points(pack, clip):
    made = members(clip, "spoof", "1.5s_a", "1.5s_b", "v1.2")
    split = load_corpus(pack("x.tar", made), splits=("test",))["test"]
    assert split["utterance_id"][:] == ["1.5s_a", "1.5s_b", "v1.2"]
    assert split["label"][:] == [0, 0, 0]


def test_several_audio_files_a_clip(pack, clip):
    path = pack("x.tar", {"a.near.wav": clip(1), "a.far.wav": clip(2), "a.cls": b"real"})
    with pytest.raises(CorpusError, match=r"x/a has several audio files: far.wav, near.wav.*--audio_column_name"):
        load_corpus(path, splits=("test",))
    split = load_corpus(path, splits=("test",), audio_column="far.wav")["test"]
    assert split[0]["audio"]["path"].endswith("a.far.wav")


def test_a_clip_without_audio_is_listed_as_bad(pack, clip):
    made = members(clip, "real", "a", "b") | {"README.md": b"about"}
    del made["b.wav"]
    split = load_corpus(pack("x.tar", made), splits=("test",))["test"]
    assert split["utterance_id"][:] == ["a", "b"]
    assert split[1]["audio"] is None


def test_entries_that_are_not_text_are_skipped(pack, clip):
    values = np.zeros(3).tobytes()
    path = pack("x.tar", {"a.wav": clip(1), "a.cls": b"real", "a.npy": b"\x93NUMPY" + values, "a.pyd": b"\x80\x04cos"})
    split = load_corpus(path, splits=("test",))["test"]
    assert set(split.column_names) == {"audio", "label", "utterance_id", "__key__", "cls"}


def test_corrupt_json(pack, clip):
    path = pack("x.tar", {"a.wav": clip(1), "a.json": b"{"})
    with pytest.raises(CorpusError, match=r"x.tar, unpacked: Cannot read .*a.json"):
        load_corpus(path, splits=("test",))


def test_shards_are_streamed_without_a_copy(pack, clip, cache):
    folder = pack("train-00000.tar", members(clip, "1", "a", "b", suffix="flac")).parent
    options = {"audio_column": "flac", "label_column": "cls", "label_map": {"1": "spoof"}}
    for corpus in (folder, folder / "train-00000.tar"):
        rows = list(stream_corpus(str(corpus), **options))
        assert [row["label"] for row in rows] == [0, 0]
        assert len(decode_audio(rows[0]["audio"], None)) == 400
    assert not list(cache.glob("hf_gradalign_unpacked/*"))


def test_shards_that_datasets_cannot_stream_are_unpacked_for_it(pack, clip):
    path = pack("train-00000.tar", members(clip, "spoof", "a") | members(clip, "real", "b"))
    rows = list(stream_corpus(str(path.parent)))
    assert [(row["utterance_id"], row["label"]) for row in rows] == [("a", 0), ("b", 1)]
