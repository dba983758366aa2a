"""Where a run is written, and how runs are kept from overwriting each other."""

from datetime import datetime
from pathlib import Path

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_NAME

RUNS_DIR = "runs"
RESULTS_NAME = "all_results.json"


def resolve_output_folder(output_dir: str | None, resume_from: str | None, label: str) -> tuple[str, str | None]:
    """Settle where a run is written and what it resumes from.

    Args:
        output_dir: The folder that the user named, if any.
        resume_from: A checkpoint, a run folder, "last" for the last checkpoint of `output_dir`, or None.
        label: Put into the name of a new folder.

    Returns:
        The output folder, and the checkpoint to resume from (None for a new run).

    Raises:
        FileExistsError: If the folder holds a run already and nothing is resumed.
        FileNotFoundError: If there is no checkpoint where one should be.
    """
    if resume_from is None:
        folder = Path(output_dir) if output_dir else _new_folder(label)
        _refuse_occupied(folder)
        return str(folder), None
    checkpoint = find_checkpoint(resume_from, output_dir)
    folder = Path(output_dir) if output_dir else checkpoint.parent
    if folder.resolve() != checkpoint.parent.resolve():
        _refuse_occupied(folder)
    return str(folder), str(checkpoint)


def find_checkpoint(resume_from: str, output_dir: str | None = None) -> Path:
    """The checkpoint that a run resumes from.

    Args:
        resume_from: A checkpoint, a run folder (its last checkpoint is meant), or "last" for that of `output_dir`.
        output_dir: The folder that the user named, if any.

    Raises:
        FileNotFoundError: If there is no checkpoint.
    """
    if resume_from == "last":
        if output_dir is None:
            raise FileNotFoundError(
                "--resume_from_checkpoint without a checkpoint takes the last one of --output_dir: name the run's "
                "folder with --output_dir, or the checkpoint itself"
            )
        resume_from = output_dir
    path = Path(resume_from).expanduser()
    if (path / "trainer_state.json").is_file() and path.name.startswith(PREFIX_CHECKPOINT_DIR):
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    last = get_last_checkpoint(str(path))
    if last is None:
        raise FileNotFoundError(f"{path} holds no checkpoint to resume from (a folder named checkpoint-<step>)")
    return Path(last)


def _refuse_occupied(folder: Path) -> None:
    if folder.is_file():
        raise FileExistsError(f"--output_dir {folder} is a file")
    if not folder.is_dir():
        return
    traces = [name for name in (RESULTS_NAME, CONFIG_NAME, SAFE_WEIGHTS_NAME) if (folder / name).exists()]
    traces += sorted(path.name for path in folder.glob("checkpoint-*"))
    if traces:
        raise FileExistsError(
            f"{folder} already holds a run ({', '.join(traces[:4])}). Go on with it by --resume_from_checkpoint "
            f"{folder}, name another --output_dir, or delete it yourself"
        )


def _new_folder(label: str) -> Path:
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{label}"
    folder, copies = Path(RUNS_DIR, stem), 1
    while folder.exists():
        copies += 1
        folder = Path(RUNS_DIR, f"{stem}_{copies}")
    # Every process of a distributed run must take the same.
    names = [str(folder)]
    broadcast_object_list(names)
    return Path(names[0])
