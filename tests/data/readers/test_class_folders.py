import json

import pytest

from hf_gradalign.data import CorpusError, load_corpus
from hf_gradalign.data.readers import class_folders, read_source
from hf_gradalign.data.readers.class_folders import label_word, split_word
from hf_gradalign.data.request import CorpusRequest


@pytest.fixture
def make(tmp_path, write_clip):
    """Write clips. Returns their folder."""

    def make(*names):
        for index, name in enumerate(names):
            write_clip(f"set/{name}", 400, seed=index)
        return tmp_path / "set"

    return make


def contents(corpus, folder):
    return {
        split: {row["audio"]["path"].removeprefix(f"{folder}/"): ("spoof", "bonafide")[row["label"]] for row in dataset}
        for split, dataset in corpus.items()
    }


def test_classes_below_splits(make):
    folder = make("train/real/a.wav", "train/fake/b.wav", "test/real/c.wav", "test/fake/deep/d.flac", "dev/real/e.wav")
    corpus = load_corpus(folder)
    assert contents(corpus, folder) == {
        "train": {"train/fake/b.wav": "spoof", "train/real/a.wav": "bonafide"},
        "validation": {"dev/real/e.wav": "bonafide"},
        "test": {"test/fake/deep/d.flac": "spoof", "test/real/c.wav": "bonafide"},
    }
    assert corpus["train"]["utterance_id"][:] == ["b", "a"]
    assert list(load_corpus(folder, splits=("dev",))) == ["dev"]  # by its own name, too


def test_splits_below_classes(make):
    folder = make("REAL/Training/a.wav", "Fake/Training/b.wav", "Fake/eval/c.wav")
    corpus = load_corpus(folder, splits=("train", "test"))
    assert contents(corpus, folder) == {
        "train": {"Fake/Training/b.wav": "spoof", "REAL/Training/a.wav": "bonafide"},
        "test": {"Fake/eval/c.wav": "spoof"},
    }


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("bonafide", "spoof"),
        ("bona-fide", "Spoofed"),
        ("Bona Fide", "deepfake"),
        ("genuine", "fakes"),
        ("human", "deepfakes"),
        ("real_audio", "FakeVoices"),
        ("0_real", "1_fake"),
        ("data/clips/real", "data/clips/fake"),
    ],
)
def test_names_of_classes(make, real, fake):
    folder = make(f"{real}/a.wav", f"{fake}/speaker 1/b.wav")
    [split] = load_corpus(folder, splits=("test",)).values()
    assert dict(zip(split["utterance_id"], split["label"], strict=True)) == {"a": 1, "b": 0}


@pytest.mark.parametrize("name", ["unreal", "non-fake", "not_real", "real_or_fake", "A07", "clips", "realtime"])
def test_names_without_a_class(name):
    assert label_word(name) is None


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("train-00003-of-00010", "train"),
        ("dev_wavs", "dev"),
        ("train_real", "train"),
        ("trained", None),
        ("train_test", None),
        ("training_speaker", None),
        ("clips", None),
    ],
)
def test_names_of_splits(name, split):
    assert split_word(name) == split


def test_a_validation_folder_wins_over_a_dev_folder(make):
    folder = make("validation/real/a.wav", "dev/fake/b.wav")
    assert contents(load_corpus(folder, splits=("validation",)), folder) == {
        "validation": {"validation/real/a.wav": "bonafide"}
    }


def test_two_folders_of_one_split_are_refused(make):
    folder = make("train/real/a.wav", "dev/real/b.wav", "val/fake/c.wav")
    with pytest.raises(
        CorpusError, match=r"has no split 'validation'; its splits are dev, train, val.*eval_split_name"
    ):
        load_corpus(folder, splits=("validation",))


