"""The outcome of a trial, judged by the files it leaves."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SAME, REFUSED, LOST, MIXED, SILENT = "as uninterrupted", "refused or skipped", "lost", "mixed", "silent"
BAD = (LOST, MIXED, SILENT)
Files = Mapping[str, bytes]

_TIMES = re.compile(r"(_runtime|_per_second|_seconds|_secs|_time|_at)$|^(seconds_|peak_memory)")
_OWN_FOLDER = ("settings", "versions")
_LEFT_OUT = re.compile(
    r"\.lock$|\.holder$|\.draft($|/)|(^|/)log\.txt$|training_args\.bin$|tfevents|(^|/)(checkpoint-\d+|best_checkpoints|"
    r"_unfinished_checkpoints|_replaced)(/|$)|run_arguments\.json$|_fingerprint\.json$|\.log$|progress\.txt$"
)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
        kind: Kind of the trial, as in the table.
        trial: Number of the trial.
        outcome: One of the five outcomes.
        detail: What was done and what happened.
        seconds: Duration of the trial.
    """

    kind: str
    trial: int
    outcome: str
    detail: str = ""
    seconds: float = 0.0


def read_results(folder: Path, left_out: Iterable[str] = ()) -> Files:
    """Read the files of a folder that count, by name, without times and without the path of the folder."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if _LEFT_OUT.search(name) or name in left_out:
            continue
        content = path.read_bytes().replace(str(folder).encode(), b"FOLDER")
        if path.suffix == ".json":
            content = json.dumps(_timeless(json.loads(content)), indent=1).encode()
        files[name] = content
    return files


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        kept = {name: value for name, value in content.items() if not _TIMES.search(name) and name not in _OWN_FOLDER}
        return {name: _timeless(value) for name, value in kept.items()}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def judge(found: Files, wholes: Sequence[Files]) -> tuple[str, str] | None:
    """Compare files with the results of uninterrupted commands.

    Args:
        found: The files, by name.
        wholes: The results of each uninterrupted command.

    Returns:
        None if the files equal one of the results. Otherwise, `MIXED` if each piece (a line of a text, another file) is
        from one of them but not all from the same, `LOST` if pieces are missing, or `SILENT` if some are from none
        (with a message, the caller may count that as lost); and the file that shows it.
    """
    if any(found == whole for whole in wholes):
        return None
    nearest = min(wholes, key=lambda whole: len(_differing(found, whole)))
    where = ", ".join(_differing(found, nearest)[:3])
    pieces = {name: _pieces(name, content) for name, content in found.items()}
    known = [{name: _pieces(name, content) for name, content in whole.items()} for whole in wholes]
    if any(all(these <= whole.get(name, set()) for name, these in pieces.items()) for whole in known):
        return LOST, where
    if all(these <= set().union(*(whole.get(name, set()) for whole in known)) for name, these in pieces.items()):
        return MIXED, where
    return SILENT, where


def _differing(found: Files, whole: Files) -> list[str]:
    return [name for name in sorted({**found, **whole}) if found.get(name) != whole.get(name)]


def _pieces(name: str, content: bytes) -> set[bytes]:
    is_text = name.endswith((".txt", ".tsv", ".csv", ".jsonl", ".md", ".yaml", ".json"))
    return set(content.splitlines()) if is_text else {content}


class Record:
    """The finished trials in a file, one line per trial, so that an interrupted fault run can resume.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: dict[tuple[str, int], Outcome] = {}
        if path.is_file():
            whole = path.read_bytes().rpartition(b"\n")[0]
            found = [Outcome(**json.loads(line)) for line in whole.splitlines()]
            self.outcomes = {(each.kind, each.trial): each for each in found}
            if not path.read_bytes().endswith(b"\n"):
                path.write_bytes(whole + b"\n" * bool(whole))

    def add(self, outcome: Outcome) -> None:
        """Add a trial."""
        self.outcomes[outcome.kind, outcome.trial] = outcome
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(outcome)) + "\n")

    def table(self, kinds: Sequence[str]) -> str:
        """Return a table with the number of outcomes per kind."""
        columns = (SAME, REFUSED, *BAD)
        lines = [f"{'kind':<28} {'trials':>6}  " + "  ".join(columns)]
        for kind in kinds:
            these = [each.outcome for each in self.outcomes.values() if each.kind == kind]
            counts = "  ".join(f"{these.count(column):>{len(column)}}" for column in columns)
            lines.append(f"{kind:<28} {len(these):>6}  {counts}")
        return "\n".join(lines)
