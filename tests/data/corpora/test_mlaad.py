import shutil

import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus


@pytest.mark.parametrize("is_relative_to_root", [True, False])
@pytest.mark.parametrize("place", [".", "MLAAD", "MLAAD/fake"])
def test_the_official_layout(tmp_path, is_relative_to_root, place):
    corpus_trees.mlaad(tmp_path, is_relative_to_root)
    corpus = load_corpus(f"mlaad:{tmp_path / place}")
    assert list(corpus) == ["test"]
    split = corpus["test"]
    assert set(split["label"]) == {0}
    assert split["utterance_id"][:3] == [
        "fake/de/Edge-TTS/one_01",
        "fake/de/Edge-TTS/two_02",
        "fake/en/OpenAI_TTS-1_HD/one_01",  # one word, for score files
    ]
    assert split["language"][:] == ["de", "de", "en", "en", "en", "en"]
    assert split["system"][:3] == ["edge", "edge", "openai/tts-1-hd"]
    assert len(check_audio(split, 16_000)) == 6


def test_lone_quotation_marks_do_not_join_lines(tmp_path):
    # As in the test above, each transcript has one quotation mark. With two, a CSV reader would join three lines.
    root = corpus_trees.mlaad(tmp_path)
    assert b'|"Oh, he said 0\n' in (root / "fake/de/Edge-TTS/meta.csv").read_bytes()
    assert len(load_corpus(f"mlaad:{root}")["test"]) == 6


def test_transcripts_that_need_their_quotation_marks(tmp_path):
    root = corpus_trees.mlaad(tmp_path)
    meta = root / "fake/de/Edge-TTS/meta.csv"
    corpus_trees.edit(meta, lambda text: text.replace(b'"Oh, he said 0', b'"Oh|no"').replace(b'"Oh, he said 1', b"no"))
    assert len(load_corpus(f"mlaad:{root}")["test"]) == 6


def test_it_has_no_bona_fide_speech(tmp_path):
    root = corpus_trees.mlaad(tmp_path)
    assert len(load_corpus(f"mlaad:{root}", splits=("train",))["train"]) == 6
    with pytest.raises(CorpusError, match="no bonafide clips"):
        load_corpus(f"mlaad:{root}", train_split="test")


def test_two_versions_in_one_place_are_refused_but_not_links(tmp_path):
    root = corpus_trees.mlaad(tmp_path)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    clips = load_corpus(f"mlaad:{tmp_path}")["test"]
    assert len(clips) == 6
    assert clips["audio"][0]["path"].startswith(str(root))
    (tmp_path / "link").unlink()
    shutil.copytree(root / "fake" / "en", tmp_path / "old" / "MLAAD_v2" / "fake" / "en")
    with pytest.raises(
        CorpusError, match=r"two copies or versions of MLAAD: .*MLAAD/fake/en/.* and .*MLAAD_v2/fake/en/"
    ):
        load_corpus(f"mlaad:{tmp_path}")
    assert len(load_corpus(f"mlaad:{root}")["test"]) == 6


def test_a_model_may_be_in_two_folders(tmp_path):
    root = corpus_trees.mlaad(tmp_path)
    first = root / "fake/de/Edge-TTS"
    second = shutil.copytree(first, tmp_path / "part2/fake/de/Edge-TTS")
    for folder, line in ((first, 1), (second, 2)):
        lines = (folder / "meta.csv").read_bytes().splitlines(keepends=True)
        (folder / "meta.csv").write_bytes(lines[0] + lines[line])
    assert len(load_corpus(f"mlaad:{tmp_path}")["test"]) == 6
