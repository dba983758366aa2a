import os

import pytest

from hf_gradalign.training.atomic_writing import write_text_atomically


def test_old_or_new(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_text_atomically(path, "old ä")
    assert path.read_text(encoding="utf-8") == "old ä"

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_text_atomically(path, "new")
    assert path.read_text(encoding="utf-8") == "old ä"
    write_text_atomically(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
