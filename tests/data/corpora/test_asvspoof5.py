import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus


def test_the_official_layout(tmp_path):
    corpus_trees.asvspoof5(tmp_path)
    corpus = load_corpus(f"ASVspoof 5:{tmp_path}")
    assert list(corpus) == ["train", "validation", "test"]
    assert corpus["train"]["utterance_id"][:] == ["T_0000000000", "T_0000000001"]
    assert corpus["train"]["label"][:] == [0, 1]
    assert corpus["train"]["system"][:] == ["A05", "-"]
    assert corpus["test"]["speaker"][:] == ["E_1607", "E_3614"]
    assert corpus["test"]["gender"][:] == ["M", "F"]
    assert corpus["test"]["codec"][:] == ["C05", "-"]
    for clips in corpus.values():
        assert len(check_audio(clips, 16_000)) == 2


@pytest.mark.parametrize("inside", ["flac_E_eval", "."])
def test_archives_in_folders_of_their_own_and_tabs(tmp_path, inside):
    corpus_trees.asvspoof5(tmp_path)
    for archive, name in (("flac_E_aa", "E_0009538969"), ("flac_E_ab", "E_0009249158")):
        (tmp_path / archive / inside).mkdir(parents=True)
        (tmp_path / "flac_E_eval" / f"{name}.flac").rename(tmp_path / archive / inside / f"{name}.flac")
    (tmp_path / "flac_E_eval").rmdir()
    protocol = tmp_path / "ASVspoof5_protocols" / "ASVspoof5.eval.track_1.tsv"
    corpus_trees.edit(protocol, lambda text: text.replace(b" ", b"\t"))
    assert len(check_audio(load_corpus(f"asvspoof5:{tmp_path}", splits=("eval",))["eval"])) == 2


@pytest.mark.parametrize(
    "lines",
    [
        ["E_1607 E_0009538969 M AC1 A26 spoof", "E_3614 E_0009249158 F - bonafide bonafide"],
        ["E_1607 E_0009538969 - A26 spoof", "E_3614 E_0009249158 - - bonafide"],
    ],
)
def test_shorter_lines_of_other_releases(tmp_path, lines):
    corpus_trees.asvspoof5(tmp_path, {"eval.track_1": lines})
    split = load_corpus(f"asvspoof5:{tmp_path}", splits=("test",))["test"]
    assert (split["label"][:], split["system"][:]) == ([0, 1], ["A26", "-"])
    assert split["gender"][:] == (["M", "F"] if len(lines[0].split()) == 6 else [None, None])
    assert split["codec"][:] == [None, None]


def test_a_protocol_without_keys(tmp_path):
    corpus_trees.asvspoof5(tmp_path, {"eval.track_1": ["E_1607 E_0009538969 M C05"]})
    with pytest.raises(CorpusError, match=r"has no key \(bonafide or spoof\).*another track"):
        load_corpus(f"asvspoof5:{tmp_path}", splits=("test",))
