"""Error messages of commands: one line per error, with commands as the user would type them."""

import difflib
import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from hf_gradalign.utils.plain_text import plain_text

SCRIPTS = {
    "train": "run_audio_spoof.py",
    "score": "score_audio_spoof.py",
    "evaluate": "evaluate_scores.py",
    "detectors": "list_detectors.py",
    "convert": "convert_checkpoint.py",
    "export": "export_onnx.py",
    "study": "run_study.py",
    "report": "report_study.py",
    "plot-conflicts": "plot_conflicts.py",
    "arena": "write_arena_results.py",
}
"""Each command's script in a clone."""

_COMMANDS = {script: name for name, script in SCRIPTS.items()}
_SCRIPT = re.compile(rf"(?:python )?\b(?:scripts/)?({'|'.join(map(re.escape, _COMMANDS))})\b")

_NO_ACCESS = "change its permissions, or choose another path"
if sys.platform == "win32":  # which does not replace or delete open files
    _NO_ACCESS = f"close other programs that have it open, {_NO_ACCESS}"
_STEPS = {
    errno.ENOSPC: "free some space, and {again}",
    errno.EDQUOT: "free some of your quota, and {again}",
    errno.EROFS: "choose a folder that can be written, with --output_dir",
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
    errno.EEXIST: "move the existing file away, or choose another folder with --output_dir",
    errno.ENOTDIR: "a file is where a folder should be: move it away, or choose another folder with --output_dir",
    errno.EISDIR: "a folder is where a file should be: move it away, or choose another folder with --output_dir",
    errno.ENAMETOOLONG: "choose a shorter path with --output_dir",
    errno.EIO: "the disk failed to read or write: check it, or choose another one, and {again}",
    errno.ESTALE: "the network file system lost it: wait or mount it again, and {again}",
    errno.ENOTCONN: "the file system is gone: mount it again, and {again}",
}
_DISK_FULL = re.compile(r"No space left on device|\(os error 28\)|Disk quota exceeded|not enough space on the disk")
_TORCH_SAVE = re.compile(
    r"inline_container.*(?:write|unexpected pos|open file failed.*?: (.*))|iostream error|^(Parent directory .* exist)"
)
_FROM_WORKER = re.compile(
    r"^Caught \w+ in DataLoader worker.*^\w+: \[Errno (\d+)\] ([^\n]*): '([^\n]*)'$", re.DOTALL | re.MULTILINE
)
_FROM_SAFETENSORS = re.compile(r"I/O error: (.*) \(os error (\d+)\)")
_SHARED_MEMORY_FULL = re.compile(r"shared memory\(shm\)|file </torch_")
_TOO_MANY_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
_TOO_MANY_THREADS = re.compile(r"can't start new thread|Resource temporarily unavailable$")  # not one of a file
_KILLED_WORKER = re.compile(r"^DataLoader worker \(pid.*(killed by signal|exited unexpectedly)", re.DOTALL)
_SHARED_MEMORY, _LEAST_SHARED_MEMORY = Path("/dev/shm"), 2**20
_MAX_LENGTH = 2000  # characters; names and values in untrusted files may be of any length


def uses_scripts() -> bool:
    """Return whether the user runs the scripts of a clone instead of the installed command `hf-gradalign`."""
    program = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    if program.stem == "hf-gradalign" or program.parent.name == "cli":
        return False
    return (Path(__file__).parents[2] / "scripts" / SCRIPTS["train"]).is_file()


def command(name: str) -> str:
    """Return a command as the user would type it, such as `hf-gradalign score`."""
    return f"python scripts/{SCRIPTS[name]}" if uses_scripts() else f"hf-gradalign {name}"


def join_command(words: Sequence[str]) -> str:
    """Return the words of a command as the user would type them in this system's shell."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def program(name: str) -> str:
    """Return a command's name for its `--help`."""
    return SCRIPTS[name] if name in SCRIPTS and uses_scripts() else f"hf-gradalign {name}"


