import io
import tarfile
import zipfile

import datasets
import numpy as np
import pytest
import soundfile
from datasets import ClassLabel, Dataset

RATE = 16_000


@pytest.fixture(scope="session", autouse=True)
def _private_datasets_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets_cache"))
        yield


@pytest.fixture
def make_samples():
    """A tone in noise, shape (time,) or (time, channels). No two parts of it are alike."""

    def make(n_samples, channels=1, seed=0):
        rng = np.random.default_rng(seed)
        tone = 0.4 * np.sin(np.arange(n_samples) ** 1.3 * 0.01)[:, None] * np.linspace(0.4, 1, channels)
        samples = tone + rng.normal(0, 0.03, (n_samples, channels))
        return samples.squeeze(1) if channels == 1 else samples

    return make


@pytest.fixture
def write_clip(tmp_path, make_samples):
    """Write a clip into tmp_path. Returns its path."""

    def write(name, n_samples=8000, *, rate=RATE, channels=1, subtype=None, seed=0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        file_format = {"opus": "OGG"}.get(path.suffix[1:])
        soundfile.write(path, make_samples(n_samples, channels, seed), rate, subtype=subtype, format=file_format)
        return path

    return write


@pytest.fixture
def make_dataset():
    """A data set of these paths (None for null audio), with the columns of load_corpus."""

    def make(paths):
        return (
            Dataset.from_dict(
                {
                    "audio": [path and str(path) for path in paths],
                    "utterance_id": [f"utt_{index}" for index in range(len(paths))],
                    "label": [index % 2 for index in range(len(paths))],
                }
            )
            .cast_column("audio", datasets.Audio(decode=False))
            .cast_column("label", ClassLabel(names=["spoof", "bonafide"]))
        )

    return make


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A separate folder for unpacked archives."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def clip(write_clip):
    """The bytes of a clip. Each seed gives another clip."""

    def clip(seed=0, suffix="wav"):
        return write_clip(f"made/clip_{seed}.{suffix}", 400, seed=seed).read_bytes()

    return clip


@pytest.fixture
def pack(tmp_path, cache):
    """Write an archive with these members (bytes by name). Returns its path."""

    def pack(name, members):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as file:
                for member, data in members.items():
                    file.writestr(member, data)
        else:
            mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.name.rpartition(".")[2], "w")
            with tarfile.open(path, mode) as file:
                for member, data in members.items():
                    information = tarfile.TarInfo(member)
                    information.size = len(data)
                    file.addfile(information, io.BytesIO(data))
        return path

    return pack
