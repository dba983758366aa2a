import pytest

from hf_gradalign.data import CorpusError, available_corpora, load_corpus, parse_corpus
from hf_gradalign.data.corpora import did_you_mean
from hf_gradalign.data.corpora.registry import LAYOUTS


def test_the_names():
    names = available_corpora()
    assert (names[0], names[-1]) == ("demo", "arena:NAME")
    assert {"asvspoof2019_la", "asvspoof2021_df", "asvspoof5", "in_the_wild", "for", "mlaad"} <= set(names)
    assert names[1:-1] == list(LAYOUTS)


@pytest.mark.parametrize(
    "text", ["asvspoof2019_la", "ASVspoof2019-LA", "ASVspoof 2019 LA", "asvspoof2019la", "ASVspoof19_LA"]
)
def test_case_and_separators_do_not_matter(text):
    spec = parse_corpus(f"{text}:/data/LA")
    assert (spec.layout.name, spec.name, spec.path) == ("asvspoof2019_la", "asvspoof2019_la", "/data/LA")
    assert parse_corpus(text, "/data/LA").path == "/data/LA"
    assert parse_corpus(text).path is None


@pytest.mark.parametrize("text", [None, "demo", "Demo"])
def test_the_demo_corpus(text):
    assert parse_corpus(text).is_demo
    assert len(load_corpus(text, splits=("test",))["test"]) == 240


def test_the_arena():
    spec = parse_corpus("Arena:dfadd")
    assert (spec.hub_id, spec.name, spec.is_arena) == ("SpeechAntiSpoofingBenchmarks/DFADD", "DFADD", True)
    spec = parse_corpus("arena:DFADD:/data/dfadd")
    assert (spec.hub_id, spec.name, spec.path) == (None, "DFADD", "/data/dfadd")


def test_unknown_names_are_sources(tmp_path):
    spec = parse_corpus("someone/corpus")
    assert (spec.hub_id, spec.name, spec.layout) == ("someone/corpus", "corpus", None)
    spec = parse_corpus(str(tmp_path))
    assert (spec.hub_id, spec.path, spec.name) == (None, str(tmp_path), tmp_path.name)
    assert parse_corpus(None, str(tmp_path)) == spec
    assert parse_corpus("clips/mine.csv").name == "mine"


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("mlaad:/a", "/b", "mlaad:/a names a path, and path='/b' another one"),
        ("arena:DFADD:/a", "/b", "names a path, and path='/b' another one"),
        ("demo:/a", None, "demo corpus comes with the package and takes no path"),
        ("demo", "/a", "demo corpus comes with the package and takes no path"),
        ("arena:", None, "name a data set of the Arena"),
        ("someone/corpus", "/a", "'someone/corpus' is not a named corpus; only named corpora take a path"),
        ("asvspof2019_la", "/a", r"is not a named corpus.* Did you mean asvspoof2019_la\?"),
    ],
)
def test_mistakes(text, path, message):
    with pytest.raises(CorpusError, match=message):
        parse_corpus(text, path)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("asvspof2019_la:/data/LA", "asvspoof2019_la:/data/LA"),
        ("asvspoof2019", "asvspoof2019_la"),
        ("asvspof2019_pa:/data/PA", "asvspoof2019_pa:/data/PA"),
        ("asvspoof_2021_pah", "asvspoof2021_pa"),
        ("ASVspoof6", "asvspoof5"),
        ("in_the_wld", "in_the_wild"),
        ("mlad", "mlaad"),
        ("arena2:DFADD", "arena:DFADD"),
    ],
)
def test_typos_get_a_hint(text, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert did_you_mean(text) == f" Did you mean {meant}?"
    if text != "asvspoof2019":  # another name for it
        with pytest.raises(CorpusError, match=rf"neither a local path .* Did you mean {meant}\?"):
            load_corpus(text)


@pytest.mark.parametrize("text", ["my_recordings", "asvspoof2015:/data", "asvspoof2017_pa:/data/PA", "asvspoof2023"])
def test_no_hint_without_a_similar_name(text):
    # Another year is another corpus, even if the names are similar.
    assert did_you_mean(text) == ""


def test_another_track_is_another_corpus():
    assert did_you_mean("asvspoof2019_df:/data/DF") == " There are asvspoof2019_la and asvspoof2019_pa."
