"""Where a scoring begins, and how far it is: what a later start needs to continue."""

import hashlib
import json
import math
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_gradalign.utils.file_locks import hold_lock
from hf_gradalign.utils.files import flush_to_disk, write_text_atomically

_SETTINGS_NAME = "settings.json"


@dataclass(frozen=True)
class ScoredChunk:
    """What came of a chunk.

    Attributes:
        number: Its place in the corpus.
        scores: One a clip; None where the clip could not be scored.
        bad: What was wrong with such a clip, by its place in the chunk.
        loud: Largest absolute value of clips that have samples outside [-1, 1], by their place in the chunk.
    """

    number: int
    scores: list[float | None]
    bad: dict[int, str]
    loud: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredPart:
    """What came of some windows of a chunk with long recordings.

    Attributes:
        number: The chunk's place in the corpus.
        first: The place in the chunk of the first window.
        owners: The place in the chunk of the clip that each window is of.
        scores: One a window; None where it is not finite.
    """

    number: int
    first: int
    owners: list[int]
    scores: list[float | None]


class ProgressStore:
    """A folder with the settings of a scoring and one file per process, to which each chunk adds a line.

    A line that a kill cut short is taken away when the file is opened again, and its chunk is scored anew.

    Args:
        folder: Where; made where it is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    @property
    def is_open(self) -> bool:
        """Whether the folder has settings, so that chunks can be added."""
        return (self.folder / _SETTINGS_NAME).is_file()

    def open(self, settings: Mapping[str, Any]) -> None:
        """Begin a scoring, or go on with one that has the same settings; by one process, before `append`.

        Raises:
            ValueError: If the folder holds a scoring with other settings; the message names them.
        """
        path = self.folder / _SETTINGS_NAME
        if not path.is_file():
            # Lines without settings are of nobody: a kill came before the settings were written, or in `remove`.
            self.remove()
            self.folder.mkdir(parents=True)
            write_text_atomically(path, json.dumps(settings, indent=2) + "\n")
            return
        differing = differences(json.loads(path.read_text(encoding="utf-8")), settings)
        if differing:
            raise ValueError(f"{self.folder} holds an unfinished scoring with other settings: {differing}")

    def append(self, process: int, scored: ScoredChunk | ScoredPart, settings: Mapping[str, Any]) -> None:
        """Add a chunk, or a part of one, of a scoring with these settings to a process's file, with one write."""
        found = {"chunk" if name == "number" else name: value for name, value in vars(scored).items()}
        line = json.dumps({**found, "of": _digest(settings)}, allow_nan=False)
        with self._file_of(process).open("ab") as file:
            file.write(line.encode() + b"\n")

    def recover(self, process: int) -> None:
        """Take away what a kill left half written at the end of a process's file."""
        path = self._file_of(process)
        if not path.is_file():
            return
        with path.open("rb+") as file:
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)

    def read(self, settings: Mapping[str, Any]) -> dict[int, ScoredChunk]:
        """All whole chunks of a scoring with these settings by number, whichever process wrote them.

        Others are there where a process of a killed scoring lived on and wrote into its successor's folder.
        """
        chunks = {}
        for found in self._lines(settings):
            if "first" not in found:
                bad = {int(place): reason for place, reason in found["bad"].items()}
                loud = {int(place): peak for place, peak in found.get("loud", {}).items()}
                chunks[found["chunk"]] = ScoredChunk(found["chunk"], found["scores"], bad, loud)
        return chunks

    def read_parts(self, settings: Mapping[str, Any]) -> dict[int, ScoredPart]:
        """What has been scored of each chunk from its first window on, of a scoring with these settings."""
        begun: dict[int, ScoredPart] = {}
        parts = [found for found in self._lines(settings) if "first" in found]
        for found in sorted(parts, key=lambda found: found["first"]):
            part = begun.setdefault(found["chunk"], ScoredPart(found["chunk"], 0, [], []))
            if found["first"] == len(part.owners):  # neither a gap before it nor there already
                part.owners.extend(found["owners"])
                part.scores.extend(found["scores"])
        return begun

    def _lines(self, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        digest = _digest(settings)
        for path in sorted(self.folder.glob("process-*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                found = json.loads(line)
                if found.get("of", digest) == digest:
                    yield found

    def flush(self, process: int) -> None:
        """Have the process's file written to the disk, for when the machine is taken away."""
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
    """Which settings differ, with their values, as text; empty where none does."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(f"{name} was {before.get(name)!r} and is now {now.get(name)!r}" for name in names)


def finite_or_none(scores: Sequence[float]) -> list[float | None]:
    """Scores for JSON."""
    return [float(score) if math.isfinite(score) else None for score in scores]


_START_OVER = "To start over: --overwrite (overwrite=True), or another output file"


@contextmanager
def begin(
    score_file: Path, store: ProgressStore, settings: Future[dict[str, Any]], overwrite: bool, at_once: bool
) -> Generator[bool]:
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
