"""Prepares the import of Gradio, an optional library: no telemetry, and no files that outlive the process."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

_folders: list[TemporaryDirectory] = []  # removed at the end of the process


def prepare_gradio() -> None:
    """Call this before Gradio is imported.

    Gradio will keep uploads where `GRADIO_TEMP_DIR` says, by default in a temporary folder of this process.

    Raises:
        ImportError: If Gradio is not installed; the message says how to install it.
    """
    if find_spec("gradio") is None:
        raise ImportError(
            "the page needs Gradio, which is not installed: install hf_gradalign with its extra `demo` (in a clone: "
            'pip install -e ".[demo]")'
        )
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # otherwise, it asks the network for its newest version
    if not os.environ.get("GRADIO_TEMP_DIR"):  # read again at every request
        _folders.append(TemporaryDirectory(prefix="hf_gradalign_demo_"))
        os.environ["GRADIO_TEMP_DIR"] = _folders[-1].name


class BrokenUploads(set[str]):
    """The files of uploads that have not ended, in this process's own folder.

    Gradio deletes old files of a page's `temp_file_sets`. It forgets uploads that are broken off, as by visitors who
    leave. In a folder that `GRADIO_TEMP_DIR` names, they could be those of another program, and are not listed.
    """

    def __iter__(self) -> Iterator[str]:
        """Iterate over the files that are there now."""
        return (str(path) for folder in _folders for path in Path(folder.name).glob("tmp*") if path.is_file())
