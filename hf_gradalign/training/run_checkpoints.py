"""The checkpoints in a run's folder, of which each is whole or out of the way."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.training.checkpoint_manifest import MANIFEST_NAME, read_manifest, write_manifest
from hf_gradalign.training.checkpoint_soundness import edited_files, shortcomings, weights_shortcomings
from hf_gradalign.training.links import refuse_link_out, remove_tree
from hf_gradalign.utils.atomic_writing import flush_to_disk

logger = logging.get_logger(__name__)

# The underscore keeps it out of what is pushed to the Hub.
UNFINISHED_DIR = "_unfinished_checkpoints"

_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_REMOVED = "removed-"


class RunCheckpoints:
    """Writes, finds and deletes checkpoints such that a kill at any moment leaves no half of one among them.

    A checkpoint is written in a folder aside, `<run>/_unfinished_checkpoints/`. When it is whole its files are listed
    in a manifest, and a renaming, which happens wholly or not at all, makes it `<run>/checkpoint-<step>`. One that is
    deleted goes the way back first. So every reader, transformers' own included, finds whole checkpoints only. Of a
    checkpoint that is a link the link is deleted; a folder aside that leads out of the run's raises PermissionError.

    Args:
        folder: The run's folder.

    Attributes:
        folder: The same.
        unfinished: Where checkpoints are written, as `checkpoint-<step>`, before they are whole.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.unfinished = self.folder / UNFINISHED_DIR

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or will be."""
        return self.folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"

    def all(self) -> list[Path]:
        """Every checkpoint's folder, by step, whole or not (others than this class may have written some)."""
        return [path for _, path in sorted(_numbered(self.folder))]

    def incomplete(self) -> dict[Path, list[str]]:
        """What is missing or damaged in the checkpoints that are not whole."""
        return {path: missing for path in self.all() if (missing := shortcomings(path))}

    def complete(self) -> list[Path]:
        """The checkpoints that are whole, by step, as `last_complete` finds them; all files of all are read."""
        return [path for path in self.adopt_finished() if self.is_complete(path)]

    def last_complete(self) -> Path | None:
        """The whole checkpoint of the most steps, or None.

        Those of more steps that are not whole, or damaged, are each named in a warning. One that was whole when the
        run was killed, and not yet in its place, is put there.
        """
        return next((path for path in reversed(self.adopt_finished()) if self.is_complete(path)), None)

    def is_complete(self, checkpoint: Path) -> bool:
        """Whether a checkpoint is whole; if not, a warning says what is missing or damaged."""
        if missing := shortcomings(checkpoint):
            logger.warning_once(f"{checkpoint} is not complete and is passed over: {describe(missing)}.")
        return not missing

    def adopt_finished(self) -> list[Path]:
        """Put what was whole when the run was killed in its place; gives `all()`."""
        for _, path in _numbered(self.unfinished):
            if read_manifest(path) is not None and not shortcomings(path, contents=False):
                # Another process may be quicker, and where there is one of the step already, it stays.
                with contextlib.suppress(OSError):
                    os.rename(path, self.folder / path.name)
        return self.all()

    def finish(self, step: int) -> Path:
        """Declare the checkpoint that was written in `unfinished` whole, and put it in its place.

        Args:
            step: The step; an older checkpoint of it is replaced.

        Returns:
            Its place.
        """
        draft, place = self.unfinished / self.path(step).name, self.path(step)
        write_manifest(draft, sequence=1 + max(map(_sequence, self.all()), default=0))
        replaced = None
        if not _put_in_place(draft, place):
            # A kill between the two renamings leaves both aside and whole; `complete` then puts the new one there.
            replaced = self._put_aside(place)
            _put_in_place(draft, place)
        flush_to_disk(self.folder)
        if replaced is not None:
            remove_tree(replaced)
        self._tidy()
        return place

    def remove(self, checkpoint: Path) -> None:
        """Delete a checkpoint; it is gone as a whole before its first file is."""
        remove_tree(self._put_aside(checkpoint))
        self._tidy()

    def remove_oldest(self, limit: int | None, keep: Iterable[str | Path | None] = ()) -> None:
        """Delete the checkpoints written longest ago.

        Args:
            limit: How many may stay, at least one; None or 0 for all.
            keep: Paths of checkpoints that stay, though they count; the one written last always stays.
        """
        if not limit or limit < 0:
            return
        # Without a sequence they are older than all with one.
        by_age = [path for *_, path in sorted((_sequence(path), step, path) for step, path in _numbered(self.folder))]
        kept = {Path(path).resolve() for path in (*keep, *by_age[-1:]) if path is not None}
        excess = len(by_age) - max(limit, 1)
        for path in [path for path in by_age if path.resolve() not in kept][: max(excess, 0)]:
            self.remove(path)

    def clear_unfinished(self) -> None:
        """Delete what a killed run left of checkpoints that it was writing or deleting."""
        refuse_link_out(self.unfinished, self.folder)
        if not self.unfinished.is_dir():
            return
        for path in self.unfinished.iterdir():
            if _NAME.fullmatch(path.name.removeprefix(_REMOVED)):
                remove_tree(path)
        self._tidy()

    def _put_aside(self, checkpoint: Path) -> Path:
        refuse_link_out(self.unfinished, self.folder)
        aside = self.unfinished / f"{_REMOVED}{checkpoint.name}"
        remove_tree(aside)
        self.unfinished.mkdir(exist_ok=True)
        os.rename(checkpoint, aside)
        return aside

    def _tidy(self) -> None:
        with contextlib.suppress(OSError):  # it may hold something
            self.unfinished.rmdir()


