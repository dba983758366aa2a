"""Audio files that a protocol names and that are not on disk: counted, named, and left out if asked for."""

from __future__ import annotations

import logging
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from hf_gradalign.data.errors import CorpusError

logger = logging.getLogger(__name__)

OnMissingAudio = Literal["stop", "skip"]
_SHOWN = 20


def check_on_missing_audio(choice: str) -> None:
    """Raise ValueError unless `choice` is one of `OnMissingAudio`."""
    if choice not in get_args(OnMissingAudio):
        raise ValueError(f"on_missing_audio must be one of {', '.join(get_args(OnMissingAudio))}, not {choice!r}.")


class MissingAudio:
    """Gathers the missing files of a corpus' splits, to tell of all of them at once.

    Args:
        shown: the corpus, for messages.
        on_missing_audio: `stop` raises for any missing file; `skip` leaves its clip out, with a warning.
    """

    def __init__(self, shown: str, on_missing_audio: OnMissingAudio) -> None:
        check_on_missing_audio(on_missing_audio)
        self._shown = shown
        self._skips = on_missing_audio == "skip"
        self._reports: list[str] = []
        self._is_fatal = False

    def note(self, split: str, is_there: pa.Array, files: pa.Array | pa.ChunkedArray) -> None:
        """Look at a split's files.

        Args:
            split: its name.
            is_there: whether each file is on disk.
            files: their names, for messages.
        """
        absent = pc.invert(is_there)
        n_absent = pc.sum(absent).as_py() or 0
        if n_absent == 0:
            return
        names = pc.filter(files, absent).slice(0, _SHOWN).to_pylist()
        more = f"\n  ... and {n_absent - _SHOWN} more" if n_absent > _SHOWN else ""
        listed = "\n".join(f"  {name}" for name in names)
        self._reports.append(f"{n_absent} of {len(is_there)} audio files of the {split} split:\n{listed}{more}")
        self._is_fatal |= not self._skips or n_absent == len(is_there)

    def settle(self) -> None:
        """Raise, or warn, where files were missing.

        Raises:
            CorpusError: if there were any and `on_missing_audio` is `stop`, or if a split lacks all of its files.
        """
        if not self._reports:
            return
        message = f"{self._shown}: missing on disk are " + "\nand ".join(self._reports)
        if not self._is_fatal:
            logger.warning("%s\nThese clips are left out.", message)
            return
        hint = "" if self._skips else ", or leave their clips out with --on_missing_audio skip"
        raise CorpusError(f"{message}\nGet the files, or correct the path{hint}.")
