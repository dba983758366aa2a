"""The output folder of a run: its choice, its lock, and the files that a new run replaces."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Generator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import (
    ADAPTER_CONFIG_NAME,
    ADAPTER_SAFE_WEIGHTS_NAME,
    CONFIG_NAME,
    FEATURE_EXTRACTOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    logging,
)

import hf_gradalign.models
from hf_gradalign.experiment.command_line import arguments_json
from hf_gradalign.experiment.file_names import (
    ARGUMENTS_NAME,
    FINGERPRINT_NAME,
    LOCK_NAME,
    REPLACED_DIR,
    RESULTS_NAME,
    RUNS_DIR,
)
from hf_gradalign.training.callbacks import BEST_CHECKPOINTS_DIR
from hf_gradalign.training.conflicts.record import PARQUET_NAME, RUNNING_NAME
from hf_gradalign.training.distributed import on_main_process
from hf_gradalign.training.run_checkpoints import ADAPTER_DIR, RunCheckpoints, refuse_outside_links, require_complete
from hf_gradalign.utils.file_locks import LockHeldError, hold_lock
from hf_gradalign.utils.files import refuse_link_out, require_reachable
from hf_gradalign.utils.messages import first_few
from hf_gradalign.utils.shared_folder import require_shared_folder

logger = logging.get_logger(__name__)

_LOOK_EVERY = 1.0  # seconds
# Files that a run writes before its first checkpoint.
_EARLY_NAMES = (ARGUMENTS_NAME, FINGERPRINT_NAME, RUNNING_NAME, PARQUET_NAME)
_NAMES = (
    *("README.md", RESULTS_NAME, CONFIG_NAME, SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, FEATURE_EXTRACTOR_NAME),
    *(TRAINER_STATE_NAME, TRAINING_ARGS_NAME, ADAPTER_CONFIG_NAME, ADAPTER_SAFE_WEIGHTS_NAME),
    *("scores_validation.txt", "scores_test.txt", "figures", BEST_CHECKPOINTS_DIR, ADAPTER_DIR),
    *_EARLY_NAMES,
    # The code that is saved with a detector
    *sorted(path.name for path in Path(hf_gradalign.models.__file__).parent.glob("*.py")),
)


def resolve_output_folder(
    output_dir: str | None, resume_from: str | None, label: str, *, overwrite: bool = False, create: bool = True
) -> tuple[str, str | None]:
    """Decide where a run is written and what it resumes from.

    Args:
        output_dir: The folder that the user chose, if any.
        resume_from: A checkpoint, a run folder, "last" for the last checkpoint of `output_dir`, or None.
        label: Part of the name of a new folder.
        overwrite: Whether existing files may be replaced (`set_aside`).
        create: Whether to create a new folder in `runs/` now, so that no other run takes its name.

    Returns:
        The output folder and the checkpoint to resume from. The checkpoint is None for a new run and for a run that
        starts over (see `find_run`).

    Raises:
        FileExistsError: If the folder contains a run, or other files that a run would replace, and nothing is resumed.
        FileNotFoundError: If there is no complete checkpoint to resume from.
        PermissionError: If a link in the folder would make the run write outside of it.
    """
    # All processes of a distributed run must decide in the same way, even if they see a shared disk differently.
    return on_main_process(lambda: _resolve(output_dir, resume_from, label, overwrite, create))


def _resolve(
    output_dir: str | None, resume_from: str | None, label: str, overwrite: bool, create: bool
) -> tuple[str, str | None]:
    if resume_from is None:
        folder = Path(output_dir) if output_dir else _new_folder(label, create)
        refuse_occupied(folder, overwrite)
        refuse_outside_links(folder)
        return str(folder), None
    run, checkpoint = find_run(resume_from, output_dir)
    folder = Path(output_dir) if output_dir else run
    if folder.resolve() != run.resolve() or not (checkpoint or (run / ARGUMENTS_NAME).is_file()):
        refuse_occupied(folder, overwrite)
    refuse_outside_links(folder)
    if checkpoint is None:
        logger.warning(f"{run} has no complete checkpoint to resume from, so the run starts over in {folder}.")
        return str(folder), None
    return str(folder), str(checkpoint)


def run_folder(resume_from: str, output_dir: str | None = None) -> Path:
    """Return the folder of the resumed run, without looking into it. Arguments and errors as for `find_run`."""
    by_name = resume_from != "last"
    path = resume_from if by_name else output_dir
    if path is None:
        raise FileNotFoundError(
            "--resume_from_checkpoint without a value resumes the last checkpoint in --output_dir: give the run's "
            "folder as --output_dir, or give the checkpoint"
        )
    path = Path(path).expanduser()
    require_reachable(path)
    if path.is_file() or (by_name and not path.is_dir()):
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    return path.parent if _is_checkpoint(path) else path


def find_run(resume_from: str, output_dir: str | None = None) -> tuple[Path, Path | None]:
    """Find the run that is resumed and the checkpoint to resume from.

    A run that was killed before its first checkpoint was complete starts over. With "last", a run starts from the
    beginning if there is none yet, so that a cluster job can use the same command line for every start.

    Args:
        resume_from: A checkpoint, a run folder (for its last complete checkpoint), or "last" for the last one in
            `output_dir`.
        output_dir: The folder that the user chose, if any.

    Returns:
        The run's folder and the checkpoint, which is None if the run starts over.

    Raises:
        FileNotFoundError: If there is no checkpoint, or the given one is not complete.
    """
    folder = run_folder(resume_from, output_dir)
    path = Path(output_dir if resume_from == "last" and output_dir else resume_from).expanduser()
    if _is_checkpoint(path):
        require_complete(path)
        return folder, path
    checkpoints = RunCheckpoints(path)
    last = checkpoints.last_complete()
    is_unfinished = (path / ARGUMENTS_NAME).is_file() and not (path / RESULTS_NAME).is_file()
    is_free = resume_from == "last" and not _traces(path)
    if last is None and not is_unfinished and not is_free:
        incomplete = "; ".join(
            f"{p.name}: {first_few(problems, 3)}" for p, problems in checkpoints.incomplete().items()
        )
        raise FileNotFoundError(
            f"{path} has no checkpoint to resume from ({incomplete or 'a folder named checkpoint-<step>'})"
        )
    return path, last


def _is_checkpoint(path: Path) -> bool:
    return path.is_dir() and path.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")


def _traces(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    traces = [name for name in (RESULTS_NAME, CONFIG_NAME, SAFE_WEIGHTS_NAME) if (folder / name).exists()]
    return traces + sorted(path.name for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def refuse_occupied(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder in which a new run would replace files.

    Raises:
        FileExistsError: If there are such files. The message lists them.
    """
    if folder.is_file():
        raise FileExistsError(f"--output_dir {folder} is a file")
    if overwrite:
        return
    if traces := _traces(folder):
        raise FileExistsError(
            f"{folder} already contains a run ({', '.join(traces[:4])}). Resume it with --resume_from_checkpoint "
            f"{folder}, choose another --output_dir, or replace the run with --overwrite"
        )
    if others := _files_in_the_way(folder):
        raise FileExistsError(
            f"{folder} has files that a run would replace ({first_few(others, 6)}). Choose another --output_dir, or "
            "replace them with --overwrite"
        )


