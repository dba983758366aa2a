"""What holds for every named corpus."""

import logging
import re
import shutil
from pathlib import Path

import corpus_trees
import datasets
import pytest
import soundfile

from hf_gradalign.data import METADATA_COLUMNS, CorpusError, load_corpus
from hf_gradalign.data.corpora import FEATURES, LAYOUTS
from hf_gradalign.data.corpora.layout import FolderTree

TREES = {
    "asvspoof2019_la": corpus_trees.asvspoof2019_la,
    "asvspoof2019_pa": corpus_trees.asvspoof2019_pa,
    "asvspoof2021_la": corpus_trees.asvspoof2021_la,
    "asvspoof2021_df": corpus_trees.asvspoof2021_df,
    "asvspoof2021_pa": corpus_trees.asvspoof2021_pa,
    "asvspoof5": corpus_trees.asvspoof5,
    "in_the_wild": corpus_trees.in_the_wild,
    "for": corpus_trees.fake_or_real,
    "mlaad": corpus_trees.mlaad,
}
every_corpus = pytest.mark.parametrize("name", TREES)


def test_every_layout_has_a_tree_here():
    assert set(TREES) == set(LAYOUTS)


@every_corpus
def test_a_page_in_the_documentation(name):
    docs = Path(__file__).parents[3] / "docs" / "corpora"
    page = (docs / LAYOUTS[name].page).read_text(encoding="utf-8")
    for told in ("**Where:**", "**License:**", "**Splits:**", f"{name}:/data/"):
        assert told in page
    assert f"`{name}:PATH`" in (Path(__file__).parents[3] / "docs" / "corpora" / "README.md").read_text(
        encoding="utf-8"
    )


@every_corpus
def test_one_schema(tmp_path, name):
    root = TREES[name](tmp_path)
    for split in load_corpus(f"{name}:{root}").values():
        further = LAYOUTS[name].further_columns
        assert split.features == {**FEATURES, **dict.fromkeys(further, datasets.Value("string"))}
        assert list(split.features) == ["audio", "label", "utterance_id", *METADATA_COLUMNS, *further]
        assert split.features["audio"] == datasets.Audio(decode=False)
        for row in split:
            assert set(row["audio"]) == {"bytes", "path"}
            assert (row["system"] == "-") == (row["label"] == 1)
            assert len(row["utterance_id"].split()) == 1
        assert len(set(split["utterance_id"])) == len(split)


@every_corpus
def test_nothing_is_decoded(tmp_path, name, monkeypatch):
    root = TREES[name](tmp_path)
    expected = {split: clips.to_dict() for split, clips in load_corpus(f"{name}:{root}").items()}
    for path in tmp_path.rglob("*"):
        if path.suffix in (".flac", ".wav"):
            path.write_bytes(b"no audio")
    monkeypatch.setattr(soundfile, "SoundFile", None)
    assert {split: clips.to_dict() for split, clips in load_corpus(f"{name}:{root}").items()} == expected


@every_corpus
def test_other_files_do_not_matter(tmp_path, name):
    root = TREES[name](tmp_path)
    expected = {split: clips.to_dict() for split, clips in load_corpus(f"{name}:{root}").items()}
    for folder in {path.parent for path in tmp_path.rglob("*.*") if path.suffix in (".flac", ".wav", ".txt", ".csv")}:
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / "notes.md").write_text("notes")
        (folder / "checksums.md5").write_text("0 x")
        for clip in [*folder.glob("*.flac"), *folder.glob("*.wav")]:
            (folder / f"._{clip.name}").write_bytes(b"what macOS leaves")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "meta.csv").write_text("title,year\na,2020\n")
    assert {split: clips.to_dict() for split, clips in load_corpus(f"{name}:{root}").items()} == expected


@pytest.mark.parametrize("name", [name for name in TREES if name != "for"])  # its folders are its protocol
def test_a_missing_file_is_named_and_can_be_left_out(tmp_path, name, caplog):
    root = TREES[name](tmp_path)
    [split, *_] = load_corpus(f"{name}:{root}")
    clips = load_corpus(f"{name}:{root}", splits=(split,))[split]
    gone = clips[1]["audio"]["path"]
    shutil.move(gone, tmp_path / "elsewhere.mp4")
    with pytest.raises(
        CorpusError, match=rf"(?s)missing on disk are 1 of {len(clips)} audio files of the .*:\n"
    ) as error:
        load_corpus(f"{name}:{root}", splits=(split,))
    assert gone.rpartition("/")[2] in str(error.value)
    assert "--on_missing_audio skip" in str(error.value)
    with caplog.at_level(logging.WARNING, logger="hf_gradalign"):
        kept = load_corpus(f"{name}:{root}", splits=(split,), on_missing_audio="skip")[split]
    assert kept["utterance_id"][:] == [n for n in clips["utterance_id"] if n != clips[1]["utterance_id"]]
    assert "These clips are left out" in caplog.text


