import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus
from hf_gradalign.data.corpora.arena import arena_repository, read_notes


@pytest.mark.parametrize("names", [("bonafide", "spoof"), None])
@pytest.mark.parametrize("spec", ["{}", "arena:{}", "arena:Mini:{}"])
def test_a_local_folder(tmp_path, names, spec):
    folder = corpus_trees.arena(tmp_path, names)
    corpus = load_corpus(spec.format(folder))
    assert list(corpus) == ["test"]
    split = corpus["test"]
    assert split["label"][:] == [1, 1, 0, 0]  # the Arena's numbers are reversed
    assert split["utterance_id"][:] == ["U_0", "U_1", "U_2", "U_3"]
    assert split["system"][:] == ["-", "-", "A07", "A07"]
    assert split["speaker"][:] == ["S_0", "S_1", "S_2", "S_3"]
    assert (split["codec"][0], split["condition"][0]) == ("alaw", "ita_tx")
    assert len(check_audio(split, 16_000)) == 4


def test_subsets_by_the_notes(tmp_path):
    folder = corpus_trees.arena(tmp_path)
    assert load_corpus(f"arena:{folder}", subset="eval")["test"]["utterance_id"][:] == ["U_1", "U_3"]
    assert len(load_corpus(f"arena:{folder}", subset="all")["test"]) == 4
    with pytest.raises(CorpusError, match=r"no subset 'hidden'; its subsets: eval, progress"):
        load_corpus(f"arena:{folder}", subset="hidden")


@pytest.mark.parametrize("notes", ["", "no json", "[1]", '{"other": 1}'])
def test_unusable_notes(tmp_path, notes):
    split = load_corpus(f"arena:{corpus_trees.arena(tmp_path, notes=notes)}")["test"]
    assert split["utterance_id"][:] == ["U_0", "U_1", "U_2", "U_3"]  # from the files' names
    assert split["system"][:] == ["-", "-", None, None]


def test_it_can_be_trained_on_by_naming_its_split(tmp_path):
    folder = str(corpus_trees.arena(tmp_path))
    corpus = load_corpus(f"arena:{folder}", train_split="test", test_split=None, validation_fraction=0.5)
    assert {split: len(clips) for split, clips in corpus.items()} == {"train": 2, "validation": 2}


def test_metadata_from_notes():
    assert read_notes('{"attack_id": "A01", "language": "de"}', 0)["language"] == "de"
    assert read_notes('{"attack_id": "bonafide"}', 1)["system"] == "-"


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("asvspoof2021 df", "SpeechAntiSpoofingBenchmarks/ASVspoof2021_DF"),
        ("in_the_wild", "SpeechAntiSpoofingBenchmarks/InTheWild"),
        ("BrandNew", "SpeechAntiSpoofingBenchmarks/BrandNew"),
        ("someone/else", "someone/else"),
    ],
)
def test_names_on_the_hub(name, repository):
    assert arena_repository(name) == repository


def test_a_folder_of_another_form(tmp_path):
    with pytest.raises(CorpusError, match=r"does not have the Arena's format, eval.yaml and data/test-\*.parquet"):
        load_corpus(f"arena:{tmp_path}")
