from collections import Counter

import corpus_trees
import dataset_hub
import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value

from hf_gradalign.data import CorpusError, decode_audio, load_corpus, mix_streams, stream_corpus
from hf_gradalign.data.streaming import STREAM_FEATURES


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch):
    # After each pass over several streams, datasets sleeps for seconds (apache/arrow#45214).
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


AUDIO = {"bytes": Value("binary"), "path": Value("string")}
NAME = Value("string")


@pytest.fixture
def shards(tmp_path, write_clip):
    """A folder of parquet files with audio: four training shards of four clips, and one for validation."""

    def write(change=lambda dataset: dataset):
        features = Features({"audio": AUDIO, "label": ClassLabel(names=["spoof", "bonafide"]), "utterance_id": NAME})
        for split, count in (("train", 4), ("validation", 1)):
            for shard in range(count):
                rows = []
                for index in range(4):
                    path = write_clip(f"{split}/{shard}_{index}.wav", 400, seed=shard)
                    audio = {"bytes": path.read_bytes(), "path": path.name}
                    rows.append({"audio": audio, "label": index % 2, "utterance_id": path.stem})
                dataset = Dataset.from_list(rows, features=features)
                change(dataset).to_parquet(tmp_path / "set" / f"{split}-{shard:05d}-of-{count:05d}.parquet")
        return str(tmp_path / "set")

    return write


def test_parquet_files_are_streamed(shards):
    stream = stream_corpus(shards())
    assert isinstance(stream, IterableDataset)
    assert stream.num_shards == 4
    assert stream.features == STREAM_FEATURES
    rows = list(stream)
    assert [row["utterance_id"] for row in rows] == [f"{shard}_{index}" for shard in range(4) for index in range(4)]
    assert [row["label"] for row in rows] == [0, 1] * 8
    assert set(rows[0]) == set(STREAM_FEATURES)
    assert decode_audio(rows[3]["audio"], 16_000).shape == (400,)


def test_another_split(shards):
    assert len(list(stream_corpus(shards(), split="validation"))) == 4
    with pytest.raises(CorpusError, match=r"has no split 'dev'; its splits are train, validation"):
        stream_corpus(shards(), split="dev")


def test_labels_in_reverse_order_and_other_columns(shards):
    def change(dataset):
        labels = ["fake" if label == 0 else "real" for label in dataset["label"]]
        dataset = dataset.remove_columns("label").add_column("key", labels).rename_column("audio", "wav")
        return dataset.cast_column("key", ClassLabel(names=["real", "fake"]))

    stream = stream_corpus(shards(change), audio_column="wav", label_column="key")
    assert [row["label"] for row in stream] == [0, 1] * 8
    with pytest.raises(CorpusError, match=r"has no column 'label'; its columns are .*--label_column_name"):
        stream_corpus(shards(change), audio_column="wav")


def test_unknown_labels(shards):
    folder = shards(lambda dataset: dataset.cast_column("label", Value("int64")))
    with pytest.raises(CorpusError, match=r"split 'train', column 'label': .*--label_map"):
        next(iter(stream_corpus(folder)))
    rows = list(stream_corpus(folder, label_map={"0": "bonafide", "1": "spoof"}))
    assert [row["label"] for row in rows] == [1, 0] * 8
    named = shards(lambda dataset: dataset.cast_column("label", ClassLabel(names=["yes", "no"])))
    with pytest.raises(CorpusError, match="--label_map"):  # before anything is read
        stream_corpus(named)


def test_names_from_files_and_from_bytes(shards):
    folder = shards(lambda dataset: dataset.remove_columns("utterance_id"))
    assert next(iter(stream_corpus(folder)))["utterance_id"] == "0_0"

    def without_paths(dataset):
        data = [{"bytes": audio["bytes"], "path": None} for audio in dataset["audio"]]
        return dataset.remove_columns(["utterance_id", "audio"]).add_column("audio", data, feature=AUDIO)

    names = [row["utterance_id"] for row in stream_corpus(shards(without_paths))]
    assert {len(name) for name in names} == {16}
    assert len(set(names)) == 4  # the clips of a shard are the same


def test_the_arenas_form(tmp_path):
    folder = corpus_trees.arena(tmp_path, names=None)
    stream = stream_corpus(f"arena:{folder}", split="test")
    assert [(row["utterance_id"], row["label"]) for row in stream] == [("U_0", 1), ("U_1", 1), ("U_2", 0), ("U_3", 0)]
    kept = stream_corpus(f"arena:{folder}", split="test", subset="eval")
    assert [row["utterance_id"] for row in kept] == ["U_1", "U_3"]


