from collections import Counter
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict

from hf_gradalign.data import CorpusError, check_audio, load_corpus

SPLITS = ("train", "validation", "test")


@pytest.fixture
def save(tmp_path, write_clip):
    """Save a corpus with this many clips per split, and columns changed by `change`. Returns its folder."""

    def save(n_clips=None, change=lambda dataset: dataset):
        corpus = {}
        for split, count in (n_clips or dict.fromkeys(SPLITS, 4)).items():
            paths = [str(write_clip(f"audio/{split}_{index}.wav", 400, seed=index)) for index in range(count)]
            labels = ["spoof" if index % 2 else "bona-fide" for index in range(count)]
            corpus[split] = change(Dataset.from_dict({"audio": paths, "label": labels, "speaker": paths}))
        DatasetDict(corpus).save_to_disk(tmp_path / "corpus")
        return str(tmp_path / "corpus")

    return save


def test_the_common_form(save):
    corpus = load_corpus(save())
    assert list(corpus) == list(SPLITS)
    row = corpus["test"][1]
    assert row["audio"]["path"].endswith("test_1.wav")
    assert row["audio"]["bytes"] is None
    assert (row["label"], row["utterance_id"]) == (0, "test_1")
    assert row["speaker"] == row["audio"]["path"]
    assert corpus["test"].features["label"].names == ["spoof", "bonafide"]
    assert corpus["test"].features["audio"] == datasets.Audio(decode=False)
    assert list(corpus["train"]["label"]) == [1, 0, 1, 0]


def test_class_labels_in_reverse_order(save):
    def change(dataset):
        return dataset.cast_column("label", ClassLabel(names=["bona-fide", "spoof"]))

    assert list(load_corpus(save(change=change))["train"]["label"]) == [1, 0, 1, 0]


def test_numbers_need_a_label_map(save):
    folder = save(change=lambda dataset: dataset.remove_columns("label").add_column("label", [1, 1, 0, 0]))
    with pytest.raises(CorpusError, match=r"split 'train', column 'label': .*1 \(2 clips\).*--label_map"):
        load_corpus(folder)
    labels = load_corpus(folder, label_map={"0": "bonafide", "1": "spoof"})["train"]["label"]
    assert list(labels) == [0, 0, 1, 1]


def test_encoded_bytes(save):
    def change(dataset):
        data = [Path(path).read_bytes() for path in dataset["audio"]]
        return dataset.remove_columns("audio").add_column("audio", data)

    corpus = load_corpus(save(change=change))
    assert corpus["train"][0]["audio"]["bytes"].startswith(b"RIFF")
    assert corpus["train"]["utterance_id"][:] == [f"row_{index:06d}" for index in range(4)]
    assert len(check_audio(corpus["train"])) == 4


def test_existing_utterance_ids_are_kept(save):
    corpus = load_corpus(save(change=lambda dataset: dataset.add_column("utterance_id", list("abcd"))))
    assert corpus["train"]["utterance_id"][:] == list("abcd")


def test_file_names_that_are_not_unique_are_no_ids(tmp_path, write_clip):
    paths = [str(write_clip(f"{folder}/a.wav", 400)) for folder in ("real", "fake")]
    table = Dataset.from_dict({"audio": paths, "label": ["real", "fake"]})
    DatasetDict({"train": table, "validation": table}).save_to_disk(tmp_path / "corpus")
    assert load_corpus(str(tmp_path / "corpus"))["train"]["utterance_id"][:] == paths


def test_other_names_for_columns_and_splits(save):
    folder = save(
        {"trn": 4, "dev": 4, "eval": 4},
        lambda dataset: dataset.rename_columns({"audio": "wav", "label": "key"}),
    )
    names = {"train_split": "trn", "validation_split": "dev", "test_split": "eval"}
    corpus = load_corpus(folder, **names, audio_column="wav", label_column="key")
    assert list(corpus) == list(SPLITS)
    assert {"audio", "label"} < set(corpus["train"].column_names)
    assert not {"wav", "key"} & set(corpus["train"].column_names)


