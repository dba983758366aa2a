import errno

import pytest

from hf_gradalign.error_lines import error_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; free some space"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device; free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "a: Permission denied; change its permissions"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "a"), "a: Not a directory; a file is where a folder"),
        (OSError("said in words"), "said in words"),
        (ValueError("\x1b[31mred"), "red"),
    ],
)
def test_a_line_has_the_path_and_the_next_step(error, line):
    assert error_line(error).startswith(f"error: {line}")
