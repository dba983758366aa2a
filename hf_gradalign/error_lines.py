"""An error as a line for the terminal: what is wrong, where, and what to do."""

import errno

from hf_gradalign.plain_text import plain_text

_STEPS = {
    errno.ENOSPC: "free some space, and run the same command again",
    errno.EDQUOT: "free some of your quota, and run the same command again",
    errno.EROFS: "name a folder that can be written, with --output_dir",
    errno.EACCES: "change its permissions, or name another folder with --output_dir",
    errno.EPERM: "change its permissions, or name another folder with --output_dir",
    errno.EEXIST: "move away what is there, or name another folder with --output_dir",
    errno.ENOTDIR: "a file is where a folder belongs: move it away, or name another folder with --output_dir",
    errno.EISDIR: "a folder is where a file belongs: move it away, or name another folder with --output_dir",
    errno.ENAMETOOLONG: "name a shorter path with --output_dir",
}


def error_line(error: BaseException) -> str:
    """What to print for an error that ends a command, in place of a traceback.

    Args:
        error: If the system raised it (a full disk, a read-only folder, ...), its path comes first and what to do last.
    """
    if isinstance(error, OSError) and error.errno in _STEPS:
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {plain_text(where)}{error.strerror}; {_STEPS[error.errno]}"
    return f"error: {plain_text(error)}"


__all__ = ["error_line"]
