import os
import sys

import forked_python
import pytest
from datasets import Dataset, DatasetDict

from hf_gradalign.data import CorpusError
from hf_gradalign.data.readers import read_source
from hf_gradalign.data.request import CorpusRequest


def _read(name_or_path, split_names=("train", "validation", "test"), config_name=None, **options):
    request = CorpusRequest({name: name for name in split_names}, config_name=config_name, **options)
    return read_source(name_or_path if name_or_path is None else str(name_or_path), request)


def _table(value):
    return Dataset.from_dict({"x": [value]})


def _values(corpus):
    return {split: list(dataset["x"]) for split, dataset in corpus.items()}


def test_none_is_the_demo_corpus():
    assert {split: len(dataset) for split, dataset in _read(None).items()} == {
        "train": 519,
        "validation": 128,
        "test": 240,
    }


def test_saved_to_disk(tmp_path):
    DatasetDict({"train": _table(1), "eval": _table(2)}).save_to_disk(tmp_path / "both")
    _table(3).with_format("numpy").save_to_disk(tmp_path / "one")
    assert _values(_read(tmp_path / "both")) == {"train": [1], "eval": [2]}
    one = _read(tmp_path / "one")
    assert _values(one) == {"train": [3]}
    assert one["train"].format["type"] is None


def test_saved_to_disk_without_rows(tmp_path):
    DatasetDict({"train": _table(1).select([])}).save_to_disk(tmp_path)
    with pytest.raises(
        CorpusError, match=r"Cannot read .*, which save_to_disk wrote. Does it have a split without rows\?"
    ):
        _read(tmp_path)


def test_a_folder_that_load_dataset_reads(tmp_path):
    for index, split in enumerate(("train", "test")):
        _table(index).to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert _values(_read(tmp_path)) == {"train": [0], "test": [1]}


def test_configurations(tmp_path):
    for index, name in enumerate(("clean", "noisy")):
        _table(index).to_parquet(tmp_path / name / "train.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("clean", "noisy"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert _values(_read(tmp_path, config_name="noisy")) == {"train": [1]}
    with pytest.raises(CorpusError, match=r"(?s)clean.*noisy.*--dataset_config_name"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("files", "pattern", "expected"),
    [
        (["any.parquet"], "any.parquet", {"train": [0]}),
        (["test.parquet"], "test.parquet", {"test": [0]}),
        (["train.parquet", "my-dev.parquet"], "*.parquet", {"my_dev": [0], "train": [1]}),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"], "*.parquet", {"train": [0, 1]}),
        (["part1.parquet", "part2.parquet"], "part*.parquet", {"train": [0, 1]}),
        (["a/train.parquet", "b/test.parquet"], "**/*.parquet", {"train": [0], "test": [1]}),
    ],
)
def test_parquet_files(tmp_path, files, pattern, expected):
    for index, name in enumerate(sorted(files)):
        _table(index).to_parquet(tmp_path / name)
    assert _values(_read(tmp_path / pattern)) == expected


def test_a_metadata_file_by_its_name(tmp_path):
    (tmp_path / "mine.csv").write_text("file_name,label\na.wav,real\n")
    assert list(_read(tmp_path / "mine.csv")["train"]["audio"]) == [str(tmp_path / "a.wav")]


def test_a_metadata_folder(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,label\na.wav,real\n")
    assert list(_read(tmp_path, split_names=("trn",))["trn"]["label"]) == ["real"]


def test_audio_without_metadata(write_clip, tmp_path):
    write_clip("clips/a.wav")
    with pytest.raises(CorpusError, match=r"contains audio files but no metadata.csv or metadata.jsonl.*file_name"):
        _read(tmp_path)


def test_a_folder_without_data(tmp_path):
    with pytest.raises(CorpusError, match=r"Cannot read .* as a data set: .*doesn't contain any data files"):
        _read(tmp_path)


def test_a_corrupt_parquet_file(tmp_path):
    (tmp_path / "train.parquet").write_text("no parquet")
    for path in (tmp_path, tmp_path / "train.parquet"):
        with pytest.raises(CorpusError, match=r"Cannot read .* as a data set: .*[Pp]arquet"):
            _read(path)


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CorpusError, match=r"a.txt is neither parquet nor one metadata file"):
        _read(tmp_path / "a.txt")


def test_parquet_among_audio_files(write_clip, tmp_path, caplog):
    _table(1).to_parquet(tmp_path / "train.parquet")
    write_clip("a.wav")
    _table(1).to_parquet(tmp_path / "train-2.parquet")
    assert _values(_read(tmp_path)) == {"train": [1, 1]}
    assert "reading the parquet files; 1 audio files and 0 archives" in caplog.text


def test_parquet_that_load_dataset_passes_over_for_audio_files(write_clip, tmp_path):
    _table(1).to_parquet(tmp_path / "clips.parquet")
    for name in "abc":
        write_clip(f"{name}.wav")  # the majority decides
    with pytest.raises(CorpusError, match=r"name these, as in --corpus '.*/\*\*/\*\.parquet'"):
        _read(tmp_path)
    assert _values(_read(tmp_path / "**" / "*.parquet")) == {"train": [1]}


def test_a_glob_without_matches(tmp_path):
    with pytest.raises(CorpusError, match=r"\*.parquet matches no files"):
        _read(tmp_path / "*.parquet")


def test_a_typo_in_a_path_gives_close_matches(tmp_path):
    (tmp_path / "my_corpus").mkdir()
    with pytest.raises(
        CorpusError, match=r"mycorpus is neither a local path .* \(owner/name\).* Did you mean .*my_corpus\?"
    ):
        _read(tmp_path / "mycorpus")


def test_a_builders_name_is_not_a_corpus():
    # load_dataset("csv") would read any file in the working folder.
    with pytest.raises(CorpusError, match="csv is neither a local path"):
        _read("csv")


@pytest.mark.slow
def test_the_hub_is_unreachable(tmp_path):
    # huggingface_hub reads the setting when it is imported, so this needs a separate process.
    code = (
        "from hf_gradalign.data import CorpusError, load_corpus\n"
        "try:\n    load_corpus('someone/some_corpus')\nexcept CorpusError as error:\n    print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = forked_python.run([sys.executable, "-c", code], environment, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(
        f"someone/some_corpus is neither a local path (looked for {tmp_path}/someone/some_corpus) "
        "nor reachable on the Hub ("
    )
    assert "OfflineModeIsEnabled" in run.stdout
