"""One run at a time in a folder; the processes of a distributed run count as one."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from accelerate import PartialState
from transformers.utils import logging

from hf_gradalign.experiment.file_names import RUNS_DIR
from hf_gradalign.experiment.output_folder import refuse_occupied, resolve_output_folder, run_folder
from hf_gradalign.experiment.processes import on_main_process
from hf_gradalign.utils.file_locks import LockHeldError, hold_lock
from hf_gradalign.utils.files import refuse_link_out

logger = logging.get_logger(__name__)

LOCK_NAME = "_running.lock"
"""In a run's folder; the underscore keeps it out of what is pushed to the Hub."""

_LOOK_EVERY = 1.0  # seconds


@contextlib.contextmanager
def hold_output_folder(
    output_dir: str | None, resume_from: str | None, label: str, *, overwrite: bool = False, dry_run: bool = False
) -> Iterator[tuple[str, bool]]:
    """Keep other runs out of the folder that a run is written to; what is in it is looked at afterwards.

    Where the last checkpoint of a named folder is resumed (`--output_dir X --resume_from_checkpoint`, the command of a
    preemptible job), a second start waits for the first. A folder that is made here and stays empty is removed.

    Args:
        output_dir: As for `resolve_output_folder`, which comes next, with the folder.
        resume_from: Likewise.
        label: Likewise.
        overwrite: Likewise.
        dry_run: Make no folder.

    Yields:
        The folder, and whether another run in it was waited for.

    Raises:
        LockHeldError: If another run is in the folder.
        FileExistsError: As `resolve_output_folder`.
        FileNotFoundError: As `resolve_output_folder`.
    """
    if output_dir is None and resume_from is None:
        new = _missing(Path(RUNS_DIR))
        folder = Path(resolve_output_folder(None, None, label, create=not dry_run)[0])
        new.insert(0, folder)
    else:
        folder = Path(output_dir) if output_dir else run_folder(resume_from)
        new = _missing(folder)
        is_resumed = resume_from is not None and folder.resolve() == run_folder(resume_from, output_dir).resolve()
        if not is_resumed and not (folder / LOCK_NAME).exists():
            on_main_process(lambda: refuse_occupied(folder, overwrite))  # before a file is put there
    if dry_run and not folder.exists():
        yield str(folder), False
        return
    waited = False
    with contextlib.ExitStack() as stack:
        while holder := on_main_process(lambda: _take(folder, stack, may_wait=resume_from == "last")):
            if not waited:
                logger.warning(f"The run in {folder} is in use by {holder}: waiting for it to end.")
            waited = True
            time.sleep(_LOOK_EVERY)
        if PartialState().is_main_process:
            stack.callback(_remove_if_empty, new)
        yield str(folder), waited


def _take(folder: Path, stack: contextlib.ExitStack, may_wait: bool) -> str | None:
    """Take the folder's lock, or say who has it."""
    folder.mkdir(parents=True, exist_ok=True)
    refuse_link_out(folder / LOCK_NAME, folder)
    try:
        stack.enter_context(hold_lock(folder / LOCK_NAME, f"the run in {folder}"))
    except LockHeldError as held:
        if not may_wait:
            raise
        return held.holder
    return None


def _missing(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_if_empty(new: list[Path]) -> None:
    """Take away the folders that were made here, innermost first, where nothing but the lock is in them."""
    for path in new:
        with contextlib.suppress(OSError):
            if {each.name for each in path.iterdir()} <= {LOCK_NAME, f"{LOCK_NAME}.holder"}:
                shutil.rmtree(path)


__all__ = ["LOCK_NAME", "hold_output_folder"]
