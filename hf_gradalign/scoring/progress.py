"""Stores the progress of scoring, so that it can be resumed after an interruption."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gradalign.score_files.writing import read_score_file
from hf_gradalign.utils.file_locks import delete_held_lock, hold_lock
from hf_gradalign.utils.files import flush_to_disk, write_text_atomically

_SETTINGS_NAME = "settings.json"
# Earlier versions also stored the columns of the score file, which can change without scoring again.
_NO_SETTINGS = ("columns",)


@dataclass(frozen=True)
class ScoredChunk:
    """The results of a chunk.

    Attributes:
        number: The chunk's number in the corpus.
        scores: One per clip; None for clips that could not be scored.
        bad: The reason why a clip could not be scored, by its index in the chunk.
        loud: The largest absolute value of a clip with samples outside [-1, 1], by its index in the chunk.
        silent: Indices in the chunk of clips in which all samples that the model gets are equal.
    """

    number: int
    scores: list[float | None]
    bad: dict[int, str]
    loud: dict[int, float] = field(default_factory=dict)
    silent: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ScoredPart:
    """The scores of consecutive windows in a chunk with long recordings.

    Attributes:
        number: The chunk's number in the corpus.
        first: The number of the first window in the chunk.
        owners: The index in the chunk of each window's clip.
        scores: One per window; None if it is not finite.
    """

    number: int
    first: int
    owners: list[int]
    scores: list[float | None]


class ProgressStore:
    """A folder with the settings used for scoring, and one file per process with a line per chunk.

    A line that was interrupted is removed when scoring resumes, and its chunk is scored again.

    Args:
        folder: The folder. Created if missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def is_open(self) -> bool:
        """Whether the folder has settings, so that chunks can be added."""
        return (self.folder / _SETTINGS_NAME).is_file()

    def open(self, settings: Mapping[str, Any]) -> None:
        """Begin scoring, or resume with the same settings. One process calls this before any process calls `append`.

        Raises:
            ValueError: If the folder has results with other settings. The message names them.
        """
        path = self.folder / _SETTINGS_NAME
        if not path.is_file():
            # If there are lines but no settings, a process was killed before it wrote the settings, or in `remove`.
            self.remove()
            self.folder.mkdir(parents=True)
            write_text_atomically(path, json.dumps(settings, indent=2) + "\n")
            return
        differing = differences(json.loads(path.read_text(encoding="utf-8")), settings)
        if differing:
            raise ValueError(f"{self.folder} contains unfinished results with other settings: {differing}")

    def append(self, process: int, scored: ScoredChunk | ScoredPart, settings: Mapping[str, Any]) -> None:
        """Add a line with a chunk, or a part of one, to a process's file in one write. It refers to the settings."""
        fields = {"chunk" if name == "number" else name: value for name, value in vars(scored).items()}
        line = json.dumps({**fields, "of": _digest(settings)}, allow_nan=False)
        with self._file_of(process).open("ab") as file:
            file.write(line.encode() + b"\n")

    def recover(self, process: int) -> None:
        """Remove an incomplete line at the end of a process's file."""
        path = self._file_of(process)
        if not path.is_file():
            return
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)

    def read(self, settings: Mapping[str, Any]) -> dict[int, ScoredChunk]:
        """Return all complete chunks with these settings, by number, from all processes.

        Lines with other settings, from a process that outlived a killed run, are skipped.
        """
        chunks = {}
        for line in self._lines(settings):
            if "first" not in line:
                bad = {int(index): reason for index, reason in line["bad"].items()}
                loud = {int(index): peak for index, peak in line.get("loud", {}).items()}
                silent = line.get("silent", [])
                chunks[line["chunk"]] = ScoredChunk(line["chunk"], line["scores"], bad, loud, silent)
        return chunks

    def read_parts(self, settings: Mapping[str, Any]) -> dict[int, ScoredPart]:
        """Return the scored windows of incomplete chunks, by chunk: those from the first window up to the first gap."""
        begun: dict[int, ScoredPart] = {}
        lines = [line for line in self._lines(settings) if "first" in line]
        for line in sorted(lines, key=lambda line: line["first"]):
            part = begun.setdefault(line["chunk"], ScoredPart(line["chunk"], 0, [], []))
            if line["first"] == len(part.owners):  # there is no gap before it, and it is not a duplicate
                part.owners.extend(line["owners"])
                part.scores.extend(line["scores"])
        return begun

    def _lines(self, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        # The stored settings may differ in settings that do not matter.
        stored = json.loads((self.folder / _SETTINGS_NAME).read_text(encoding="utf-8"))
        known = {None, _digest(settings), _digest(stored)}
        for path in sorted(self.folder.glob("process-*.jsonl")):
            for text in path.read_bytes().split(b"\n")[:-1]:
                line = json.loads(text)
                if line.get("of") in known:
                    yield line

    def flush(self, process: int) -> None:
        """Write a process's file to the disk, so that it survives a crash of the machine."""
        flush_to_disk(self._file_of(process))

    def remove(self) -> None:
        """Delete the folder, the settings last."""
        for path in sorted(self.folder.glob("process-*.jsonl")):
            path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file_of(self, process: int) -> Path:
        return self.folder / f"process-{process}.jsonl"


def _digest(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe the settings that differ, with their values. Empty if none do."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name) and name not in _NO_SETTINGS]
    return "; ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in names)


def finite_or_none(scores: Iterable[float]) -> list[float | None]:
    """Convert scores for JSON, with None for those that are not finite."""
    return [float(score) if math.isfinite(score) else None for score in scores]


START_OVER = "To start over: --overwrite (overwrite=True), or another output file"


@contextmanager
def begin(
    score_file: Path,
    store: ProgressStore,
    settings: Future[dict[str, Any]],
    overwrite: bool,
    at_once: bool,
    is_current: Callable[[], bool],
) -> Generator[bool]:
    """Check existing files, and lock a score file until the block ends.

    An open store takes precedence over a score file. It belongs to a run that replaces the file, or that was killed
    right after writing it.

    Args:
        score_file: The score file. Its settings are in `<stem>.json`, and its lock is `<stem>.lock`.
        store: The progress so far.
        settings: The result of `describe_scoring`. It is only waited for if there is something to compare it with.
        overwrite: Whether to start over.
        at_once: Whether to open the store now, because other processes will write to it.
        is_current: Function that returns whether a complete score file needs no update.

    Yields:
        Whether the score file is already complete, with the same settings.

    Raises:
        LockHeldError: If another process is writing the score file.
        ValueError: If existing files belong to something else. The message says what to do.
    """
    settings_file = score_file.with_suffix(".json")
    if score_file.exists() and not store.folder.exists() and not overwrite:
        _require_own_settings_file(settings_file, score_file)
        _require_same_settings(score_file, settings_file, settings.result())
        if is_current():  # no lock, because the folder may be read-only
            yield True
            return
    lock = score_file.with_suffix(".lock")
    with hold_lock(lock, f"the score file {score_file}"):
        try:
            _require_own_settings_file(settings_file, score_file)
            yield _is_complete(score_file, settings_file, store, settings, overwrite, at_once)
        finally:
            delete_held_lock(lock)


def _is_complete(
    score_file: Path,
    settings_file: Path,
    store: ProgressStore,
    settings: Future[dict[str, Any]],
    overwrite: bool,
    at_once: bool,
) -> bool:
    if overwrite:
        _require_score_file(score_file, settings_file)
        store.remove()
    elif store.is_open:
        try:
            store.open(settings.result())
        except ValueError as other:
            if score_file.exists() and settings_file.exists() and not _difference(settings_file, settings.result()):
                return True  # the unfinished run was going to replace it
            raise ValueError(f"{other}. {START_OVER}") from None
    elif score_file.exists():
        _require_same_settings(score_file, settings_file, settings.result())
        store.remove()  # the process was killed in between
        return True
    if at_once:
        store.open(settings.result())
    return False


def _require_own_settings_file(settings_file: Path, score_file: Path) -> None:
    """Refuse to overwrite the settings file of another file, such as `scores.tsv` next to `scores.txt`."""
    if not settings_file.exists():
        return
    try:
        content = json.loads(settings_file.read_text(encoding="utf-8"))
        owner = content["report"]["score_file"] if "settings" in content else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        owner = None
    if isinstance(owner, str) and score_file.exists() and not score_file.with_name(owner).exists():
        return  # score file and settings were renamed together
    if owner != score_file.name:
        raise ValueError(
            f"the settings of {score_file} would be written to {settings_file}, which "
            f"{'is another file' if owner is None else f'belongs to {owner}'}: give the score file another name"
        )


def _require_score_file(score_file: Path, settings_file: Path) -> None:
    """Refuse to replace a file that is not a score file, such as a recording or a corpus' metadata."""
    if settings_file.exists() or not score_file.exists() or not score_file.stat().st_size:
        return
    try:
        read_score_file(score_file)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{score_file} exists and is not a score file, so it is not replaced: give the score file another name"
        ) from None


def _require_same_settings(score_file: Path, settings_file: Path, settings: dict[str, Any]) -> None:
    if not settings_file.is_file():
        raise ValueError(f"{score_file} exists, but the settings it was scored with are missing. {START_OVER}")
    if differing := _difference(settings_file, settings):
        raise ValueError(f"{score_file} was scored with other settings: {differing}. {START_OVER}")


def _difference(settings_file: Path, settings: dict[str, Any]) -> str:
    before = json.loads(settings_file.read_text(encoding="utf-8"))["settings"]
    return differences(before, json.loads(json.dumps(settings)))