def _files_in_the_way(folder: Path) -> list[str]:
    """List the files that a run would replace, except those of a run that was killed before its first checkpoint."""
    is_unfinished_run = (folder / ARGUMENTS_NAME).is_file()
    return [
        name for name in _NAMES if os.path.lexists(folder / name) and not (is_unfinished_run and name in _EARLY_NAMES)
    ]


def set_aside(folder: str | Path) -> None:
    """Move the files that a new run replaces into `_replaced/` in its folder. `remove_replaced` deletes them.

    Args:
        folder: The run's folder. Other files stay where they are.
    """
    folder = Path(folder)
    checkpoints = sorted(path.name for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    names = [name for name in (*_NAMES, *checkpoints) if os.path.lexists(folder / name)]
    if not names:
        return
    aside, copies = folder / REPLACED_DIR, 1
    while aside.exists():  # left by a run that was killed
        copies += 1
        aside = folder / f"{REPLACED_DIR}_{copies}"
    aside.mkdir()
    for name in names:
        os.rename(folder / name, aside / name)
    logger.warning(f"--overwrite: {', '.join(names)} are kept in {aside} until this run is complete and then deleted.")


def remove_replaced(folder: str | Path) -> None:
    """Delete the files that `set_aside` kept, once the run that replaces them is complete."""
    for path in Path(folder).glob(f"{REPLACED_DIR}*"):
        if path.is_dir() and not path.is_symlink() and re.fullmatch(rf"{REPLACED_DIR}(_\d+)?", path.name):
            shutil.rmtree(path, ignore_errors=True)


def _new_folder(label: str, create: bool) -> Path:
    # Parentheses, as in crmogm(pcgrad), would need quotes in a shell.
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{re.sub(r'[^A-Za-z0-9_.-]+', '-', label).strip('-')}"
    folder, copies = Path(RUNS_DIR, stem), 1
    while True:
        if create:
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)  # another run may be started in the same second
                return folder
        elif not folder.exists():
            return folder
        copies += 1
        folder = Path(RUNS_DIR, f"{stem}_{copies}")


