"""The folder of a trial: its options, progress and result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_gradalign.experiment.file_names import LOCK_NAME, RESULTS_NAME
from hf_gradalign.study.definition import StudyError
from hf_gradalign.study.table_files import SETTINGS
from hf_gradalign.utils.file_faults import json_fault
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.plain_text import plain_text

_LOG_END = 16_384  # bytes
_MAX_ERROR_LENGTH = 300


class TrialFolder:
    """A trial's folder in the study's folder: an ordinary run, with more files.

    - `options.yaml`: the options; `python scripts/run_audio_spoof.py options.yaml` repeats the run by hand;
    - `settings.json`: the trial's columns in the tables;
    - `log.txt`: the output of the run;
    - `progress.txt`: the fraction of the training that is done;
    - `scores/<evaluation set>.txt`: the scores;
    - `cell.json`: the result. A trial is finished when this file exists.

    Args:
        path: The folder, which need not exist yet.
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
        """Return whether training is done, so that only scoring may remain."""
        return (self.path / RESULTS_NAME).is_file()

    def score_file(self, evaluation_set: str) -> Path:
        """Return the path of the scores on the evaluation set of this name."""
        return self.scores / f"{evaluation_set}.txt"

    def write_progress(self, fraction: float) -> None:
        """Write the fraction of the training that is done, in [0, 1]."""
        self._progress.write_text(f"{fraction:.6f}\n", encoding="utf-8")

    def progress(self) -> float:
        """Return the fraction that was written last, or 0 if there is none."""
        try:
            return min(max(float(self._progress.read_text(encoding="utf-8")), 0.0), 1.0)
        except (OSError, ValueError):  # missing, or just being written
            return 0.0

    def error(self) -> str | None:
        """Return the last error message in the log of the last start, as one line."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LOG_END))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return None
        lines = [line.strip() for line in text.rpartition("\n--- ")[2].splitlines() if "rror" in line]
        return plain_text(lines[-1])[:_MAX_ERROR_LENGTH] if lines else None

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the trial's columns in the tables, so that the tables can be rebuilt without the study file."""
        write_text_atomically(self.settings_file, json.dumps(settings, indent=1) + "\n")

    def settings(self) -> dict[str, Any] | None:
        """Return what `write_settings` wrote, or None if the file is missing.

        Raises:
            StudyError: If the file is damaged, or was changed by hand.
        """
        if not self.settings_file.is_file():
            return None
        content = read_json(self.settings_file)
        for name, _ in SETTINGS:
            if content.get(name) is None:
                raise changed_file_error(self.settings_file, f"{name} is missing")
        return content

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Write the result."""
        write_text_atomically(self.outcome_file, json.dumps(outcome, indent=1) + "\n")

    def outcome(self) -> dict[str, Any] | None:
        """Return the result, or None until the trial is finished.

        Raises:
            StudyError: If the file is damaged, or was changed by hand.
        """
        if not self.outcome_file.is_file():
            return None
        content = read_json(self.outcome_file)
        parts = {"run": dict, "evaluations": list, "epochs": list}
        for name, kind in parts.items():
            if not isinstance(content.get(name), kind):
                raise changed_file_error(self.outcome_file, f"{name} is missing or not a {kind.__name__}")
        return content


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a trial.

    Raises:
        StudyError: If it does not contain a JSON object.
    """
    if fault := json_fault(path):
        raise changed_file_error(path, fault)
    return json.loads(path.read_text(encoding="utf-8"))


def changed_file_error(path: Path, reason: object) -> StudyError:
    """Return the error for a file that was changed after the trial wrote it."""
    return StudyError(
        f"{path} was changed after the trial wrote it: {reason}. Delete it, and run the study again to make a new one"
    )