def test_a_column_with_a_reserved_name(save, caplog):
    folder = save(change=lambda dataset: dataset.add_column("key", ["real", "fake"] * 2))
    assert list(load_corpus(folder, label_column="key")["train"]["label"]) == [1, 0, 1, 0]
    assert "The column 'label' is left out: 'key' replaces it" in caplog.text


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": 4}, r"has no split 'train'; its splits are test. Name the train split with --train_split_name"),
        (
            {"train": 4, "dev": 4},
            r"no split 'validation'; its splits are train, dev.*--eval_split_name, or .*--validation_fraction 0.1",
        ),
    ],
)
def test_a_missing_split(save, splits, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(save(splits))


def test_splits_but_for_case(save):
    corpus = load_corpus(save({"Train": 4, "VALIDATION": 2, "test": 1}))
    assert {split: len(clips) for split, clips in corpus.items()} == {"train": 4, "validation": 2, "test": 1}
    message = r"no split 'test'; its splits are Test, TEST.*--test_split_name \(score_audio_spoof.py: --split\)"
    with pytest.raises(CorpusError, match=message):
        load_corpus(save({"Test": 2, "TEST": 2}), splits=("test",))


def test_the_test_split_may_be_absent_unless_requested(save):
    folder = save({"train": 4, "validation": 4})
    assert list(load_corpus(folder)) == ["train", "validation"]
    with pytest.raises(CorpusError, match=r"no split 'eval'.*--test_split_name"):
        load_corpus(folder, test_split="eval")


def test_the_test_split_can_be_left_out(save):
    assert list(load_corpus(save(), test_split=None)) == ["train", "validation"]


def test_one_split_for_two_purposes_warns(save, caplog):
    load_corpus(save({"test": 4, "validation": 2}), train_split="test")
    assert "The split 'test' is used for more than one purpose" in caplog.text


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"audio_column": "wav"}, r"split 'train' has no column 'wav'; its columns are audio, .*--audio_column_name"),
        ({"label_column": "key"}, r"split 'train' has no column 'key'; its columns are .*--label_column_name"),
    ],
)
def test_a_missing_column(save, option, message):
    with pytest.raises(CorpusError, match=message):
        load_corpus(save(), **option)


def test_a_column_that_is_not_audio(save):
    folder = save(change=lambda dataset: dataset.add_column("score", [0.5] * 4))
    with pytest.raises(CorpusError, match=r"the column 'score' holds .*not audio files.*--audio_column_name"):
        load_corpus(folder, audio_column="score")


def test_a_column_that_is_not_a_label(save):
    folder = save(change=lambda dataset: dataset.add_column("key", [["real"]] * 4))
    with pytest.raises(CorpusError, match=r"the column 'key' holds .*not one label per clip"):
        load_corpus(folder, label_column="key")