def test_other_names_take_a_label_map(make):
    folder = make("vocoded/a.wav", "studio/b.wav")
    with pytest.raises(CorpusError, match=r"no metadata.csv.*class folders.*--label_map vocoded=spoof"):
        load_corpus(folder, splits=("train",))
    corpus = load_corpus(folder, splits=("train",), label_map={"vocoded": "spoof", "studio": "bonafide"})
    assert corpus["train"]["label"][:] == [1, 0]
    numbers = make("more/0/c.wav", "more/1/d.wav") / "more"
    assert load_corpus(numbers, splits=("test",), label_map={"0": "bonafide", "1": "spoof"})["test"]["label"][:] == [
        1,
        0,
    ]


def test_files_outside_the_class_folders_are_refused_or_scored_without_a_label(make, caplog):
    folder = make("real/a.wav", "fake/b.wav", "other/c.m4a.wav", "d.wav")
    with pytest.raises(CorpusError, match=r"2 of 4 audio files are not in a class folder \(d.wav, other/c.m4a.wav\)"):
        load_corpus(folder, splits=("train",))
    split = load_corpus(folder, splits=("test",), require_labels=False)["test"]
    assert split["label"][:] == [None, 0, None, 1]
    assert "2 of 4 clips have no label" in caplog.text


def test_contradictions_are_refused(make):
    folder = make("fake/NaturalSpeech/a.wav", "fake/b.wav", "real/c.wav")
    with pytest.raises(
        CorpusError, match=r"folders of fake/NaturalSpeech/a.wav mean both classes .*metadata.csv"
    ) as refusal:
        load_corpus(folder, splits=("test",))
    assert "--label_map 'NaturalSpeech=spoof'" in str(refusal.value)
    split = load_corpus(folder, splits=("test",), label_map={"NaturalSpeech": "spoof"})["test"]
    assert dict(zip(split["utterance_id"], split["label"], strict=True)) == {"a": 0, "b": 0, "c": 1}


def test_folders_above_all_files_do_not_count(make):
    folder = make("original/real/a.wav", "original/fake/b.wav")
    assert load_corpus(folder, splits=("test",))["test"]["label"][:] == [0, 1]


def test_splits_that_contradict_each_other_are_refused(make):
    with pytest.raises(CorpusError, match=r"train/real/test/a.wav mean more than one split \(train, test\)"):
        load_corpus(make("train/real/test/a.wav", "train/real/b.wav"), splits=("test",))


def test_files_in_no_split_are_refused(make):
    folder = make("train/real/a.wav", "fake/b.wav")
    with pytest.raises(CorpusError, match=r"1 of 2 audio files are not in the folder of a split: fake/b.wav"):
        load_corpus(folder, splits=("train",))


def test_labels_can_be_ignored(make):
    folder = make("test/real/a.wav", "test/fake/original/b.wav", "train/real/c.wav")
    split = load_corpus(folder, splits=("test",), label_column="none", require_labels=False)["test"]
    assert split["utterance_id"][:] == ["b", "a"]
    assert split["label"][:] == [None, None]


def test_unreadable_formats_are_kept_and_other_files_are_reported(make, caplog):
    folder = make("real/a.wav", "fake/b.wav")
    for name in ("fake/c.M4A", "fake/._b.wav", "fake/readme.txt"):
        (folder / name).touch()
    (folder / "fake" / "more").symlink_to(make("../elsewhere/e.wav").parent / "elsewhere")
    split = load_corpus(folder, splits=("test",))["test"]
    assert split["utterance_id"][:] == ["b", "c", "e", "a"]
    assert "4 audio files. Left out: 1 hidden file or folder, 1 file that is not audio (1 .txt)" in caplog.text


def test_a_likely_table_is_named(make):
    folder = make("clips/a.wav")
    (folder / "labels.csv").write_text("file_name,label\nclips/a.wav,real\n")
    with pytest.raises(CorpusError, match=r"If a table in the folder labels them.*labels.csv"):
        load_corpus(folder, splits=("test",))
    assert load_corpus(folder / "labels.csv", splits=("test",))["test"]["label"][:] == [1]


