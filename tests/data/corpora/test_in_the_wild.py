import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus


@pytest.mark.parametrize("above", [0, 1])
def test_the_official_layout(tmp_path, above):
    folder = corpus_trees.in_the_wild(tmp_path)
    corpus = load_corpus(f"in-the-wild:{[folder, tmp_path][above]}")
    assert list(corpus) == ["test"]
    split = corpus["test"]
    assert split["utterance_id"][:] == ["0", "1", "2"]
    assert split["label"][:] == [0, 0, 1]
    assert split["speaker"][:] == ["Alec Guinness", "Alec Guinness", "Al Gore"]
    assert split["system"][:] == [None, None, "-"]
    assert len(check_audio(split, 16_000)) == 3


def test_a_byte_order_mark_windows_line_ends_and_quotes(tmp_path):
    folder = corpus_trees.in_the_wild(tmp_path)
    text = b'\xef\xbb\xbf"file","speaker","label"\r\n0.wav,"Guinness, Alec",spoof\r\n'
    (folder / "meta.csv").write_bytes(text)
    assert load_corpus(f"in_the_wild:{folder}")["test"]["speaker"][:] == ["Guinness, Alec"]


def test_all_of_it_can_be_trained_on_if_asked_for(tmp_path, caplog):
    folder = corpus_trees.in_the_wild(tmp_path)
    assert len(load_corpus(f"in_the_wild:{folder}", splits=("train",))["train"]) == 3
    assert "In-the-Wild has no partition, so all of its clips are used for training" in caplog.text


def test_a_corrupt_line(tmp_path):
    folder = corpus_trees.in_the_wild(tmp_path)
    corpus_trees.edit(folder / "meta.csv", lambda text: text + b"3.wav,spoof\n")
    with pytest.raises(CorpusError, match=r"meta.csv, line 5: not 3 values: '3.wav,spoof'"):
        load_corpus(f"in_the_wild:{folder}")