@every_corpus
def test_a_wrong_path(tmp_path, name):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    layout = LAYOUTS[name]
    with pytest.raises(CorpusError) as error:
        load_corpus(f"{name}:{tmp_path}")
    message = str(error.value)
    assert f"{tmp_path} does not contain {layout.title}" in message
    assert "and found: photos/" in message
    for split in layout.splits:
        assert (layout.expects[split] in message) == (split != "test" or layout.splits.keys() == {"test"})
    assert layout.home in message
    assert f"docs/corpora/{layout.page}" in message
    with pytest.raises(CorpusError, match=rf"{tmp_path}/nowhere.*{re.escape(layout.home)}"):
        load_corpus(f"{name}:{tmp_path / 'nowhere'}")


@every_corpus
def test_without_a_path_the_error_says_where_to_get_it(name, monkeypatch):
    monkeypatch.delenv("HF_GRADALIGN_CORPORA", raising=False)
    layout = LAYOUTS[name]
    with pytest.raises(CorpusError) as error:
        load_corpus(name)
    message = str(error.value)
    assert f"{layout.title} needs a path, as in {name}:/data/{name}. To get the corpus: {layout.home}" in message
    assert "HF_GRADALIGN_CORPORA" in message


def test_all_corpora_in_one_folder(tmp_path, monkeypatch):
    for tree in TREES.values():
        tree(tmp_path)
    monkeypatch.setenv("HF_GRADALIGN_CORPORA", str(tmp_path))
    for name in TREES:
        [first, *_] = load_corpus(name).values()
        assert len(first)
    monkeypatch.setenv("HF_GRADALIGN_CORPORA", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"nowhere \(from HF_GRADALIGN_CORPORA\)"):
        load_corpus("mlaad")


def test_missing_files_of_all_splits_are_reported_at_once(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path)
    for split, letter in (("train", "T"), ("eval", "E")):
        for number in (1000137, 1000138):
            (root / f"ASVspoof2019_LA_{split}" / "flac" / f"LA_{letter}_{number}.flac").unlink()
    with pytest.raises(CorpusError) as error:
        load_corpus(f"asvspoof2019_la:{root}")
    assert "2 of 4 audio files of the train split:\n" in str(error.value)
    assert "and 2 of 4 audio files of the eval (test) split:\n" in str(error.value)
    assert f"{root}/ASVspoof2019_LA_eval/flac/LA_E_1000138.flac" in str(error.value)


def test_a_long_list_of_missing_files_is_cut(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("dev",))
    lines = "".join(f"LA_0001 LA_D_{number} - - bonafide\n" for number in range(30))
    corpus_trees.edit(
        root / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.dev.trl.txt", lambda text: text + lines.encode()
    )
    with pytest.raises(CorpusError, match=r"(?s)30 of 34 audio files.*LA_D_19.flac\n  \.\.\. and 10 more") as error:
        load_corpus(f"asvspoof2019_la:{root}", splits=("dev",))
    assert "LA_D_20.flac" not in str(error.value)


def test_a_split_without_any_of_its_files_is_not_skipped(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("dev",))
    for path in (root / "ASVspoof2019_LA_dev" / "flac").iterdir():
        path.unlink()
    with pytest.raises(CorpusError, match=r"(?s)4 of 4 audio files.*Get the files or correct the path\."):
        load_corpus(f"asvspoof2019_la:{root}", splits=("dev",), on_missing_audio="skip")


def test_an_unknown_choice(tmp_path):
    root = corpus_trees.asvspoof5(tmp_path)
    with pytest.raises(ValueError, match="on_missing_audio must be one of stop, skip, keep, not 'ignore'"):
        load_corpus(f"asvspoof5:{root}", on_missing_audio="ignore")


def test_no_subsets(tmp_path):
    root = corpus_trees.asvspoof5(tmp_path)
    with pytest.raises(CorpusError, match="ASVspoof 5 has no subset 'eval': it has no subsets"):
        load_corpus(f"asvspoof5:{root}", subset="eval")


def test_the_fingerprint_follows_the_contents(tmp_path):
    root = corpus_trees.asvspoof2021_df(tmp_path)

    def fingerprint(**options):
        return load_corpus(f"asvspoof2021_df:{root}", **options)["test"]._fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(subset="all") != first
    keys = root / "keys" / "DF" / "CM" / "trial_metadata.txt"
    corpus_trees.edit(keys, lambda text: text.replace(b"A14", b"A15").replace(b"vcc2020", b"vcc2018"))
    assert fingerprint() != first


def test_files_whose_names_are_in_another_unicode_form(tmp_path):
    corpus_trees.write_clip(tmp_path / "gro\u0308\u00dfe.wav", 1)
    corpus_trees.write_lines(tmp_path / "meta.csv", ["file,speaker,label", "gr\u00f6\u00dfe.wav,x,spoof"])
    clips = load_corpus(f"in_the_wild:{tmp_path}", splits=("test",))["test"]
    assert clips["utterance_id"][:] == ["gr\u00f6\u00dfe"]
    assert clips[0]["audio"]["path"].endswith("gro\u0308\u00dfe.wav")


def test_circular_links_are_not_followed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "b")
    tree = FolderTree(tmp_path)
    while tree.deepen():
        pass
    found = [str(folder.relative_to(tmp_path)) for folder in tree.folders]
    assert found == [".", "a", "linked", "a/b", "linked/up", "a/b/up"]
