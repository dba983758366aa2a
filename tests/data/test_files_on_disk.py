import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from hf_gradalign.data.arrow import with_slashes
from hf_gradalign.data.files_on_disk import find_on_disk


def test_files_folders_and_missing_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.wav").touch()
    (tmp_path / "here.wav").touch()
    paths = [
        str(tmp_path / "a" / "x.wav"),
        str(tmp_path / "a" / "y.wav"),
        str(tmp_path / "b" / "x.wav"),
        str(tmp_path / "a"),
        "here.wav",
        "gone.wav",
        "a/x.wav",
        "hf://datasets/someone/clips/x.wav",
        None,
    ]
    expected = [paths[0], None, None, None, "here.wav", None, "a/x.wav", paths[7], None]
    assert find_on_disk(pa.array(paths, pa.string())).to_pylist() == expected


@pytest.mark.parametrize("paths", [[], [None, None]])
def test_no_paths(paths):
    assert find_on_disk(pa.array(paths, pa.string())).to_pylist() == paths


COMPOSED, DECOMPOSED = "gr\u00f6\u00dfe", "gro\u0308\u00dfe"


@pytest.mark.parametrize(("on_disk", "requested"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_another_unicode_form(tmp_path, on_disk, requested):
    (tmp_path / on_disk / on_disk).mkdir(parents=True)
    for name in (f"{on_disk}.wav", f"{on_disk}/x.wav"):
        (tmp_path / on_disk / name).touch()
    paths = [f"{tmp_path}/{requested}/{form}" for form in (f"{requested}.wav", f"{requested}/x.wav", requested)]
    expected = [f"{tmp_path}/{on_disk}/{on_disk}.wav", f"{tmp_path}/{on_disk}/{on_disk}/x.wav", None]
    assert find_on_disk(pa.array(paths)).to_pylist() == expected


def test_both_unicode_forms(tmp_path):
    paths = [f"{tmp_path}/{name}.wav" for name in (COMPOSED, DECOMPOSED)]
    for path in paths:
        Path(path).touch()
    assert find_on_disk(pa.array([*paths, f"{tmp_path}/ {COMPOSED}.wav"])).to_pylist() == [*paths, None]


@pytest.mark.parametrize("name", ["x.wav ", "\ufeffx.wav", '"x.wav"', "x.wav\r", " 'x.wav'"])
def test_blanks_and_quotes_around_a_name(tmp_path, name):
    (tmp_path / "x.wav").touch()
    assert find_on_disk(pa.array([f"{tmp_path}/{name}"])).to_pylist() == [f"{tmp_path}/x.wav"]


def test_backslashes(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.wav").touch()
    assert find_on_disk(pa.array([f"{tmp_path}/a\\b\\x.wav"])).to_pylist() == [f"{tmp_path}/a/b/x.wav"]


def test_other_files_with_names_that_are_not_utf8(tmp_path):
    for name in (b"x.wav", b"bad\xff.wav"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    assert find_on_disk(pa.array([f"{tmp_path}/x.wav", f"{tmp_path}/ x.wav"])).to_pylist() == [f"{tmp_path}/x.wav"] * 2


def test_windows_paths_have_slashes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    paths = pa.array([r"C:\a/b.wav", None])
    assert with_slashes(paths).to_pylist() == [r"C:\a/b.wav", None]
    monkeypatch.setattr(sys, "platform", "win32")
    assert with_slashes(paths).to_pylist() == ["C:/a/b.wav", None]
