from collections import Counter

import datasets
import pytest

from hf_gradalign.data import check_audio, decode_audio, demo_corpus_files, load_corpus


@pytest.fixture(scope="module")
def demo_corpus():
    return load_corpus()


def test_the_files_exist():
    files = demo_corpus_files()
    assert list(files) == ["train", "validation", "test"]
    for file in files.values():
        with open(file, "rb") as stream:
            assert stream.read(4) == b"PAR1"


@pytest.mark.parametrize(
    ("split", "spoof", "bonafide"), [("train", 260, 259), ("validation", 64, 64), ("test", 120, 120)]
)
def test_counts(demo_corpus, split, spoof, bonafide):
    assert Counter(demo_corpus[split]["label"]) == {0: spoof, 1: bonafide}


def test_uses_no_network(monkeypatch):
    counted = []  # with this setting, `datasets` reports loading to the Hub

    def note(name):
        counted.append(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS)

    monkeypatch.setattr(datasets.load, "increase_load_count", note)
    assert len(load_corpus()["test"]) == 240
    assert counted
    assert not any(counted)


def test_columns(demo_corpus):
    assert demo_corpus["train"].features["label"].names == ["spoof", "bonafide"]
    assert not demo_corpus["train"].features["audio"].decode
    columns = {"audio", "label", "utterance_id", "speaker", "system", "language", "duration"}
    assert columns <= set(demo_corpus["train"].column_names)
    for split in demo_corpus.values():
        assert len(set(split["utterance_id"])) == len(split)
        assert all(
            (system == "-") == bool(label) for system, label in zip(split["system"], split["label"], strict=True)
        )


def test_no_speaker_and_no_system_of_the_test_split_is_seen_in_training(demo_corpus):
    def bonafide_speakers(split):
        return set(split.filter(lambda label: label == 1, input_columns="label")["speaker"])

    train, test = demo_corpus["train"], demo_corpus["test"]
    assert set(train["system"]) & set(test["system"]) == {"-"}
    assert not bonafide_speakers(train) & bonafide_speakers(test)


def test_every_clip_of_validation_decodes(demo_corpus):
    assert len(check_audio(demo_corpus["validation"], 16_000)) == 128
    row = demo_corpus["validation"][0]
    assert len(decode_audio(row["audio"], 16_000)) == pytest.approx(16_000 * row["duration"], abs=1)
