from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_gradalign.augmentation import RawBoost
from hf_gradalign.data import METADATA_COLUMNS, CorpusError, ViewDataset, mix_corpora, unique_names
from hf_gradalign.data.mixing import CORPUS_COLUMN, source_probabilities

LABELS = {0: "spoof", 1: "bonafide"}


@pytest.fixture
def parts(write_clip, make_dataset):
    """Two corpora that differ in size, classes and columns."""
    first = make_dataset([write_clip(f"a/{index}.wav", 400, seed=index) for index in range(12)])
    second = make_dataset([write_clip(f"b/{index}.wav", 400, seed=index) for index in range(6)])
    second = second.filter(lambda row: row["label"] == 0).add_column("system", ["A01", "A02", "A03"])
    return {"a": first.add_column("speaker", list(range(12))).add_column("extra", [0.5] * 12), "b": second}


def test_every_clip_once(parts):
    mixed = mix_corpora(parts)
    assert len(mixed) == 15
    assert set(mixed.column_names) == {"audio", "label", "utterance_id", CORPUS_COLUMN, *METADATA_COLUMNS}
    assert mixed["utterance_id"][:] == [*(f"a/utt_{i}" for i in range(12)), "b/utt_0", "b/utt_2", "b/utt_4"]
    assert Counter(mixed["corpus"]) == {"a": 12, "b": 3}
    assert mixed[0]["speaker"] == "0"  # text, as in every corpus
    assert (mixed[0]["system"], mixed[12]["system"], mixed[12]["codec"]) == (None, "A01", None)
    assert mixed[13]["audio"]["path"].endswith("b/2.wav")
    assert mixed.features["label"].names == ["spoof", "bonafide"]


def test_one_corpus_stays_as_it_is(parts):
    assert mix_corpora({"a": parts["a"]}).to_dict() == parts["a"].to_dict()


def test_weights(parts):
    mixed = mix_corpora(parts, weights=[1, 3], seed=5)
    shares = Counter(mixed["corpus"])
    assert shares["b"] > 2 * shares["a"]
    assert set(mixed["utterance_id"]) == set(mix_corpora(parts)["utterance_id"])  # each at least once
    assert mix_corpora(parts, weights=[10, 30], seed=5)["utterance_id"][:] == mixed["utterance_id"][:]
    assert mix_corpora(parts, weights=[1, 3], seed=6)["utterance_id"][:] != mixed["utterance_id"][:]


def test_balanced_classes():
    rows = [{"audio": None, "utterance_id": str(i), "label": int(i < 20)} for i in range(400)]
    mixed = mix_corpora({"a": Dataset.from_list(rows)}, balance_classes=True)
    counts = Counter(mixed["label"])
    assert abs(counts[0] - counts[1]) < 0.2 * len(mixed)
    assert set(mixed["utterance_id"]) == {str(i) for i in range(400)}


def test_balance_needs_both_classes(parts):
    with pytest.raises(CorpusError, match="--balance_classes: there are no bonafide clips, so the classes cannot"):
        mix_corpora({"b": parts["b"]}, balance_classes=True)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "takes one number per corpus: expected 2, got 1"),
        ([1.0, 0.0], "must be positive numbers, not 1.0 0.0"),
        ([1.0, float("nan")], "must be positive numbers"),
    ],
)
def test_invalid_weights(parts, weights, message):
    with pytest.raises(CorpusError, match=message):
        mix_corpora(parts, weights=weights)


sizes = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from([0, 1])), st.integers(1, 1000), min_size=2
).filter(lambda found: {label for _, label in found} == {0, 1})


@given(sizes, st.booleans())
def test_both_classes_are_equally_likely(found, weighted):
    weights = {"a": 1.0, "b": 2.0, "c": 5.0} if weighted else None
    chances = dict(zip(found, source_probabilities(found, weights), strict=True))
    for label in LABELS:
        of_class = {source: chance for source, chance in chances.items() if source[1] == label}
        assert sum(of_class.values()) == pytest.approx(0.5)
        expected = {source: weights[source[0]] if weighted else found[source] for source in of_class}
        for source, chance in of_class.items():
            assert chance == pytest.approx(0.5 * expected[source] / sum(expected.values()))


def test_repeated_names():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a-2", "a-3"]


def test_an_item_of_a_mix_depends_on_seed_epoch_and_index_alone(parts):
    def views():
        mixed = mix_corpora(parts, weights=[1, 1], balance_classes=True, seed=2)
        return ViewDataset(mixed, {"augmented": RawBoost()}, sampling_rate=16_000, window_samples=300, seed=2)

    first, second = views(), views()
    for dataset in (first, second):
        dataset.set_epoch(3)
    expected = [first[index]["augmented"]["input_values"].tobytes() for index in range(len(first))]
    assert [second[i]["augmented"]["input_values"].tobytes() for i in reversed(range(len(first)))] == expected[::-1]
    # A repeated clip is augmented differently.
    names = mix_corpora(parts, weights=[1, 1], balance_classes=True, seed=2)["utterance_id"][:]
    again = next(index for index, name in enumerate(names) if name in names[:index])
    assert expected[again] != expected[names.index(names[again])]