@pytest.mark.parametrize(
    ("rows", "n_told"),
    [
        ("real/a.wav,fake\nreal/b.wav,fake\nfake/c.wav,spoof\n", 2),
        ("real/a.wav,bona-fide\nfake/c.wav,spoof\n", 0),
        ("real/a.wav,0\nfake/c.wav,1\n", 2),
        ("real/a.wav,?\nother/c.wav,spoof\n", 0),
        ("fake/real/a.wav,real\nfake/real/b.wav,fake\nfake/c.wav,fake\n", 0),  # two words that say nothing
        ("fake/real/a.wav,real\nfake/c.wav,real\n", 1),
        ("real/x/a.wav,real\nfake/x/c.wav,real\n", 1),
    ],
)
def test_labels_that_contradict_folders_are_reported(tmp_path, caplog, rows, n_told):
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    request = CorpusRequest(splits={"train": "train"}, label_map={"0": "spoof", "1": "bonafide"})
    for corpus in (tmp_path, tmp_path / "metadata.csv"):
        caplog.clear()
        read_source(str(corpus), request)
        assert [
            int(text.partition(" ")[0]) for text in caplog.messages if "contradict the names of their folders" in text
        ] == [n_told] * (n_told > 0)


def _told(caplog):
    return [
        text.split(". The labels are used")[0]
        for text in caplog.messages
        if "contradict the names of their folders" in text
    ]


INVERTED = "{0}real/a.wav,spoof\n{0}fake/c.wav,bonafide\n"


@pytest.mark.parametrize("corpus", [".", "metadata.csv", "./metadata.csv"])
def test_contradictions_in_the_current_folder_are_counted(corpus, tmp_path, monkeypatch, caplog):
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{INVERTED.format('')}")
    monkeypatch.chdir(tmp_path)
    read_source(corpus, CorpusRequest(splits={"train": "train"}))
    assert _told(caplog) == [
        "2 files have labels that contradict the names of their folders, such as those in ./real (spoof)"
    ]


@pytest.mark.parametrize("start", ["/clips/", "/clips/fake_or_real/", "/", "../"])
def test_contradictions_elsewhere_than_the_table_are_reported(start, tmp_path, caplog):
    (tmp_path / "table.csv").write_text(f"file_name,label\n{INVERTED.format(start)}")
    read_source(str(tmp_path / "table.csv"), CorpusRequest(splits={"train": "train"}))
    (told,) = _told(caplog)
    assert told.startswith("2 files")
    assert told.endswith(f"{start}real (spoof)")


def test_folders_shared_by_all_files_do_not_count(tmp_path, caplog):
    (tmp_path / "table.csv").write_text("file_name,label\n/clips/real/a.wav,spoof\n/clips/real/b.wav,real\n")
    read_source(str(tmp_path / "table.csv"), CorpusRequest(splits={"train": "train"}))
    assert not _told(caplog)


def test_contradictions_with_a_folder_for_each_clip_are_counted(tmp_path, caplog, monkeypatch):
    """Reading 300,000 of these takes below a second only if few names are looked at."""
    looked_at = []
    monkeypatch.setattr(class_folders, "label_word", lambda *args: looked_at.append(args) or label_word(*args))
    rows = "".join(f"real/id{number}/a.wav,fake\n" for number in range(4000))
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    read_source(str(tmp_path), CorpusRequest(splits={"train": "train"}))
    assert _told(caplog)[0].startswith("4000 files")
    assert len(looked_at) < 4000


@pytest.mark.parametrize("label", [["spoof"], {"name": "spoof"}])
def test_labels_that_are_not_one_per_clip_are_refused(label, make):
    folder = make("real/a.wav")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "real/a.wav", "label": label}))
    with pytest.raises(CorpusError, match="not one label per clip"):
        load_corpus(folder, splits=("train",))
