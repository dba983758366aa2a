"""Links in a run's folder that lead out of it: nothing is written or deleted through them."""

import os
import shutil
from pathlib import Path

# What a run writes, and so might write through a link. Other links in its folder are the user's own business.
_WRITTEN = (
    "checkpoint-*",
    "_unfinished_checkpoints",
    "best_checkpoints",
    "adapter",
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


def refuse_link_out(path: str | Path, folder: str | Path) -> None:
    """Refuse to write or delete at a path that a link takes out of a run's folder.

    Args:
        path: Within the folder by its name; it need not be there.
        folder: The run's folder, which may be a link itself.

    Raises:
        PermissionError: If it is elsewhere.
    """
    real = os.path.realpath(path)
    if not Path(real).is_relative_to(os.path.realpath(folder)):
        raise PermissionError(
            f"{path} is a link out of the run's folder, to {real}, and nothing is written or deleted there: remove the "
            "link, or use another output folder"
        )


def refuse_links_out(folder: str | Path) -> None:
    """Refuse a run's folder in which anything that a run writes is a link out of it, at any depth.

    Raises:
        PermissionError: If there is such a link.
    """
    for path in (path for pattern in _WRITTEN for path in Path(folder).glob(pattern)):
        refuse_link_out(path, folder)
        for parent, folders, files in os.walk(path):
            for name in (*folders, *files):
                if os.path.islink(inner := os.path.join(parent, name)):
                    refuse_link_out(inner, folder)


def remove_tree(path: Path) -> None:
    """Delete a folder, as far as it can be; of a link to one the link."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)
