import pytest
from datasets import ClassLabel, Value

from hf_gradalign.data import CorpusError, CorpusOptions
from hf_gradalign.data.corpora.arena import label_map_of
from hf_gradalign.data.labels import is_ambiguous

A, B = "data/corpus_a", "data/corpus_b.csv"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (None, ["label", "label"]),
        ("key", ["key", "key"]),
        (["key"], ["key", "key"]),
        (["all:a:b"], ["a:b", "a:b"]),
        (["corpus_b:key"], ["label", "key"]),
        (["class", f"{B}:key"], ["class", "key"]),
        (["corpus_b:key", "corpus_a:meta:class"], ["meta:class", "key"]),
    ],
)
def test_a_value_for_all_or_for_one(words, expected):
    assert CorpusOptions([A, B]).values("--label_column_name", words, default="label") == dict(
        zip([A, B], expected, strict=True)
    )


def test_names_of_corpora():
    corpora = ["asvspoof5:/data/five", "owner/name", None, "a/clips.csv", "b/clips.csv", "owner/name"]
    words = ["asvspoof5:1", "name:2", "demo:3", "a/clips.csv:4", "clips-2:5"]
    values = CorpusOptions(corpora).values("--train_split_name", words)
    assert values == dict(zip(dict.fromkeys(corpora), "12345", strict=True))
    assert CorpusOptions(corpora).values("--split", "asvspoof5:/data/five:eval")["asvspoof5:/data/five"] == "eval"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["corpus_c:key"],
            r"the name .corpus_c. does not mean exactly one corpus; .*corpus_a, .*Put all: before",
        ),
        (["a", "b"], r"takes one value, not a and b; .*--label_column_name corpus_a:VALUE"),
        (["corpus_a:a", "corpus_a:b"], r"has two values for data/corpus_a"),
    ],
)
def test_options_that_fit_no_corpus(words, message):
    with pytest.raises(CorpusError, match=message):
        CorpusOptions([A, B]).values("--label_column_name", words)


def test_a_name_that_two_corpora_have():
    with pytest.raises(
        CorpusError, match=r"the name .clips. does not mean exactly one corpus; the names are a/clips.csv, "
    ):
        CorpusOptions(["a/clips.csv", "b/clips.csv"]).values("--label_column_name", ["clips:key"])


def test_one_corpus_needs_no_name():
    options = CorpusOptions([A])
    assert options.values("--label_column_name", ["meta:class"]) == {A: "meta:class"}
    assert options.values("--label_column_name", ["corpus_a:key"]) == {A: "key"}
    assert options.label_maps(["x:y=spoof", "corpus_a:0=real"]) == {A: {"x:y": "spoof", "0": "bonafide"}}
    assert not options.label_maps(["0=spoof"])[A].shared


def maps(words, corpora=(A, B)):
    return list(CorpusOptions(corpora).label_maps(words).values())


def test_label_maps():
    assert maps(None) == [None, None]
    assert maps(["tts=spoof"]) == [{"tts": "spoof"}] * 2
    assert maps(["corpus_a:0=spoof", "corpus_a:1=real", "corpus_b:0=real"]) == [
        {"0": "spoof", "1": "bonafide"},
        {"0": "bonafide"},
    ]
    assert maps(["tts=spoof", "corpus_b:TTS=real", "corpus_b:x=fake"]) == [
        {"tts": "spoof"},
        {"TTS": "bonafide", "x": "spoof"},
    ]


def test_a_label_map_for_all_does_not_apply_to_numbers():
    assert maps(["0=spoof", "1=real", "corpus_b:1=fake"]) == [{"0": "spoof", "1": "bonafide"}, {"1": "spoof"}]
    assert maps(["0=spoof", "1=real", "tts=spoof"], (A, "arena:ASVspoof5"))[1] == {"tts": "spoof"}
    assert maps(["0=spoof", "1=real"], ("arena:ASVspoof5",)) == [{"0": "spoof", "1": "bonafide"}]


def test_two_corpora_with_one_map_of_numbers():
    options = CorpusOptions([A, B])
    label_maps = options.label_maps(["0=spoof", "1=real", "tts=spoof"])
    label_maps[A].record([0, 1])
    label_maps[B].record(["tts", "real"])
    options.check_label_maps(label_maps)  # the other has names
    label_maps[B].record(["1.0"])
    message = (
        r"--label_map 0=spoof 1=bonafide names no corpus, but corpus_a and corpus_b may number their classes.*"
        r"--label_map corpus_a:0=spoof corpus_a:1=bonafide corpus_b:0=\.\.\. corpus_b:1=\.\.\., or, if they agree, "
        r"for all: --label_map all:0=spoof all:1=bonafide"
    )
    with pytest.raises(CorpusError, match=message):
        options.check_label_maps(label_maps)


def test_a_label_map_for_all_names_each_number(tmp_path):
    options = CorpusOptions([A, B])
    label_maps = options.label_maps(["all:0=spoof", "all:1=real"])
    for label_map in label_maps.values():
        label_map.record([0, 1])
    options.check_label_maps(label_maps)
    same = CorpusOptions([f"{tmp_path}/x.csv", f"{tmp_path}/./x.csv"])
    label_maps = same.label_maps(["0=spoof", "1=real"])
    for label_map in label_maps.values():
        label_map.record([0, 1])
    same.check_label_maps(label_maps)  # one corpus, written in two ways


def test_labels_that_are_known_take_no_map():
    with pytest.raises(CorpusError, match="the meaning of ASVspoof 5's labels is known"):
        maps(["asvspoof5:0=spoof"], (A, "asvspoof5:/data/five"))
    with pytest.raises(CorpusError, match="takes items of the form label=meaning"):
        maps(["corpus_a:0"])


@pytest.mark.parametrize("label", [0, 1.0, "-1", True, "no", " Yes ", "1.0"])
def test_labels_without_a_meaning(label):
    assert is_ambiguous(label)
    assert not is_ambiguous(f"{label}x")


def test_the_arenas_numbers():
    assert label_map_of(Value("int64")) == {"0": "bonafide", "1": "spoof"}
    assert label_map_of(Value("int64"), {"tts": "spoof"}) == {"0": "bonafide", "1": "spoof", "tts": "spoof"}
    assert label_map_of(Value("int64"), {"0": "spoof"}) == {"0": "spoof"}
    assert label_map_of(ClassLabel(names=["a", "b"])) is None
