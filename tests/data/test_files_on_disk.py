import pyarrow as pa
import pytest

from hf_gradalign.data.files_on_disk import files_on_disk


def test_files_folders_and_what_is_no_file(tmp_path, monkeypatch):
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
    expected = [True, False, False, False, True, False, True, True, True]
    assert files_on_disk(pa.array(paths, pa.string())).to_pylist() == expected


@pytest.mark.parametrize("paths", [[], [None, None]])
def test_nothing_to_look_for(paths):
    assert files_on_disk(pa.array(paths, pa.string())).to_pylist() == [True] * len(paths)
