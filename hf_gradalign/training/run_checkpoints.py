"""The checkpoints in a run's folder. Incomplete ones are kept in a separate folder."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_gradalign.training.checkpoint_integrity import (
    MANIFEST_NAME,
    find_edited_files,
    find_problems,
    find_weight_problems,
    read_manifest,
    write_manifest,
)
from hf_gradalign.utils.files import flush_to_disk, patiently, refuse_link_out, remove_tree
from hf_gradalign.utils.messages import first_few

logger = logging.get_logger(__name__)

# The leading underscore keeps it from being pushed to the Hub.
UNFINISHED_DIR = "_unfinished_checkpoints"
ADAPTER_DIR = "adapter"
"""Subfolder for the PEFT adapters of a model that is saved with merged weights."""

# Everything that a run writes, and could write through a link. Other links in the folder are left to the user.
_WRITTEN = (
    "checkpoint-*",
    UNFINISHED_DIR,
    "best_checkpoints",
    ADAPTER_DIR,
    "figures",
    "runs",
    "*conflicts.*",
    "*.json",
    "*.safetensors",
    "*.bin",
    "*.md",
    "*.py",
    "*.txt",
)

_NAME = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
_REMOVED = "removed-"


class RunCheckpoints:
    """Writes, finds and deletes checkpoints so that a kill at any moment never leaves a partial one.

    A checkpoint is written to `<run>/_unfinished_checkpoints/`. Once it is complete, a manifest of its files is added,
    and an atomic rename makes it `<run>/checkpoint-<step>`. Before a checkpoint is deleted, it is renamed back. Every
    reader, transformers included, therefore finds only complete checkpoints. If a checkpoint is a link, only the link
    is deleted. If the folder of unfinished checkpoints is a link that leads outside of the run's folder,
    PermissionError is raised.

    Args:
        folder: The run's folder.

    Attributes:
        folder: The run's folder.
        unfinished: Folder where checkpoints are written, as `checkpoint-<step>`, until they are complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.unfinished = self.folder / UNFINISHED_DIR

    def path(self, step: int) -> Path:
        """Return the path of a step's checkpoint, which need not exist."""
        return self.folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"

    def all(self) -> list[Path]:
        """Return every checkpoint's folder by step, complete or not (other programs may have written some)."""
        return [path for _, path in sorted(_list_by_step(self.folder))]

    def incomplete(self) -> dict[Path, list[str]]:
        """Return what is missing or damaged in each incomplete checkpoint."""
        return {path: problems for path in self.all() if (problems := find_problems(path))}

    def complete(self) -> list[Path]:
        """Return the complete checkpoints by step, as `last_complete` defines them. Reads all of their files."""
        return [path for path in self.adopt_finished() if self.is_complete(path)]

    def last_complete(self) -> Path | None:
        """Return the complete checkpoint with the most steps, or None.

        Later ones that are incomplete or damaged are skipped, each with a warning. A checkpoint that was complete but
        not yet renamed when the run was killed is moved into place.
        """
        return next((path for path in reversed(self.adopt_finished()) if self.is_complete(path)), None)

    def is_complete(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is complete. If not, warn about missing or damaged files."""
        if problems := find_problems(checkpoint):
            logger.warning_once(f"{checkpoint} is not complete and is skipped: {first_few(problems, 3)}.")
        return not problems

    def adopt_finished(self) -> list[Path]:
        """Move checkpoints that were complete when the run was killed into place, and return `all()`."""
        for _, path in _list_by_step(self.unfinished):
            if read_manifest(path) is not None and not find_problems(path, contents=False):
                # Another process may move it first. An existing checkpoint of that step stays.
                with contextlib.suppress(OSError):
                    os.rename(path, self.folder / path.name)
        return self.all()

    def finish(self, step: int) -> Path:
        """Mark the checkpoint in `unfinished` as complete and move it into place.

        Args:
            step: Step of the checkpoint. An older checkpoint of the same step is replaced.

        Returns:
            The checkpoint's path.
        """
        draft, target = self.unfinished / self.path(step).name, self.path(step)
        write_manifest(draft, sequence=1 + max(map(_sequence, self.all()), default=0))
        replaced = None
        if not _move_into_place(draft, target):
            # After a kill between the two renames, both are in `unfinished`, and `adopt_finished` moves the new one
            # back.
            replaced = self._move_aside(target)
            _move_into_place(draft, target)
        flush_to_disk(self.folder)
        if replaced is not None:
            remove_tree(replaced)
        self._remove_if_empty()
        return target

    def remove(self, checkpoint: Path) -> None:
        """Delete a checkpoint. Its folder is moved away first, so no reader finds a partial one."""
        remove_tree(self._move_aside(checkpoint))
        self._remove_if_empty()

    def remove_oldest(self, limit: int | None, keep: Iterable[str | Path | None] = ()) -> None:
        """Delete the checkpoints that were written longest ago.

        Args:
            limit: Number of checkpoints that may stay, at least one; None or 0 for all.
            keep: Checkpoints to keep in any case; they count toward the limit. The last one written always stays.
        """
        if not limit or limit < 0:
            return
        # Checkpoints without a sequence number count as the oldest.
        by_age = [
            path for *_, path in sorted((_sequence(path), step, path) for step, path in _list_by_step(self.folder))
        ]
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
        self._remove_if_empty()

    def _move_aside(self, checkpoint: Path) -> Path:
        refuse_link_out(self.unfinished, self.folder)
        aside = self.unfinished / f"{_REMOVED}{checkpoint.name}"
        remove_tree(aside)
        self.unfinished.mkdir(exist_ok=True)
        patiently(os.rename, checkpoint, aside)
        return aside

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):  # it may not be empty
            self.unfinished.rmdir()


def require_complete(checkpoint: str | Path) -> None:
    """Check that a checkpoint is complete.

    Args:
        checkpoint: Folder of the checkpoint.

    Raises:
        FileNotFoundError: If it is incomplete or damaged; the message says what is missing or damaged, and which
            checkpoint to use instead.
    """
    path = Path(checkpoint)
    problems = find_problems(path)
    if not problems:
        return
    other = RunCheckpoints(path.parent).last_complete()
    advice = "its folder has no complete checkpoint" if other is None else f"resume from {other} instead"
    if (path / MANIFEST_NAME).is_file():
        advice += f" (if you changed the files on purpose, also delete {MANIFEST_NAME}, so that they are not compared)"
    raise FileNotFoundError(f"{path} is not a complete checkpoint: {first_few(problems, 3)}; {advice}")


def require_intact_model(folder: str | Path) -> None:
    """Check that the model in a checkpoint is unchanged since the run saved it.

    Folders without a manifest are not checked. An edited configuration is accepted with a warning.

    Args:
        folder: A checkpoint's folder, or anything else that a model can be loaded from.

    Raises:
        FileNotFoundError: If a file is missing or damaged; the message says which.
    """
    path = Path(folder)
    if not (path / MANIFEST_NAME).is_file():
        return
    if problems := find_weight_problems(path):
        raise FileNotFoundError(
            f"{path} has changed since the run saved it: {first_few(problems, 3)}. Use another checkpoint, or delete "
            f"its {MANIFEST_NAME} if you changed the files on purpose"
        )
    if edited := [name for name in find_edited_files(path) if name.endswith(".json")]:
        logger.warning(f"{path}: {first_few(edited, 3)} has changed since the run saved it. It is used as it is.")


def refuse_outside_links(folder: str | Path) -> None:
    """Check that no file or folder that a run writes is a link that leads outside of the run's folder, at any depth.

    Raises:
        PermissionError: If there is such a link.
    """
    for path in (path for pattern in _WRITTEN for path in Path(folder).glob(pattern)):
        refuse_link_out(path, folder)
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                if os.path.islink(inner := os.path.join(parent, name)):
                    refuse_link_out(inner, folder)


def _move_into_place(draft: Path, target: Path) -> bool:
    """Rename a complete checkpoint to its final name; return False if another one already has it.

    A process that starts another run from this run's last checkpoint may have renamed it first.
    """
    try:
        patiently(os.rename, draft, target)
    except FileNotFoundError:
        if not target.is_dir():
            raise
    except OSError:
        if not target.exists():
            raise
        return False
    return True


def _list_by_step(folder: Path) -> list[tuple[int, Path]]:
    try:
        matches = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [(int(match.group(1)), path) for match, path in matches if match and path.is_dir()]


def _sequence(checkpoint: Path) -> int:
    manifest = read_manifest(checkpoint)
    return 0 if manifest is None else manifest["sequence"]
