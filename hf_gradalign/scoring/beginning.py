"""How a scoring begins: with what lies where its score file goes, and as the only one that writes it."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_gradalign.file_locks import hold_lock
from hf_gradalign.scoring.progress_store import ProgressStore, differences

_START_OVER = "To start over: --overwrite (overwrite=True), or another output file"


@contextmanager
def begin(
    score_file: Path, store: ProgressStore, settings: Future[dict[str, Any]], overwrite: bool, at_once: bool
) -> Iterator[bool]:
    """Check what lies on the disk, and write a score file alone until the block is left.

    A store that is open comes before a score file: that is a scoring that replaces the file, or one that was killed
    when it had just written it.

    Args:
        score_file: The score file; `<stem>.json` is of its settings, and `<stem>.lock` is locked.
        store: What has been scored so far.
        settings: `describe_scoring`. It is waited for only where there is something to compare it with.
        overwrite: Start over.
        at_once: Open the store now, because other processes will write to it.

    Yields:
        Whether the score file is complete already, and of these settings.

    Raises:
        LockHeldError: If another process writes the score file.
        ValueError: If what is there is of something else; the message says what to do.
    """
    settings_file = score_file.with_suffix(".json")
    if score_file.exists() and not store.folder.exists() and not overwrite:  # no write, so no lock: it may be read-only
        _require_free(settings_file, score_file)
        _require_same(score_file, settings_file, settings.result())
        yield True
        return
    lock = score_file.with_suffix(".lock")
    with hold_lock(lock, f"the score file {score_file}"):
        try:
            _require_free(settings_file, score_file)
            yield _is_complete(score_file, settings_file, store, settings, overwrite, at_once)
        finally:
            lock.unlink(missing_ok=True)


def _is_complete(
    score_file: Path,
    settings_file: Path,
    store: ProgressStore,
    settings: Future[dict[str, Any]],
    overwrite: bool,
    at_once: bool,
) -> bool:
    if overwrite:
        store.remove()
    elif store.is_open:
        try:
            store.open(settings.result())
        except ValueError as other:
            if score_file.exists() and settings_file.exists() and not _difference(settings_file, settings.result()):
                return True  # what is unfinished was to replace it
            raise ValueError(f"{other}. {_START_OVER}") from None
    elif score_file.exists():
        _require_same(score_file, settings_file, settings.result())
        store.remove()  # a kill came between
        return True
    if at_once:
        store.open(settings.result())
    return False


def _require_free(settings_file: Path, score_file: Path) -> None:
    """Refuse to write settings over a file that is of something else, such as of `scores.tsv` beside `scores.txt`."""
    if not settings_file.exists():
        return
    try:
        content = json.loads(settings_file.read_text(encoding="utf-8"))
        owner = content["report"]["score_file"] if "settings" in content else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        owner = None
    if isinstance(owner, str) and score_file.exists() and not score_file.with_name(owner).exists():
        return  # both were renamed together
    if owner != score_file.name:
        raise ValueError(
            f"the settings of {score_file} would be written to {settings_file}, which is "
            f"{'another file' if owner is None else f'of {owner}'}: give the score file another name"
        )


def _require_same(score_file: Path, settings_file: Path, settings: dict[str, Any]) -> None:
    if not settings_file.is_file():
        raise ValueError(f"{score_file} exists, and nothing beside it says what it is of. {_START_OVER}")
    if differing := _difference(settings_file, settings):
        raise ValueError(f"{score_file} is of another scoring: {differing}. {_START_OVER}")


def _difference(settings_file: Path, settings: dict[str, Any]) -> str:
    before = json.loads(settings_file.read_text(encoding="utf-8"))["settings"]
    return differences(before, json.loads(json.dumps(settings)))
