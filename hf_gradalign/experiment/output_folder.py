"""Where a run is written, and how runs are kept from overwriting each other."""

import re
from datetime import datetime
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME, logging

from hf_gradalign.training.links import refuse_links_out
from hf_gradalign.training.run_checkpoints import RunCheckpoints, describe, require_complete

logger = logging.get_logger(__name__)

RUNS_DIR = "runs"
ARGUMENTS_NAME = "run_arguments.json"
RESULTS_NAME = "all_results.json"


def resolve_output_folder(output_dir: str | None, resume_from: str | None, label: str) -> tuple[str, str | None]:
    """Settle where a run is written and what it resumes from.

    Args:
        output_dir: The folder that the user named, if any.
        resume_from: A checkpoint, a run folder, "last" for the last checkpoint of `output_dir`, or None.
        label: Put into the name of a new folder.

    Returns:
        The output folder, and the checkpoint to resume from (None for a new run, and for one that begins anew, see
        `find_run`).

    Raises:
        FileExistsError: If the folder holds a run already and nothing is resumed.
        FileNotFoundError: If there is no complete checkpoint where one should be.
        PermissionError: If a link in the folder leads out of it, where something would be written.
    """
    if resume_from is None:
        folder = Path(output_dir) if output_dir else _new_folder(label)
        _refuse_occupied(folder)
        refuse_links_out(folder)
        return str(folder), None
    run, checkpoint = find_run(resume_from, output_dir)
    folder = Path(output_dir) if output_dir else run
    if folder.resolve() != run.resolve():
        _refuse_occupied(folder)
    refuse_links_out(folder)
    # Every process of a distributed run must take the same, whatever its view of a shared disk.
    found = [None if checkpoint is None else str(checkpoint)]
    broadcast_object_list(found)
    if found[0] is None:
        logger.warning(f"{run} holds no complete checkpoint to resume from: the run begins anew, in {folder}.")
    return str(folder), found[0]


def find_run(resume_from: str, output_dir: str | None = None) -> tuple[Path, Path | None]:
    """The run that is resumed, and the checkpoint that it goes on from.

    A run that was killed before its first checkpoint was complete begins anew. So does "last" where there is no run
    yet: a cluster's job may have one command line for its first start and all others.

    Args:
        resume_from: A checkpoint, a run folder (its last complete checkpoint is meant), or "last" for that of
            `output_dir`.
        output_dir: The folder that the user named, if any.

    Returns:
        The run's folder, and the checkpoint; None where the run is to begin anew.

    Raises:
        FileNotFoundError: If there is no checkpoint, or the one that was named is not complete.
    """
    by_name = resume_from != "last"
    if not by_name and output_dir is None:
        raise FileNotFoundError(
            "--resume_from_checkpoint without a checkpoint takes the last one of --output_dir: name the run's "
            "folder with --output_dir, or the checkpoint itself"
        )
    path = Path(resume_from if by_name else output_dir).expanduser()
    if path.is_file() or (by_name and not path.is_dir()):
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    if path.is_dir() and path.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-"):
        require_complete(path)
        return path.parent, path
    checkpoints = RunCheckpoints(path)
    last = checkpoints.last_complete()
    is_unfinished = (path / ARGUMENTS_NAME).is_file() and not (path / RESULTS_NAME).is_file()
    is_free = not by_name and not _traces(path)
    if last is None and not is_unfinished and not is_free:
        incomplete = "; ".join(f"{p.name}: {describe(missing)}" for p, missing in checkpoints.incomplete().items())
        raise FileNotFoundError(
            f"{path} holds no checkpoint to resume from ({incomplete or 'a folder named checkpoint-<step>'})"
        )
    return path, last


def _traces(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    traces = [name for name in (RESULTS_NAME, CONFIG_NAME, SAFE_WEIGHTS_NAME) if (folder / name).exists()]
    return traces + sorted(path.name for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def _refuse_occupied(folder: Path) -> None:
    if folder.is_file():
        raise FileExistsError(f"--output_dir {folder} is a file")
    if traces := _traces(folder):
        raise FileExistsError(
            f"{folder} already holds a run ({', '.join(traces[:4])}). Go on with it by --resume_from_checkpoint "
            f"{folder}, name another --output_dir, or delete it yourself"
        )


def _new_folder(label: str) -> Path:
    # Parentheses, as of crmogm(pcgrad), would have to be quoted in every shell.
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{re.sub(r'[^A-Za-z0-9_.-]+', '-', label).strip('-')}"
    folder, copies = Path(RUNS_DIR, stem), 1
    while folder.exists():
        copies += 1
        folder = Path(RUNS_DIR, f"{stem}_{copies}")
    # Every process of a distributed run must take the same.
    names = [str(folder)]
    broadcast_object_list(names)
    return Path(names[0])