@pytest.mark.parametrize("source", ["layout", "metadata"])
def test_a_corpus_on_disk_is_streamed(tmp_path, source):
    root = corpus_trees.asvspoof2019_la(tmp_path)
    spec = f"asvspoof2019_la:{root}"
    if source == "metadata":
        lines = [f"{row['audio']['path']},{row['label']}" for row in load_corpus(spec)["train"]]
        corpus_trees.write_lines(tmp_path / "mine.csv", ["file_name,label", *lines])
        spec = str(tmp_path / "mine.csv")
    stream = stream_corpus(spec, label_map={"0": "spoof", "1": "bonafide"})
    rows = list(stream)
    assert stream.num_shards == 4
    assert [row["label"] for row in rows] == [1, 1, 0, 0]
    assert rows[0]["audio"]["bytes"] is None
    assert decode_audio(rows[0]["audio"], 16_000).size


def test_without_weights_every_clip_comes_once(shards):
    folder = shards()
    mixed = mix_streams({"a": stream_corpus(folder), "b": stream_corpus(folder, split="validation")})
    names = [row["utterance_id"] for row in mixed]
    assert len(names) == len(set(names)) == 20
    assert Counter(name[0] for name in names) == {"a": 16, "b": 4}
    assert {name[0] for name in names[:8]} == {"a", "b"}  # mixed, and not one after the other


def test_weights_and_balance(shards):
    folder = shards()
    parts = {"a": stream_corpus(folder), "b": stream_corpus(folder, split="validation")}
    rows = list(mix_streams(parts, weights=[1, 4], balance_classes=True, seed=1))
    counts = Counter((row["utterance_id"][0], row["label"]) for row in rows)
    assert sum(counts["b", label] for label in (0, 1)) > 2 * sum(counts["a", label] for label in (0, 1))
    assert len({row["utterance_id"] for row in rows}) == 20
    one_class = {"a": parts["a"].filter(lambda row: row["label"] == 0)}
    with pytest.raises(CorpusError, match="there are no bonafide clips, so the classes"):
        mix_streams(one_class, balance_classes=True)
    with pytest.raises(CorpusError, match="one number per corpus: expected 2, got 1"):
        mix_streams(parts, weights=[1])


def test_one_stream_keeps_its_names(shards):
    assert next(iter(mix_streams({"a": stream_corpus(shards())})))["utterance_id"] == "0_0"


@pytest.mark.slow
def test_from_the_hub(hub, run_client, shards, tmp_path):
    folder = shards()
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "set").iterdir()}
    dataset_hub.add_dataset(hub, "tester/clips", files)
    program = (
        "from hf_gradalign.data import load_corpus, stream_corpus\n"
        "names = [row['utterance_id'] for row in stream_corpus('tester/clips')]\n"
        "report([names, load_corpus('tester/clips', splits=['validation'])['validation'].num_rows])\n"
    )
    names, n_validation = run_client(program)
    assert names == [row["utterance_id"] for row in stream_corpus(folder)]
    assert n_validation == 4


@pytest.mark.slow
def test_downloads_no_more_than_requested(hub, run_client, shards, tmp_path):
    shards()
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "set").iterdir()}
    dataset_hub.add_dataset(hub, "tester/clips", files)
    program = (
        "from hf_gradalign.data import CorpusError, load_corpus\n"
        "split = load_corpus('tester/clips', splits=['validation'])['validation']\n"
        "try:\n    load_corpus('tester/clips', splits=['test'])\n"
        "except CorpusError as error:\n    message = str(error)\n"
        "report([split['utterance_id'][:], split.features['label'].names, message])\n"
    )
    names, labels, message = run_client(program)
    assert names == ["0_0", "0_1", "0_2", "0_3"]
    assert labels == ["spoof", "bonafide"]
    assert "has no split 'test'; its splits are train, validation" in message
    assert set(dataset_hub.files_read(hub)) == {"data/validation-00000-of-00001.parquet"}


@pytest.mark.slow
def test_audio_files_on_the_hub_are_downloaded_first(hub, run_client, write_clip):
    clip = write_clip("a.wav", 400).read_bytes()
    dataset_hub.add_dataset(hub, "tester/files", {"train/real/a.wav": clip, "train/fake/b.wav": clip})
    program = (
        "from hf_gradalign.data import CorpusError, load_corpus, stream_corpus\n"
        "messages = []\n"
        "for read in (load_corpus, stream_corpus):\n"
        "    try:\n        read('tester/files')\n"
        "    except CorpusError as error:\n        messages.append(str(error))\n"
        "report(messages)\n"
    )
    messages = run_client(program)
    assert len(messages) == 2
    for message in messages:
        assert "download it (hf download tester/files --repo-type dataset --local-dir FOLDER)" in message


@pytest.mark.slow
def test_an_arena_set_from_the_hub(hub, run_client, tmp_path):
    folder = corpus_trees.arena(tmp_path)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    dataset_hub.add_dataset(hub, "SpeechAntiSpoofingBenchmarks/DFADD", files)
    program = (
        "from hf_gradalign.data import load_corpus\n"
        "split = load_corpus('arena:dfadd')['test']\n"
        "report([split['utterance_id'][:], split['label'][:], split['system'][:]])\n"
    )
    assert run_client(program) == [["U_0", "U_1", "U_2", "U_3"], [1, 1, 0, 0], ["-", "-", "A07", "A07"]]
