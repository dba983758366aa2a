import shutil

import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus


@pytest.mark.parametrize(
    "version", ["for-norm", "for-norm/for-norm", "for-2sec/for-2seconds", "for-rerec/for-rerecorded"]
)
def test_every_version(tmp_path, version):
    corpus_trees.fake_or_real(tmp_path, version)
    corpus = load_corpus(f"FoR:{tmp_path}")
    assert list(corpus) == ["train", "validation", "test"]
    assert corpus["test"]["label"][:] == [1, 1, 0, 0]
    assert corpus["test"]["system"][:] == ["-", "-", None, None]
    assert corpus["test"]["utterance_id"][0] == "testing/real/file0.wav_16k.wav_norm.wav_mono.wav_silence"
    everything = [name for clips in corpus.values() for name in clips["utterance_id"]]
    assert len(set(everything)) == 12
    assert len(check_audio(corpus["train"], 16_000)) == 4


def test_the_folder_chooses_the_version(tmp_path):
    for version in ("for-2sec", "for-norm"):
        corpus_trees.fake_or_real(tmp_path, version)
    for given, read in ((tmp_path, "for-norm"), (tmp_path / "for-2sec", "for-2sec")):
        assert f"/{read}/" in load_corpus(f"for:{given}", splits=("testing",))["testing"][0]["audio"]["path"]


def test_an_empty_class(tmp_path):
    root = corpus_trees.fake_or_real(tmp_path)
    for path in (root / "testing" / "fake").iterdir():
        path.unlink()
    with pytest.raises(CorpusError, match="testing/fake holds no audio files"):
        load_corpus(f"for:{root}")


def test_a_missing_split_is_reported(tmp_path, caplog):
    root = corpus_trees.fake_or_real(tmp_path)
    shutil.rmtree(root / "testing")
    assert list(load_corpus(f"for:{root}")) == ["train", "validation"]
    assert "no test part of Fake-or-Real (for-norm/testing/real/ and for-norm/testing/fake/)" in caplog.text
    caplog.clear()
    load_corpus(f"for:{root}", splits=("train",))
    assert not caplog.records
