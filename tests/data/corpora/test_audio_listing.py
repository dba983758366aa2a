"""No clip of a named corpus is left out, or taken from another copy of the corpus, without a word."""

import logging
import os
import shutil

import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, load_corpus


def loaded(caplog, corpus, split="test", **options):
    """The split, and the warnings on files that are left out."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        clips = load_corpus(corpus, splits=(split,), **options)[split]
    return clips, [record.getMessage() for record in caplog.records if "are left out" in record.getMessage()]


def test_clips_missing_here_are_not_read_from_another_copy(tmp_path):
    original = corpus_trees.asvspoof2019_la(tmp_path, splits=("train",))
    noisy = shutil.copytree(original, tmp_path / "LA_noisy")
    for number, file in enumerate(sorted(noisy.rglob("*.flac"))):
        corpus_trees.write_clip(file, number + 4)
    next(original.rglob("*.flac")).unlink()
    with pytest.raises(CorpusError, match="3 audio files are in two folders and differ"):
        load_corpus(f"asvspoof2019_la:{tmp_path}", splits=("train",))
    assert len(load_corpus(f"asvspoof2019_la:{noisy}", splits=("train",))["train"]) == 4


def test_equal_copies_and_links_are_one_corpus(tmp_path, caplog):
    original = corpus_trees.asvspoof2019_la(tmp_path, splits=("train",))
    shutil.copytree(original, tmp_path / "LA_copy")
    os.symlink(original, tmp_path / "LA_link")
    next(original.rglob("*.flac")).unlink()
    clips, warnings = loaded(caplog, f"asvspoof2019_la:{tmp_path}", "train")
    assert (len(clips), warnings) == (4, [])


def test_a_lossless_conversion_beside_the_originals_is_the_same_corpus(tmp_path):
    original = corpus_trees.asvspoof2019_la(tmp_path, splits=("train",))
    files = sorted(original.rglob("*.flac"))
    converted = tmp_path / "converted" / "ASVspoof2019_LA_train" / "wav"
    for number, file in enumerate(files):
        corpus_trees.write_clip(converted / f"{file.stem}.wav", number)
    clips = load_corpus(f"asvspoof2019_la:{tmp_path}", splits=("train",))["train"]
    assert [audio["path"] for audio in clips["audio"]] == [str(file) for file in files]
    corpus_trees.write_clip(converted / f"{files[0].stem}.wav", 7)
    with pytest.raises(CorpusError, match="4 audio files are in two folders and differ"):
        load_corpus(f"asvspoof2019_la:{tmp_path}", splits=("train",))


@pytest.mark.parametrize(
    ("name", "split", "tree", "protocol"),
    [
        ("asvspoof2019_la", "train", corpus_trees.asvspoof2019_la, "ASVspoof2019.LA.cm.train.trn.txt"),
        ("asvspoof2021_df", "test", corpus_trees.asvspoof2021_df, "trial_metadata.txt"),
        ("asvspoof5", "train", corpus_trees.asvspoof5, "ASVspoof5.train.tsv"),
        ("in_the_wild", "test", corpus_trees.in_the_wild, "meta.csv"),
        ("mlaad", "test", corpus_trees.mlaad, "meta.csv"),
    ],
)
def test_files_that_a_truncated_protocol_lacks_are_reported(name, split, tree, protocol, tmp_path, caplog):
    root = tree(tmp_path)
    _, warnings = loaded(caplog, f"{name}:{root}", split)
    assert warnings == []
    path = sorted(root.rglob(protocol))[0]
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    _, warnings = loaded(caplog, f"{name}:{root}", split)
    assert len(warnings) == 1
    assert warnings[0].startswith("1 of ")


def test_recordings_for_enrollment_are_in_no_protocol(tmp_path, caplog):
    root = corpus_trees.asvspoof2019_pa(tmp_path)
    assert loaded(caplog, f"asvspoof2019_pa:{root}", "validation")[1] == []


def test_a_model_of_mlaad_without_metadata_is_reported(tmp_path, caplog):
    root = corpus_trees.mlaad(tmp_path)
    n_clips = len(loaded(caplog, f"mlaad:{root}")[0])
    meta = sorted(root.rglob("meta.csv"))[0]
    meta.unlink()
    clips, [warning] = loaded(caplog, f"mlaad:{root}")
    assert warning.startswith(f"{n_clips - len(clips)} of {n_clips} audio files are not in the meta.csv")
    assert str(meta.parent) in warning
    corpus_trees.write_clip(tmp_path / "elsewhere" / "x" / "a.wav")  # another corpus in the same place
    assert loaded(caplog, f"mlaad:{tmp_path}")[1] == [warning]


def test_models_of_mlaad_may_be_deeper_than_others(tmp_path, caplog):
    root = corpus_trees.mlaad(tmp_path)
    n_clips = len(loaded(caplog, f"mlaad:{root}")[0])
    model = sorted(root.rglob("meta.csv"))[0].parent
    shutil.move(model, model.parent / "vendor" / model.name)
    clips, warnings = loaded(caplog, f"mlaad:{root}")
    assert (len(clips), warnings) == (n_clips, [])
