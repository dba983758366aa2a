import corpus_trees
import pytest

from hf_gradalign.data import CorpusError, check_audio, load_corpus

PROTOCOL = "ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.train.trn.txt"


def test_the_official_layout(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path)
    corpus = load_corpus(f"asvspoof2019_la:{root}")
    assert list(corpus) == ["train", "validation", "test"]
    assert corpus["test"]["utterance_id"][:] == [f"LA_E_{1000137 + index}" for index in range(4)]
    assert corpus["train"]["label"][:] == [1, 1, 0, 0]
    assert corpus["train"]["system"][:] == ["-", "-", "A02", "A03"]
    assert corpus["validation"]["speaker"][:] == ["LA_0070", "LA_0071", "LA_0072", "LA_0073"]
    path = corpus["validation"][2]["audio"]["path"]
    assert path == str(root / "ASVspoof2019_LA_dev" / "flac" / "LA_D_1000139.flac")
    for clips in corpus.values():
        assert len(check_audio(clips, 16_000)) == 4


@pytest.mark.parametrize("place", ["parent", "grandparent", "protocol folder beside"])
def test_the_path_may_be_a_parent_folder(tmp_path, place):
    root = corpus_trees.asvspoof2019_la(tmp_path / "downloads")
    if place == "protocol folder beside":
        (root / "ASVspoof2019_LA_cm_protocols").rename(tmp_path / "protocols")
    given = root.parent if place == "parent" else tmp_path
    assert len(load_corpus("ASVspoof-2019 LA", path=given)["test"]) == 4


def test_a_flat_folder_of_wavs(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("dev",))
    folder = root / "ASVspoof2019_LA_dev"
    for path in (folder / "flac").iterdir():
        path.rename(folder / path.with_suffix(".FLAC").name)
    (folder / "flac").rmdir()
    assert len(load_corpus(f"asvspoof2019_la:{root}", splits=("dev",))["dev"]) == 4


def test_the_evaluation_set_may_be_absent(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("train", "dev"))
    assert list(load_corpus(f"asvspoof2019_la:{root}")) == ["train", "validation"]
    with pytest.raises(CorpusError, match=r"(?s)does not contain ASVspoof 2019 LA.*test: .*cm.eval.trl.txt"):
        load_corpus(f"asvspoof2019_la:{root}", splits=("test",))


@pytest.mark.parametrize("name", ["eval", "test"])
def test_splits_by_either_name(tmp_path, name):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("eval",))
    corpus = load_corpus(f"asvspoof2019_la:{root}", splits=(name,))
    assert list(corpus) == [name]
    assert corpus[name]["utterance_id"][0] == "LA_E_1000137"


def test_a_byte_order_mark_and_windows_line_ends(tmp_path):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("train",))
    expected = load_corpus(f"asvspoof2019_la:{root}", splits=("train",))["train"].to_dict()
    corpus_trees.edit(
        root / PROTOCOL,
        lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n\r\n").replace(b" LA_T", b" \t LA_T").rstrip(),
    )
    assert load_corpus(f"asvspoof2019_la:{root}", splits=("train",))["train"].to_dict() == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + b"\nLA_0079 LA_T_10001\n", r"train.trn.txt, line 6: not 5 words.*'LA_0079 LA_T_10001'"),
        (lambda text: text.replace(b"A02 spoof", b"A02 sp00f"), r"must be bonafide or spoof; found sp00f"),
        (lambda text: text + text, r"names 4 utterances more than once, such as LA_T_1000137"),
        (lambda text: b"LA_T_1 bonafide\n", r"first line is 'LA_T_1 bonafide'.*has five words"),
        (lambda text: b"", r"train.trn.txt is empty"),
        (lambda text: text.replace(b"LA_0070", b"LA_\xff\xfe"), r"Cannot read .*train.trn.txt.*UTF-8"),
    ],
)
def test_a_corrupt_protocol(tmp_path, change, message):
    root = corpus_trees.asvspoof2019_la(tmp_path, splits=("train",))
    corpus_trees.edit(root / PROTOCOL, change)
    with pytest.raises(CorpusError, match=message):
        load_corpus(f"asvspoof2019_la:{root}", splits=("train",))


def test_physical_access(tmp_path):
    root = corpus_trees.asvspoof2019_pa(tmp_path)
    corpus = load_corpus(f"asvspoof2019_pa:{root}")
    assert list(corpus) == ["train", "validation", "test"]
    dev = corpus["validation"]
    assert dev["utterance_id"][:] == [f"PA_D_{1000137 + index}" for index in range(4)]  # without enrollment files
    assert dev["label"][:] == [1, 1, 0, 0]
    assert dev["system"][:] == ["-", "-", "AA", "BC"]
    assert dev["environment"][:] == ["aaa", "bca", "aaa", "cbb"]
    assert len(check_audio(dev, 16_000)) == 4


def test_both_tracks_side_by_side(tmp_path):
    corpus_trees.asvspoof2019_la(tmp_path)
    corpus_trees.asvspoof2019_pa(tmp_path)
    for track in ("la", "pa"):
        names = load_corpus(f"ASVspoof2019-{track}:{tmp_path}", splits=("train",))["train"]["utterance_id"][:]
        assert all(name.startswith(f"{track.upper()}_T_") for name in names)


def test_the_other_track_is_named(tmp_path):
    corpus_trees.asvspoof2019_la(tmp_path)
    with pytest.raises(CorpusError, match=r"(?s)does not contain ASVspoof 2019 PA.* It contains asvspoof2019_la\."):
        load_corpus(f"asvspoof2019_pa:{tmp_path}")
