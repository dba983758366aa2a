from collections import Counter
from pathlib import Path

import corpus_trees
import pytest

from hf_gradalign.data import BadAudioError, CorpusError
from hf_gradalign.data.overlap import SharedClips
from hf_gradalign.experiment import AudioSpoofTrainingArguments, DataArguments, ModelArguments, RunArguments
from hf_gradalign.experiment.corpora import load_run_corpora, stream_training_corpora


def load(tmp_path, seed=1, **options):
    return load_run_corpora(arguments(tmp_path, seed, **options), 16_000)


def arguments(tmp_path, seed=1, **options):
    training = AudioSpoofTrainingArguments(output_dir=str(tmp_path / "out"), seed=seed, max_steps=1)
    return RunArguments(ModelArguments(), DataArguments(**options), training)


def names_of(clips):
    return [name.rpartition("/")[2] for name in clips["utterance_id"]]


@pytest.fixture
def la(tmp_path):
    return f"asvspoof2019_la:{corpus_trees.asvspoof2019_la(tmp_path / 'a')}"


@pytest.fixture
def five(tmp_path):
    return f"asvspoof5:{corpus_trees.asvspoof5(tmp_path / 'b')}"


def test_one_corpus(tmp_path, la):
    corpora = load(tmp_path, corpus=[la])
    assert list(corpora.splits) == ["train", "validation", "test"]
    assert corpora.eval_sources == {"validation": la, "test": la}
    assert corpora.splits["train"]["utterance_id"][0] == "LA_T_1000137"  # its own name


def test_two_corpora_are_mixed_and_the_first_one_is_validated_on(tmp_path, la, five):
    corpora = load(tmp_path, corpus=[la, five])
    train = corpora.splits["train"]
    assert Counter(train["corpus"]) == {"asvspoof2019_la": 4, "asvspoof5": 2}
    assert train["utterance_id"][4] == "asvspoof5/T_0000000000"
    assert corpora.splits["validation"]["utterance_id"][0] == "LA_D_1000137"
    assert corpora.splits["test"]["utterance_id"][0] == "LA_E_1000137"
    assert corpora.eval_sources == {"validation": la, "test": la}


def test_the_first_one_that_has_a_split(tmp_path, la, five):
    mlaad = f"mlaad:{corpus_trees.mlaad(tmp_path)}"
    corpora = load(tmp_path, corpus=[mlaad, five, la])
    assert Counter(corpora.splits["train"]["corpus"]) == {"mlaad": 6, "asvspoof5": 2, "asvspoof2019_la": 4}
    assert corpora.eval_sources == {"validation": five, "test": five}  # what is trained on is not tested on


def test_named_corpora_to_validate_and_test_on(tmp_path, la, five):
    wild = f"in_the_wild:{corpus_trees.in_the_wild(tmp_path)}"
    corpora = load(tmp_path, corpus=[la], eval_corpus=five, test_corpus=wild)
    assert names_of(corpora.splits["validation"]) == ["D_0000000001", "D_0000000022"]
    assert corpora.splits["test"]["utterance_id"][:] == ["0", "1", "2"]
    assert corpora.eval_sources == {"validation": five, "test": wild}


def test_weights_and_balance(tmp_path, la, five):
    plain = load(tmp_path, corpus=[la, five], corpus_weights=[1, 9])
    shares = Counter(plain.splits["train"]["corpus"])
    assert shares["asvspoof5"] > shares["asvspoof2019_la"]
    again = load(tmp_path, corpus=[la, five], corpus_weights=[1, 9])
    other = load(tmp_path, corpus=[la, five], corpus_weights=[1, 9], seed=2)
    names = [corpora.splits["train"]["utterance_id"][:] for corpora in (plain, again, other)]
    assert names[0] == names[1] != names[2]
    balanced = load(tmp_path, corpus=[la], balance_classes=True)
    assert set(balanced.splits["train"]["label"]) == {0, 1}


def test_the_same_corpus_twice_has_two_names(tmp_path, la):
    corpora = load(tmp_path, corpus=[la, la])
    assert Counter(corpora.splits["train"]["corpus"]) == {"asvspoof2019_la": 4, "asvspoof2019_la-2": 4}


def test_validation_split_off_a_mix(tmp_path):
    wild = f"in_the_wild:{corpus_trees.in_the_wild(tmp_path / 'c')}"
    files = [f"{row['audio']['path']},{'bonafide' if i % 2 else 'spoof'}" for i, row in enumerate(demo_clips(tmp_path))]
    corpus_trees.write_lines(tmp_path / "mine.csv", ["file_name,label", *files])
    mine = str(tmp_path / "mine.csv")
    with pytest.raises(CorpusError, match=r"None of the corpora has a validation split .*--eval_corpus"):
        load(tmp_path, corpus=[mine, mine])
    corpora = load(tmp_path, corpus=[mine, mine], validation_fraction=0.5, test_corpus=wild)
    assert len(corpora.splits["train"]) == len(corpora.splits["validation"]) == 8
    assert not set(corpora.splits["train"]["utterance_id"]) & set(corpora.splits["validation"]["utterance_id"])