@contextlib.contextmanager
def hold_output_folder(
    output_dir: str | None, resume_from: str | None, label: str, *, overwrite: bool = False, dry_run: bool = False
) -> Generator[tuple[str, bool]]:
    """Lock the output folder of a run, so that no other run writes to it.

    If the last checkpoint of a given folder is resumed (`--output_dir X --resume_from_checkpoint`, the command of a
    preemptible job), a second start waits for the first. A folder that is created here and stays empty is removed.

    Args:
        output_dir: As for `resolve_output_folder`, which is called next, with the folder.
        resume_from: As for `resolve_output_folder`.
        label: As for `resolve_output_folder`.
        overwrite: As for `resolve_output_folder`.
        dry_run: Whether to create no folder.

    Yields:
        The folder, and whether this run waited for another one in it.

    Raises:
        LockHeldError: If another run uses the folder.
        OSError: If the folder is not the same for all processes.
        FileExistsError: As for `resolve_output_folder`.
        FileNotFoundError: As for `resolve_output_folder`.
    """
    if resume_from is None and output_dir is None:
        new = _missing(Path(RUNS_DIR))
        folder = Path(resolve_output_folder(None, None, label, create=not dry_run)[0])
        new.insert(0, folder)
    else:
        folder = Path(output_dir) if output_dir else run_folder(resume_from or "")
        require_reachable(folder)
        new = _missing(folder)
        is_resumed = resume_from is not None and folder.resolve() == run_folder(resume_from, output_dir).resolve()
        if not is_resumed and not (folder / LOCK_NAME).exists():
            on_main_process(lambda: refuse_occupied(folder, overwrite))  # before the lock file is created
    if dry_run and not folder.exists():
        yield str(folder), False
        return
    waited = False
    with contextlib.ExitStack() as stack:
        while holder := on_main_process(lambda: _take_lock(folder, stack, may_wait=resume_from == "last")):
            if not waited:
                logger.warning(f"The run in {folder} is in use by {holder}. Waiting for it to end.")
            waited = True
            time.sleep(_LOOK_EVERY)
        if PartialState().is_main_process:
            stack.callback(_remove_if_empty, new)
        require_shared_folder(folder)
        yield str(folder), waited


def _take_lock(folder: Path, stack: contextlib.ExitStack, may_wait: bool) -> str | None:
    """Take the lock of a folder, or return the process that holds it."""
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
    """Remove the folders that were created here, innermost first, if they contain only the lock."""
    for path in new:
        with contextlib.suppress(OSError):
            if {each.name for each in path.iterdir()} <= {LOCK_NAME, f"{LOCK_NAME}.holder"}:
                shutil.rmtree(path)


def is_finished_run(folder: str | Path, options: Mapping[str, Any]) -> bool:
    """Return whether a folder contains a finished run with these options, according to the main process."""
    names = (RESULTS_NAME, "README.md", ARGUMENTS_NAME)
    return on_main_process(
        lambda: (
            all(Path(folder, name).is_file() for name in names)
            and Path(folder, ARGUMENTS_NAME).read_text(encoding="utf-8") == arguments_json(options)
        )
    )
