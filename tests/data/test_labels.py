import pytest

from hf_gradalign.data import (
    LABEL_NAMES,
    CorpusError,
    canonical_label,
    is_no_label,
    map_labels,
    parse_label_map,
    require_both_classes,
)


def test_the_projects_numbers():
    assert LABEL_NAMES == ("spoof", "bonafide")


@pytest.mark.parametrize(
    "name", ["bonafide", "bona-fide", "bona_fide", "Bona Fide", " BONAFIDE ", "genuine", "real", "Human", "bona - fide"]
)
def test_names_of_bonafide(name):
    assert map_labels([name]) == [1]


@pytest.mark.parametrize("name", ["Authentic", "original", "natural", "real speech", "Human_Voice", "bona fide audio"])
def test_further_names_of_bonafide(name):
    assert map_labels([name]) == [1]


@pytest.mark.parametrize("name", ["synthetic", "AI-generated", "ai", "fake audio", "cloned voice", "manipulated"])
def test_further_names_of_spoof(name):
    assert map_labels([name]) == [0]


@pytest.mark.parametrize("name", ["speech", "audio", "A01", "real_001", "not real", "tts", "false", ""])
def test_names_of_neither(name):
    assert canonical_label(name) is None


@pytest.mark.parametrize("name", ["spoof", "Spoofed", "fake", "FAKE", "deepfake", "deep-fake", "Deep Fake"])
def test_names_of_spoof(name):
    assert map_labels([name]) == [0]


def test_class_labels_are_mapped_by_name():
    assert map_labels([0, 1, 1], names=["bonafide", "spoof"]) == [1, 0, 0]
    assert map_labels([0, 1, 1], names=["fake", "real"]) == [0, 1, 1]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ([0, 1, 1], r"Found: 1 \(2 clips\), 0 \(1 clips\)"),
        ([True, False], r"True \(1 clips\)"),
        (["spoof", "A01"], r"'spoof' \(1 clips\), 'A01' \(1 clips\)"),
        (["spoof", "unreal"], r"'unreal'"),
        (["0", "1"], r"'0' \(1 clips\)"),
    ],
)
def test_unknown_labels_are_listed_with_the_option(labels, found):
    with pytest.raises(CorpusError, match=rf"{found}.*--label_map, for example --label_map 0=spoof 1=bonafide"):
        map_labels(labels)


def test_a_long_list_is_cut():
    with pytest.raises(CorpusError, match="and 5 more"):
        map_labels([f"speaker {index}" for index in range(25)])


@pytest.mark.parametrize(
    ("labels", "label_map", "expected"),
    [
        ([0, 1], {"0": "spoof", "1": "bonafide"}, [0, 1]),
        ([0, 1], {"0": "bonafide", "1": "spoof"}, [1, 0]),
        ([0.0, 1.0], {"0": "bonafide", "1": "fake"}, [1, 0]),
        ([-1, 1], {"-1": "spoof", "1": "bonafide"}, [0, 1]),
        ([True, False], {"true": "bonafide", "False": "spoof"}, [1, 0]),
        (["Voice-Conversion", "human"], {"voice conversion": "spoof"}, [0, 1]),
        (["fake", "spoof"], {"fake": "bonafide"}, [1, 0]),
    ],
)
def test_label_map(labels, label_map, expected):
    assert map_labels(labels, label_map=label_map) == expected


def test_a_label_map_applies_to_class_names():
    assert map_labels([0, 1], names=["tts", "human"], label_map={"tts": "spoof"}) == [0, 1]


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["spoof", None, None], None), (["spoof", "", None], None), ([0, -1, None], ["spoof", "real"])],
)
def test_missing_labels_are_counted(labels, names):
    with pytest.raises(CorpusError, match="2 of 3 clips have no label"):
        map_labels(labels, names=names)


NO_LABELS = [None, "", " ", "-", "\u2013", "unknown", "UNK", "?", "nan", float("nan"), -1, -1.0, "-1", "None", "n/a"]


@pytest.mark.parametrize("label", NO_LABELS)
def test_values_that_are_not_labels(label):
    assert is_no_label(label)
    assert map_labels(["spoof", label, "real"], allow_missing=True) == [0, None, 1]
    with pytest.raises(CorpusError, match=r"1 of 3 clips have no label \(.*\(1 clips\)\)"):
        map_labels(["spoof", label, "real"])


def test_names_in_a_label_map_are_labels():
    assert map_labels([1, -1, "unknown"], label_map={"-1": "spoof", "1": "real"}, allow_missing=True) == [1, 0, None]
    assert map_labels([1.0, -1.0], label_map={"-1": "spoof", "1": "real"}) == [1, 0]


@pytest.mark.parametrize(("label", "end"), [("-1", ":-1=spoof."), ("unknown ", ":unknown=spoof."), (None, "rows.")])
def test_advice_on_missing_labels(label, end):
    with pytest.raises(CorpusError, match="Label them or remove their rows") as caught:
        map_labels(["real", label])
    assert str(caught.value).endswith(end)


def test_class_names_for_a_missing_label():
    assert map_labels([0, 1, 2, -1], names=["unknown", "real", "fake"], allow_missing=True) == [None, 1, 0, None]


def test_an_unknown_label_is_not_missing():
    with pytest.raises(
        CorpusError, match=r"Found: 'A01' \(1 clips\), and for missing labels None \(1 clips\). Say what"
    ):
        map_labels(["A01", None], allow_missing=True)


@pytest.mark.parametrize("label", ["'spoof'", '"spoof"', "\ufeffspoof", " spoof\r", b"spoof", "\u00a0Spoof"])
def test_labels_are_stripped(label):
    assert map_labels([label]) == [0]


def test_numbers_as_pandas_writes_them():
    assert map_labels(["1.0", "0.0"], label_map={"0": "spoof", "1": "real"}) == [1, 0]


def test_parse_label_map():
    assert parse_label_map(["0=spoof", "1=bona-fide"]) == {"0": "spoof", "1": "bonafide"}
    assert parse_label_map(["a=b=real"]) == {"a=b": "bonafide"}
    assert parse_label_map([]) is None
    assert parse_label_map(None) is None


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["0"], r"items of the form label=meaning, not '0'; --label_map 0=spoof"),
        (["=spoof"], r"items of the form label=meaning, not '=spoof'"),
        (["0=spof"], r"'spof' in '0=spof' is neither spoof nor bonafide"),
        (["0=1"], r"'1' in '0=1' is neither"),
        (["x=spoof", "X=bonafide"], r"names the label 'X' twice"),
    ],
)
def test_a_label_map_that_cannot_be_read(items, message):
    with pytest.raises(CorpusError, match=message):
        parse_label_map(items)


def test_unknown_names_have_no_canonical_label():
    assert canonical_label("LABEL_0") is None


def test_both_classes_are_required():
    require_both_classes([0, 1, 1], "train")
    with pytest.raises(CorpusError, match=r"split 'train' has no bonafide clips \(2 clips in all\)"):
        require_both_classes([0, 0], "train")
    with pytest.raises(CorpusError, match="has no spoof clips"):
        require_both_classes([1], "train")