def demo_clips(tmp_path):
    for index in range(8):
        corpus_trees.write_clip(tmp_path / "wavs" / f"{index}.wav", index)
    return [{"audio": {"path": str(tmp_path / "wavs" / f"{index}.wav")}} for index in range(8)]


@pytest.fixture
def tables(tmp_path):
    """Two tables of eight clips that number the classes oppositely, in columns of other names."""

    def write(name, spoof, columns=("file_name", "label", "split")):
        lines = [",".join(columns)]
        for index in range(8):
            corpus_trees.write_clip(tmp_path / name / f"{name}{index}.wav", index)
            label = spoof if index % 2 == 0 else 1 - spoof
            lines.append(f"{name}/{name}{index}.wav,{label},{'train' if index < 4 else 'validation'}")
        corpus_trees.write_lines(tmp_path / f"{name}.csv", lines)
        return str(tmp_path / f"{name}.csv")

    return write


def labels_of(corpora):
    return {split: clips["label"][:] for split, clips in corpora.splits.items()}


def test_numbers_of_two_corpora_take_a_map_each(tmp_path, tables):
    both = [tables("a", spoof=0), tables("b", spoof=1)]
    with pytest.raises(CorpusError, match=r"--label_map 0=spoof 1=bonafide names no corpus, but a and b may number"):
        load(tmp_path, corpus=both, label_map=["0=spoof", "1=bonafide"])
    with pytest.raises(CorpusError, match=r"--label_map 0=spoof 1=bonafide names no corpus, but a and b may number"):
        load(tmp_path, corpus=both[:1], test_corpus=both[1], test_split_name="train", label_map=["0=spoof", "1=real"])
    each = ["a:0=spoof", "a:1=bonafide", "b:0=bonafide", "b:1=spoof"]
    assert labels_of(load(tmp_path, corpus=both, label_map=each)) == {"train": [0, 1] * 4, "validation": [0, 1] * 2}
    one = load(tmp_path, corpus=["demo", both[0]], label_map=["0=spoof", "1=bonafide"], check_audio=False)
    assert one.splits["train"]["label"][-4:] == [0, 1, 0, 1]  # the other has names
    stream = {"corpus": both, "streaming": True, "eval_corpus": "demo"}
    with pytest.raises(CorpusError, match="names no corpus, but a and b may number"):
        stream_training_corpora(arguments(tmp_path, **stream, label_map=["0=spoof", "1=bonafide"]))
    rows = stream_training_corpora(arguments(tmp_path, **stream, label_map=each))
    assert {row["utterance_id"]: row["label"] for row in rows} == {
        f"{name}/{name}{index}": index % 2 for name in "ab" for index in range(4)
    }


def test_columns_and_splits_of_one_corpus_among_several(tmp_path, tables):
    mine = tables("mine", spoof=1, columns=("wav", "key", "part"))
    text = Path(mine).read_text().replace("part", "split").replace(",validation", ",dev")
    Path(mine).write_text(text)
    corpora = load(
        tmp_path,
        corpus=["demo", mine],
        audio_column_name=["mine:wav"],
        label_column_name=["label", "mine:key"],
        label_map=["0=real", "1=fake"],
        test_corpus=mine,
        test_split_name=["mine:dev"],
        check_audio=False,
    )
    assert corpora.splits["train"]["utterance_id"][-1] == "mine/mine3"
    assert corpora.splits["test"]["utterance_id"][:] == ["mine4", "mine5", "mine6", "mine7"]
    assert len(corpora.splits["validation"]) == 128
    with pytest.raises(CorpusError, match=r"the demo corpus, split 'train' has no column 'wav'.*_name CORPUS:COLUMN"):
        load(tmp_path, corpus=["demo", mine], audio_column_name=["wav"])
    with pytest.raises(CorpusError, match=r"None of the corpora has a test split 'eval' or 'test'"):
        load(
            tmp_path,
            corpus=[mine, mine.replace("mine.csv", "./mine.csv")],
            **{
                "audio_column_name": "wav",
                "label_column_name": "key",
                "label_map": ["0=real", "1=fake"],
                "eval_split_name": "dev",
                "test_split_name": ["test", f"{mine}:eval"],
            },
        )


def test_no_test_split(tmp_path, la):
    assert list(load(tmp_path, corpus=[la], test_split_name="none").splits) == ["train", "validation"]


def test_a_file_that_two_corpora_label_differently(tmp_path, tables):
    one = tables("a", spoof=0)
    other = tmp_path / "b.csv"
    other.write_text(Path(one).read_text())
    maps = ["a:0=spoof", "a:1=real", "b:0=real", "b:1=spoof"]
    message = r"4 audio files have both labels, such as .*a0.wav: spoof in the training data of a, bonafide in .* of b"
    with pytest.raises(CorpusError, match=message):
        load(tmp_path, corpus=[one, str(other)], label_map=maps)


def test_unlabeled_clips_are_not_trained_on(tmp_path, tables):
    path = Path(tables("a", spoof=0))
    path.write_text(path.read_text().replace("a0.wav,0", "a0.wav,unknown"))
    with pytest.raises(CorpusError, match=r"split 'train', column 'label': 1 of 4 clips have no label \('unknown' "):
        load(tmp_path, corpus=[str(path)], label_map=["0=spoof", "1=bonafide"])