def require_complete(checkpoint: str | Path) -> None:
    """Refuse a checkpoint that is not whole.

    Args:
        checkpoint: Its folder.

    Raises:
        FileNotFoundError: If it is not whole, or damaged; the message says what is missing or damaged, and which one to
            use instead.
    """
    path = Path(checkpoint)
    missing = shortcomings(path)
    if not missing:
        return
    other = RunCheckpoints(path.parent).last_complete()
    advice = "there is no complete checkpoint beside it" if other is None else f"resume from {other} instead"
    if (path / MANIFEST_NAME).is_file():
        advice += f" (if that was done on purpose, delete its {MANIFEST_NAME} too: without it files are not compared)"
    raise FileNotFoundError(f"{path} is not a complete checkpoint: {describe(missing)}; {advice}")


def require_sound_model(folder: str | Path) -> None:
    """Refuse a model from a checkpoint whose weights are not what was saved; others are not looked at.

    A configuration that was edited is taken as it is, with a warning.

    Args:
        folder: A checkpoint's folder, or anything else that a model is loaded from.

    Raises:
        FileNotFoundError: If a file is missing or damaged; the message says which.
    """
    path = Path(folder)
    if not (path / MANIFEST_NAME).is_file():
        return
    if missing := weights_shortcomings(path):
        raise FileNotFoundError(
            f"{path} is not as the run saved it: {describe(missing)}. Take another checkpoint, or delete its "
            f"{MANIFEST_NAME} if that was done on purpose"
        )
    if edited := [name for name in edited_files(path) if name.endswith(".json")]:
        logger.warning(f"{path}: {describe(edited)} was changed since the run saved it, and is taken as it is.")


def describe(missing: list[str]) -> str:
    """Shortcomings as a phrase."""
    return ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")


def _put_in_place(draft: Path, place: Path) -> bool:
    """Rename a whole checkpoint; gives whether it is in its place, and not another one.

    A process that looks for the run's last checkpoint meanwhile, to begin another run from it, may have been quicker.
    """
    try:
        os.rename(draft, place)
    except FileNotFoundError:
        if not place.is_dir():
            raise
    except OSError:
        if not place.exists():
            raise
        return False
    return True


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    try:
        matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(int(match.group(1)), path) for match, path in matches if match and path.is_dir()]


def _sequence(checkpoint: Path) -> int:
    manifest = read_manifest(checkpoint)
    return 0 if manifest is None else manifest["sequence"]
