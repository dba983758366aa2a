"""What a result needs from a data set: labels by name, commit and metric, from a folder, a file or the Hub."""

import json
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from arena_world import COMMIT, LABELS, make_dataset_folder
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub.errors import OfflineModeIsEnabled, RemoteEntryNotFoundError

from hf_gradalign.hub.arena import ArenaDataset, ArenaError, load_arena_dataset, read_labels
from hf_gradalign.hub.arena import dataset as dataset_module


@pytest.fixture
def offline(monkeypatch):
    def refuse(*positional, **options):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(dataset_module.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(dataset_module, "hf_hub_download", refuse)


@pytest.mark.parametrize("labels_file", [False, True])
def test_a_folder_in_the_arenas_form(tmp_path, offline, labels_file):
    folder = make_dataset_folder(tmp_path / "set", labels_file=labels_file)
    dataset = load_arena_dataset("InTheWild", folder=folder, revision=COMMIT)
    assert dataset.id == "SpeechAntiSpoofingBenchmarks/InTheWild"
    assert (dataset.revision, dataset.name, dataset.split) == (COMMIT, "A set", "test")
    assert dataset.metrics == ("eer_percent",)
    assert dict(dataset.labels) == LABELS


def test_labels_go_by_name_where_the_column_has_names(tmp_path, offline):
    """Here spoof is 0, unlike in the Arena."""
    folder = make_dataset_folder(tmp_path / "set", shards=0)
    features = Features({"notes": Value("string"), "label": ClassLabel(names=["spoof", "bonafide"])})
    notes = [json.dumps({"utterance_id": name}) for name in ("a", "b")]
    rows = Dataset.from_dict({"notes": notes, "label": [0, 1]}, features)
    rows.to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    dataset = load_arena_dataset("o/set", folder=folder, revision=COMMIT)
    assert dict(dataset.labels) == {"a": 0, "b": 1}


def test_labels_from_a_key_file_of_whatever_form(tmp_path):
    """All subsets, because the Arena pools them."""
    path = tmp_path / "trial_metadata.txt"
    line = "LA_0001 {} alaw ita_tx A07 {} notrim {}\n"
    path.write_text(line.format("a", "spoof", "eval") + line.format("b", "bonafide", "progress"))
    assert read_labels(path) == {"a": 0, "b": 1}


def test_given_labels_need_nothing_but_the_commit(offline):
    assert load_arena_dataset("o/set", labels={"a": 0, "b": 0}, revision=COMMIT[:7]).metrics == ("srr_complement",)
    assert load_arena_dataset("o/set", labels={"a": 0, "b": 1}, revision=COMMIT[:7]).metrics == ("eer_percent",)
    for revision in (None, "main", "ABCDEF1"):
        with pytest.raises(ArenaError, match="pass the one that was scored with --revision"):
            load_arena_dataset("o/set", labels={"a": 0}, revision=revision)


@pytest.fixture
def hub_dataset(monkeypatch, tmp_path):
    """A data set on the Hub, with a fake client. Records the names of the downloaded files."""
    folder = make_dataset_folder(tmp_path / "on the hub", labels_file=True)
    fetched = []

    def download(repo_id, filename, *, repo_type, revision, token):
        assert (repo_id, repo_type, revision, token) == ("o/set", "dataset", COMMIT, "secret")
        fetched.append(filename)
        if not (folder / filename).is_file():
            raise RemoteEntryNotFoundError(filename, response=SimpleNamespace(headers={}, request=None))
        return str(folder / filename)

    def info(self, repo_id, revision=None):
        assert (repo_id, revision, self.token) == ("o/set", "v1", "secret")
        return SimpleNamespace(sha=COMMIT)

    monkeypatch.setattr(dataset_module.HfApi, "dataset_info", info)
    for module in (dataset_module, dataset_module):
        monkeypatch.setattr(module, "hf_hub_download", download)
    return SimpleNamespace(folder=folder, fetched=fetched)


def test_from_the_hub_only_small_files_are_fetched(hub_dataset):
    dataset = load_arena_dataset("o/set", revision="v1", token="secret")
    assert dict(dataset.labels) == LABELS
    assert dataset.revision == COMMIT
    assert hub_dataset.fetched == ["eval.yaml", "data/labels.parquet"]


def test_without_the_file_of_labels_their_column_is_streamed(hub_dataset, monkeypatch):
    (hub_dataset.folder / "data" / "labels.parquet").unlink()
    features = Features({"notes": Value("string"), "label": ClassLabel(names=["bonafide", "spoof"])})
    notes = [json.dumps({"utterance_id": name}) for name in LABELS]
    rows = Dataset.from_dict({"notes": notes, "label": [1 - label for label in LABELS.values()]}, features)

    def load_dataset(name, **options):
        expected = {"split": "test", "streaming": True, "revision": COMMIT, "token": "secret"}
        assert (name, options) == ("o/set", {**expected, "columns": ["notes", "label"]})
        return rows.to_iterable_dataset()

    monkeypatch.setattr(dataset_module, "load_dataset", load_dataset)
    assert dict(load_arena_dataset("o/set", revision="v1", token="secret").labels) == LABELS


def test_a_repository_without_eval_yaml_is_none_of_the_arenas(hub_dataset):
    (hub_dataset.folder / "eval.yaml").unlink()
    with pytest.raises(ArenaError, match=r"o/set is not a data set of the Arena: it has no eval\.yaml"):
        load_arena_dataset("o/set", revision="v1", token="secret")


def test_offline_says_what_to_do(offline):
    with pytest.raises(ArenaError, match=r"o/set cannot be read \(offline\); use --dataset_folder for one on disk"):
        load_arena_dataset("o/set", revision=COMMIT)


@pytest.mark.parametrize("name", ["o/set/more", "../set", "o/..", "/set", "a b/set"])
def test_ids_that_would_lead_out_of_the_folder_are_refused(name):
    with pytest.raises(ArenaError, match="is not a data set's id"):
        ArenaDataset(id=name, revision=COMMIT, labels={"a": 1})


def test_broken_data_sets_are_named(tmp_path, offline):
    with pytest.raises(ArenaError, match=r"eval\.yaml, which data sets in the Arena's format have"):
        load_arena_dataset("o/set", folder=tmp_path, revision=COMMIT)
    folder = make_dataset_folder(tmp_path / "metric", metrics="[min_tdcf]")
    with pytest.raises(ArenaError, match="evaluated by min_tdcf, which this library does not know"):
        load_arena_dataset("o/set", folder=folder, revision=COMMIT)
    (folder / "eval.yaml").write_text("name: x\ntasks: []\n")
    with pytest.raises(ArenaError, match="does not have the Arena's format"):
        load_arena_dataset("o/set", folder=folder, revision=COMMIT)
    folder = make_dataset_folder(tmp_path / "labels", labels_file=True)
    for columns, trouble in [
        ({"utterance_id": ["a", "a"], "label": [0, 1]}, "'a' has two values of the label"),
        ({"utterance_id": ["a"], "label": [2]}, "found '2'"),
        ({"utterance_id": ["a"], "other": [2]}, "has no column label"),
    ]:
        pq.write_table(pa.table(columns), folder / "data" / "labels.parquet")
        with pytest.raises(ValueError, match=trouble):
            load_arena_dataset("o/set", folder=folder, revision=COMMIT)