def test_an_empty_split(tmp_path):
    table = Dataset.from_dict({"audio": ["a.wav"], "label": ["real"]})
    table.to_parquet(tmp_path / "validation.parquet")
    table.select([]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(CorpusError, match=r"parquet as a data set: .*\"train\" corresponds to no data"):
        load_corpus(str(tmp_path / "*.parquet"))


def test_training_needs_both_classes(save):
    with pytest.raises(CorpusError, match="split 'train' has no spoof clips"):
        load_corpus(save({"train": 1, "validation": 2}))


def test_validation_split_off_the_training_data(save):
    folder = save({"train": 40})
    corpus = load_corpus(folder, validation_fraction=0.25)
    assert Counter(corpus["validation"]["label"]) == {0: 5, 1: 5}
    assert Counter(corpus["train"]["label"]) == {0: 15, 1: 15}
    assert not set(corpus["validation"]["utterance_id"]) & set(corpus["train"]["utterance_id"])
    again = load_corpus(folder, validation_fraction=0.25)
    assert again["validation"]["utterance_id"][:] == corpus["validation"]["utterance_id"][:]


def test_validation_split_is_preferred_to_a_fraction(save):
    assert len(load_corpus(save(), validation_fraction=0.25)["train"]) == 4


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_a_fraction_out_of_range(save, fraction):
    with pytest.raises(CorpusError, match=f"--validation_fraction must lie between 0 and 1, not {fraction}"):
        load_corpus(save({"train": 8}), validation_fraction=fraction)


def test_too_few_clips_to_split(save):
    with pytest.raises(CorpusError, match=r"--validation_fraction 0.1: the training split's 4 clips cannot be split"):
        load_corpus(save({"train": 4}), validation_fraction=0.1)


def test_a_metadata_folder_from_end_to_end(tmp_path, write_clip):
    rows = ["file_name,label,system,split"]
    for split in SPLITS:
        for index in range(4):
            write_clip(f"wavs/{split}{index}.flac", 400)
            rows.append(f"wavs/{split}{index}.flac,{'fake' if index % 2 else 'genuine'},A0{index},{split}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    corpus = load_corpus(str(tmp_path))
    assert list(corpus) == list(SPLITS)
    assert corpus["test"]["utterance_id"][:] == [f"test{index}" for index in range(4)]
    assert corpus["test"]["system"][:] == ["A00", "A01", "A02", "A03"]
    assert len(check_audio(corpus["test"], 16_000)) == 4


def test_chosen_splits(save):
    folder = save({"train": 4, "validation": 4, "dev": 2, "test": 1})
    assert list(load_corpus(folder, splits=("test",))) == ["test"]  # one class is enough without training
    assert list(load_corpus(folder, splits=("dev", "test"))) == ["test", "dev"]
    corpus = load_corpus(folder, splits=("validation",), validation_split="dev")
    assert {split: len(clips) for split, clips in corpus.items()} == {"validation": 2}
    with pytest.raises(CorpusError, match="has no split 'eval'; its splits are train, validation, dev, test"):
        load_corpus(folder, splits=("eval",))


def test_optional_splits(save):
    folder = save({"train": 4, "validation": 2})
    assert list(load_corpus(folder, splits=("train", "test"), optional_splits=("test",))) == ["train"]
    with pytest.raises(CorpusError, match="has no split 'test'"):
        load_corpus(folder, splits=("train", "test"))


def test_files_without_split_names_are_the_requested_split(tmp_path, write_clip):
    rows = [f"{write_clip(f'{index}.wav', 400)},{'fake' if index % 2 else 'real'}" for index in range(4)]
    (tmp_path / "mine.csv").write_text("\n".join(["file_name,label", *rows]))
    assert len(load_corpus(tmp_path / "mine.csv", splits=("test",))["test"]) == 4
    assert len(load_corpus(path=tmp_path / "mine.csv", splits=("validation",))["validation"]) == 4


def test_missing_audio_of_any_corpus(save, tmp_path, caplog):
    folder = save()
    (tmp_path / "audio" / "validation_1.wav").unlink()
    with pytest.raises(
        CorpusError, match=r"(?s)missing on disk are 1 of 4 audio .* validation split:\n.*validation_1.wav"
    ):
        load_corpus(folder)
    corpus = load_corpus(folder, on_missing_audio="skip")
    assert corpus["validation"]["utterance_id"][:] == ["validation_0", "validation_2", "validation_3"]
    assert "These clips are left out" in caplog.text


def test_names_in_another_unicode_form_than_on_disk(tmp_path, write_clip, caplog):
    composed, decomposed = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"
    for name in (f"{decomposed}_1", f"{decomposed}_2", "plain"):
        write_clip(f"set/{name}.wav", 400, seed=len(name))
    rows = [f"{composed}_1.wav, spoof", f"{decomposed}_2.wav,bonafide", '" plain.wav ","\ufeffspoof "']
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    clips = load_corpus(tmp_path / "set", splits=("test",))["test"]
    assert clips["utterance_id"][:] == [f"{composed}_1", f"{composed}_2", "plain"]
    assert clips["label"][:] == [0, 1, 0]
    assert len(check_audio(clips)) == 3
    assert clips.features["audio"] == datasets.Audio(decode=False)
    assert "split 'test': the names of 1 audio files are spelled differently on disk" in caplog.text


@pytest.mark.parametrize("layout", ["", "in_the_wild:"])
def test_a_corpus_in_another_unicode_form_than_on_disk(tmp_path, write_clip, layout):
    write_clip("gro\u0308\u00dfe/a.wav", 400)
    text = {"metadata.csv": "file_name,label\na.wav,real", "meta.csv": "file,speaker,label\na.wav,x,bona-fide"}
    for name, content in text.items():
        (tmp_path / "gro\u0308\u00dfe" / name).write_text(content)
    clips = load_corpus(f"{layout}{tmp_path}/gr\u00f6\u00dfe", splits=("test",))["test"]
    assert clips["utterance_id"][:] == ["a"]


def test_clips_to_score_need_no_labels(tmp_path, write_clip):
    paths = [write_clip(f"clips/{name}.wav", 400) for name in "ab"]
    (tmp_path / "clips" / "notes.txt").write_text("no audio")
    clips = load_corpus(tmp_path / "clips", splits=("test",), require_labels=False)["test"]
    assert [row["audio"]["path"] for row in clips] == [str(path) for path in paths]
    assert clips["utterance_id"][:] == ["a", "b"]
    assert clips["label"][:] == [None, None]
    assert clips.features["label"].names == ["spoof", "bonafide"]
    with pytest.raises(CorpusError, match=r"metadata.csv or metadata.jsonl that labels them"):
        load_corpus(tmp_path / "clips", splits=("test",))
    (tmp_path / "list.csv").write_text("file_name\nclips/a.wav\n")
    assert load_corpus(tmp_path / "list.csv", splits=("test",), require_labels=False)["test"]["label"][:] == [None]


def test_other_corpora_have_no_subsets(save):
    with pytest.raises(CorpusError, match="has no subsets"):
        load_corpus(save(), subset="eval")
