"""The tests' Hub as a program. Start it before huggingface_hub is imported, which reads its address."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

_PROGRAM = Path(__file__).parents[2] / "tests" / "helpers" / "dataset_hub.py"


class HubProgram:
    """A Hub on a free local port, which runs within a `with` block."""

    def __enter__(self) -> "HubProgram":
        command = [sys.executable, str(_PROGRAM)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._where = self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def environment(self) -> dict[str, str]:
        """Return the environment variables for its clients."""
        own = {"HF_ENDPOINT": self._where["url"], "HF_TOKEN": self._where["token"]}
        return {**own, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "localhost,127.0.0.1"}

    def ask(self, **request: Any) -> Any:
        """Send a request to the program and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())
