"""Everything that is written has the permissions that the user's umask gives."""

import os
import stat
import tarfile
from pathlib import Path

import datasets
import pytest
from toy import make_trainer

from hf_gradalign.data.readers.archives import unpack

CHECKPOINT = Path(__file__).parents[1] / "fixtures" / "aasist.pth"


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def train(folder, load_script, monkeypatch):
    trainer = make_trainer(folder, save_strategy="steps", save_steps=1, max_steps=2)
    trainer.train()
    trainer.save_model()
    trainer.save_state()


def convert(folder, load_script, monkeypatch):
    main = load_script("convert_checkpoint").main
    assert main([str(CHECKPOINT), "--num_attention_heads", "4", "--output_dir", str(folder / "model")]) == 0
    for name in ("back.pth", "back.safetensors"):
        assert main([str(folder / "model"), "--reverse", "--output_file", str(folder / name)]) == 0


def unpack_archive(folder, load_script, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
    (folder / "a.txt").write_text("x")
    with tarfile.open(folder / "clips.tar", "w") as archive:
        archive.add(folder / "a.txt", "a.txt")
    assert (unpack([folder / "clips.tar"], folder) / "clips" / "a.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("umask", "write"),
    [
        pytest.param(umask, write, marks=pytest.mark.slow if write is convert and umask != 0o002 else [])
        for umask in (0o022, 0o002, 0o077)
        for write in (train, convert, unpack_archive)
    ],
    indirect=["umask"],
)
def test_modes(tmp_path, load_script, monkeypatch, umask, write):
    folder = tmp_path / "out"
    folder.mkdir()
    write(folder, load_script, monkeypatch)
    paths = list(folder.rglob("*"))
    assert len(paths) > 4
    for path in paths:
        usual = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == usual, path
