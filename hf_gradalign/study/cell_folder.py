"""What a cell keeps on disk: how to make it, how far it is, and what came of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_gradalign.experiment.output_folder import RESULTS_NAME
from hf_gradalign.experiment.run_lock import LOCK_NAME
from hf_gradalign.training.atomic_writing import write_text_atomically


class CellFolder:
    """A cell's folder below the study's: an ordinary run, with more files beside it.

    - `options.yaml`: `python scripts/run_audio_spoof.py options.yaml` is the same run by hand;
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
        self._progress = self.path / "progress.txt"
        self._outcome = self.path / "cell.json"

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
        return self.path / "scores" / f"{evaluation_set}.txt"

    def tell_progress(self, share: float) -> None:
        """Say how much of the training is done, in [0, 1]."""
        self._progress.write_text(f"{share:.6f}\n", encoding="utf-8")

    def progress(self) -> float:
        """The share that was told last; 0 if none was."""
        try:
            return min(max(float(self._progress.read_text(encoding="utf-8")), 0.0), 1.0)
        except (OSError, ValueError):  # not there yet, or being written
            return 0.0

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Write what came of it."""
        write_text_atomically(self._outcome, json.dumps(outcome, indent=1) + "\n")

    def outcome(self) -> dict[str, Any] | None:
        """What came of it; None until it is finished."""
        if not self._outcome.is_file():
            return None
        return json.loads(self._outcome.read_text(encoding="utf-8"))


__all__ = ["CellFolder"]