def test_a_corpus_for_evaluation_is_not_trained_on(tmp_path):
    df = f"asvspoof2021_df:{corpus_trees.asvspoof2021_df(tmp_path)}"
    with pytest.raises(CorpusError, match=r"has no split 'train'.*--eval_corpus and --test_corpus"):
        load(tmp_path, corpus=[df])


def test_subsets_go_to_the_corpora_that_have_them(tmp_path, la):
    df = f"asvspoof2021_df:{corpus_trees.asvspoof2021_df(tmp_path)}"
    for subset, count in ((None, 3), ("all", 4)):
        assert len(load(tmp_path, corpus=[la], test_corpus=df, subset=subset).splits["test"]) == count
    with pytest.raises(CorpusError, match="--subset all: none of the corpora has subsets"):
        load(tmp_path, corpus=[la], subset="all")


def test_limits(tmp_path, la, five):
    corpora = load(tmp_path, corpus=[la, five], max_train_samples=3, max_eval_samples=2)
    assert {split: len(clips) for split, clips in corpora.splits.items()} == {"train": 3, "validation": 2, "test": 2}
    for clips in corpora.splits.values():
        assert set(clips["label"]) == {0, 1}


def test_missing_audio(tmp_path, la):
    [path] = tmp_path.rglob("LA_T_1000138.flac")
    path.unlink()
    with pytest.raises(CorpusError, match="--on_missing_audio skip"):
        load(tmp_path, corpus=[la])
    assert len(load(tmp_path, corpus=[la], on_missing_audio="skip").splits["train"]) == 3


@pytest.mark.parametrize("limit", [2, 100])
def test_number_of_checked_clips_depends_on_the_size(tmp_path, la, limit, monkeypatch):
    monkeypatch.setattr("hf_gradalign.experiment.corpora.CHECKED_BY_DEFAULT", limit)
    [path] = tmp_path.rglob("LA_T_1000138.flac")
    path.write_bytes(b"no audio")
    if limit == 2:
        assert len(load(tmp_path, corpus=[la]).splits["train"]) == 4  # told when it is met
    for options in ({"check_audio": True}, {} if limit == 100 else {"check_audio": True}):
        with pytest.raises(BadAudioError, match="LA_T_1000138"):
            load(tmp_path, corpus=[la], **options)
    assert len(load(tmp_path, corpus=[la], check_audio=False).splits["train"]) == 4


def test_a_stream_of_several(tmp_path, la, five):
    options = {"corpus": [la, five], "streaming": True}
    corpora = load(tmp_path, **options)
    assert list(corpora.splits) == ["validation", "test"]
    assert corpora.eval_sources == {"validation": la, "test": la}
    names = [row["utterance_id"] for row in stream_training_corpora(arguments(tmp_path, **options))]
    assert sorted(names) == sorted(load(tmp_path, corpus=[la, five]).splits["train"]["utterance_id"])
    weighted = arguments(tmp_path, **options, corpus_weights=[1, 9], balance_classes=True)
    names = [row["utterance_id"] for row in stream_training_corpora(weighted)]
    assert sum(name.startswith("asvspoof5") for name in names) > len(names) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corpus": ["demo"], "dataset_name": "demo"}, "--dataset_name is another name for --corpus"),
        ({"corpus": ["a", "b"], "corpus_weights": [1.0]}, "one number per corpus: expected 2, got 1"),
        ({"corpus_weights": [-1.0]}, "must be positive"),
        ({"streaming": True, "max_train_samples": 5}, "--max_train_samples needs the whole training data"),
        ({"streaming": True, "validation_fraction": 0.1}, "--validation_fraction needs training data"),
        ({"shuffle_buffer_size": -1}, "--shuffle_buffer_size must be at least 0"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**options)


def test_partial_counts_of_shared_clips_say_so(tmp_path, la, monkeypatch):
    two_or_more = SharedClips(["a", "b"], are_all=False)
    monkeypatch.setattr("hf_gradalign.experiment.corpora.find_shared_clips", lambda clips, others: two_or_more)
    remark = load(tmp_path, corpus=[la]).remarks[0]
    assert remark.startswith("Validation split: at least 2 of 4 clips are also trained on, such as a, so ")


def test_clips_shared_by_splits_are_reported(tmp_path, la, caplog):
    assert load(tmp_path, corpus=[la]).remarks == ()
    wild = f"in_the_wild:{corpus_trees.in_the_wild(tmp_path)}"
    remarks = load(tmp_path, corpus=[wild, la], test_corpus=wild).remarks
    assert remarks == ("Test split: 3 of 3 clips are also trained on, such as 0, so the error rate is too good.",)
    assert remarks[0] in caplog.text
    both = load(tmp_path, corpus=[la], test_corpus=la, test_split_name="dev").remarks
    assert [remark.partition(", such")[0] for remark in both] == [
        "Test split: 4 of 4 clips are also in the validation split"
    ]
