"""What a cell keeps on disk: how to make it, how far it is, and what came of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_gradalign.experiment.file_names import RESULTS_NAME
from hf_gradalign.experiment.run_lock import LOCK_NAME
from hf_gradalign.study.errors import StudyError
from hf_gradalign.study.table_files import SETTINGS
from hf_gradalign.utils.atomic_writing import write_text_atomically
from hf_gradalign.utils.file_faults import json_fault
from hf_gradalign.utils.plain_text import plain_text

_LOG_END = 16_384
_SHOWN = 300


class CellFolder:
    """A cell's folder below the study's: an ordinary run, with more files beside it.

    - `options.yaml`: `python scripts/run_audio_spoof.py options.yaml` is the same run by hand;
    - `settings.json`: what the tables call it;
    - `log.txt`: what it printed;
    - `progress.txt`: the share that is done;
    - `scores/<evaluation set>.txt`: the scorer's;
    - `cell.json`: what came of it. The cell is finished when it is there.

    Args:
        path: The folder; it need not be there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.options_file = self.path / "options.yaml"
        self.log = self.path / "log.txt"
        self.lock = self.path / LOCK_NAME
        self.scores = self.path / "scores"
        self._progress = self.path / "progress.txt"
        self.settings_file = self.path / "settings.json"
        self.outcome_file = self.path / "cell.json"

    def write_options(self, options: Mapping[str, Any]) -> None:
        """Write the run's configuration file."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.options_file, yaml.safe_dump(dict(options), sort_keys=False))

    @property
    def is_trained(self) -> bool:
        """Whether only the scoring is left to do."""
        return (self.path / RESULTS_NAME).is_file()

    def score_file(self, evaluation_set: str) -> Path:
        """Where the scores of the evaluation set of this name are."""
        return self.scores / f"{evaluation_set}.txt"

    def tell_progress(self, share: float) -> None:
        """Say how much of the training is done, in [0, 1]."""
        self._progress.write_text(f"{share:.6f}\n", encoding="utf-8")

    def progress(self) -> float:
        """The share that was told last; 0 if none was."""
        try:
            return min(max(float(self._progress.read_text(encoding="utf-8")), 0.0), 1.0)
        except (OSError, ValueError):  # not there yet, or being written
            return 0.0

    def error(self) -> str | None:
        """The last error that the log of the last start has, in a line."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_END))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return None
        lines = [line.strip() for line in text.rpartition("\n--- ")[2].splitlines() if "rror" in line]
        return plain_text(lines[-1])[:_SHOWN] if lines else None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write what the tables say of the cell: they can then be made without the study's file."""
        write_text_atomically(self.settings_file, json.dumps(settings, indent=1) + "\n")

    def settings(self) -> dict[str, Any] | None:
        """What `write_settings` wrote; None where that is missing."""
        if not self.settings_file.is_file():
            return None
        content = read_json(self.settings_file)
        for name, _ in SETTINGS:
            if content.get(name) is None:
                raise changed_file(self.settings_file, f"{name} is missing")
        return content

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Write what came of it."""
        write_text_atomically(self.outcome_file, json.dumps(outcome, indent=1) + "\n")

    def outcome(self) -> dict[str, Any] | None:
        """What came of it; None until it is finished.

        Raises:
            StudyError: If the file is damaged, or was changed by hand.
        """
        if not self.outcome_file.is_file():
            return None
        content = read_json(self.outcome_file)
        parts = {"run": dict, "evaluations": list, "epochs": list}
        for name, kind in parts.items():
            if not isinstance(content.get(name), kind):
                raise changed_file(self.outcome_file, f"{name} is missing or no {kind.__name__}")
        return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a cell's.

    Raises:
        StudyError: If it holds no JSON object.
    """
    if fault := json_fault(path):
        raise changed_file(path, fault)
    return json.loads(path.read_text(encoding="utf-8"))


def changed_file(path: Path, reason: object) -> StudyError:
    """The error for a file that is not as a cell wrote it."""
    return StudyError(
        f"{path} is not as the cell wrote it: {reason}. Delete it, and the study's command makes it again"
    )


__all__ = ["CellFolder", "changed_file", "read_json"]
