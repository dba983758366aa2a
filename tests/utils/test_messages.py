import errno
import re

import pytest

from hf_gradalign.utils.messages import error_line, is_disk_full, require_room


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device ("),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change its permissions"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "a: Not a directory; a file is where a folder"),
        (OSError("said in words"), "said in words"),
        (ValueError("\x1b[31mred"), "red"),
    ],
)
def test_a_line_has_the_path_and_the_next_step(error, line):
    assert error_line(error).startswith(f"error: {line}")


def test_libraries_words_for_a_full_disk(tmp_path):
    for text in ("I/O error: No space left on device (os error 28)", "[enforce fail at inline_container.cc:672] write"):
        assert is_disk_full(RuntimeError(text))
        line = error_line(RuntimeError(text), tmp_path / "new" / "folder")
        assert re.fullmatch(
            rf"error: {tmp_path}/new/folder: No space left on device \([\d,]+ bytes are free\); free some space.*", line
        )
    assert not is_disk_full(ValueError("no file"))


def test_an_endless_message_is_cut():
    line = error_line(ValueError("a" + "x" * 19_998 + "z"))
    assert len(line) < 2100
    assert line.startswith("error: ax")
    assert "x... (18,000 more characters) ...x" in line
    assert line.endswith("xz")


def test_room_is_looked_for_before_the_work(tmp_path):
    require_room(tmp_path / "a" / "b", 1000)
    assert not (tmp_path / "a").exists()
    with pytest.raises(OSError, match=r"c: about 1,000,000,000,000\.0 MB are needed and [\d,.]+ MB are free"):
        require_room(tmp_path / "c", 10**18)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        require_room(tmp_path / "file" / "below", 1)