def use_command_names(text: str) -> str:
    """Replace the scripts in a text with the commands, if the user runs those."""
    if uses_scripts():
        return text
    text = _SCRIPT.sub(lambda match: f"hf-gradalign {_COMMANDS[match[1]]}", text)
    text = re.sub(r"\bscripts/recipes/(\w+)\.yaml", r"recipe:\1", text)
    return re.sub(r"\bscripts/studies/(\w+)\.yaml", r"study:\1", text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: similar names, or a hint to use `--help`."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else "; see --help"


def first_few(items: Sequence[object], most: int = 5, separator: str = ", ") -> str:
    """List the first items, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + more


def pluralize(number: int, one: str, several: str) -> str:
    """Return a number with its noun, such as "1 file" or "3 files"."""
    return f"{number} {one if number == 1 else several}"


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise a ValueError unless the argument of this name is one of the values of a `Literal`."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}.")


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means that the disk is full. Some libraries have their own errors for this."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return bool(_DISK_FULL.search(str(error)))


def is_outside_fault(error: BaseException) -> bool:
    """Return whether an error comes from the machine (disk, permissions, memory, limits) and not from code."""
    error = _as_system_error(error)
    is_systems = isinstance(error, OSError) and error.errno in _STEPS
    return is_systems or is_disk_full(error) or bool(_failed_torch_save(error)) or bool(_resource_line(error))


def require_space(folder: str | Path, n_bytes: int) -> None:
    """Check that a folder can be written or created, and that its file system has enough space.

    Args:
        folder: The folder.
        n_bytes: Approximate number of bytes that will be written.

    Raises:
        OSError: If it cannot be written; if space is missing, the message says how much.
    """
    parent = closest_existing(folder)
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent))
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(parent)) from None
    free = shutil.disk_usage(parent).free
    if n_bytes > free:
        raise OSError(
            f"{folder}: about {n_bytes / 1e6:,.1f} MB are needed, but {free / 1e6:,.1f} MB are free: free some "
            "space, or choose another folder"
        )


def error_line(
    error: BaseException, folder: str | Path | None = None, again: str = "run the same command again"
) -> str:
    """Return the line to print instead of a traceback for an error that ends a command.

    Args:
        error: The error. For a system error (full disk, read-only folder, ...), the line starts with the path and ends
            with what to do.
        folder: Output folder of the command, for errors that do not name a file.
        again: What to do after the problem is solved.

    Raises:
        BrokenPipeError: If the error is one, so that `cli.commands.run_command` can handle it (`command | head` is no
            error).
    """
    if isinstance(error, BrokenPipeError):
        raise error
    error = _as_system_error(error)
    if line := _resource_line(error):
        text = f"{line}, and {again}"
    elif isinstance(error, OSError) and error.errno in _STEPS:
        where = (sys.platform == "win32" and error.filename2) or error.filename or folder  # filename2: replaced, open
        text = f"{plain_text(where)}: {error.strerror}" if where else str(error.strerror)
        text += (
            _free_space_text(where) if is_disk_full(error) else ""
        ) + f"; {_STEPS[error.errno].format(again=again)}"
    elif is_disk_full(error) and not isinstance(error, ValueError):  # our own errors say which disk
        text = f"{folder}: " if folder else ""
        text += f"No space left on device{_free_space_text(folder)}; {_STEPS[errno.ENOSPC].format(again=again)}"
    elif match := _failed_torch_save(error):  # torch.save drops the system's message, unless the file cannot be opened
        text = f"{folder}: " if folder else ""
        text += f"a file could not be written{_free_space_text(folder)}"
        text += f": {plain_text(match[1] or match[2])}" if match[1] or match[2] else ""
        text += f"; if the disk or your quota is full, {_STEPS[errno.ENOSPC].format(again=again)}"
    else:
        text = plain_text(error)
    if len(text) > _MAX_LENGTH:
        half = _MAX_LENGTH // 2  # keep the end, which says what to do
        text = f"{text[:half]}... ({len(text) - _MAX_LENGTH:,} more characters) ...{text[-half:]}"
    return use_command_names(f"error: {text}")


def _as_system_error(error: BaseException) -> BaseException:
    """Return the system error behind an error of a loader worker (whose text is a traceback) or of safetensors."""
    if isinstance(error, OSError) and (match := _FROM_WORKER.search(str(error))):
        return OSError(int(match[1]), match[2], match[3])
    match = _FROM_SAFETENSORS.search(str(error))
    if match is None or isinstance(error, ValueError):  # our own errors say more
        return error
    number = int(match[2])
    found = OSError(0, match[1], None, number) if sys.platform == "win32" else OSError(number, match[1])
    return found if found.errno in _STEPS else error


def _failed_torch_save(error: BaseException) -> re.Match[str] | None:
    return _TORCH_SAVE.search(str(error)) if isinstance(error, RuntimeError) else None


def _resource_line(error: BaseException) -> str | None:
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    if _KILLED_WORKER.search(text):
        return (
            "a data loader worker was killed, most likely because memory or shared memory (/dev/shm) ran out: use "
            "fewer loader workers or smaller batches, or give a container more (docker run --shm-size 8g)"
        )
    if _SHARED_MEMORY_FULL.search(text) or _has_full_shared_memory(error):
        return (
            "shared memory (/dev/shm) is full: use fewer loader workers or smaller batches, or give a container more "
            "(docker run --shm-size 8g)"
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "there is not enough memory: use smaller batches, shorter windows or fewer loader workers"
    if number in (errno.EMFILE, errno.ENFILE) or _TOO_MANY_FILES.search(text):
        return "too many files are open: raise the limit (ulimit -n 4096) or use fewer loader workers"
    if _TOO_MANY_THREADS.search(text):
        return "no more processes or threads can be started: raise the limit (ulimit -u) or use fewer loader workers"
    return None


def _has_full_shared_memory(error: BaseException) -> bool:
    """Return whether shared memory is too full to start a worker. Errors about files would name a file."""
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    return is_full and _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free < _LEAST_SHARED_MEMORY


def _free_space_text(where: object) -> str:
    return f" ({shutil.disk_usage(closest_existing(where)).free:,} bytes are free)" if where else ""


def closest_existing(where: object) -> Path:
    """Return the absolute path, or its closest parent that exists."""
    path = Path(str(where)).absolute()
    return next(each for each in (path, *path.parents) if each.exists())
