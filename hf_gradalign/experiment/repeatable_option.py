"""An option that takes a list and may be given again."""

import argparse
from collections.abc import Sequence
from typing import Any


class ExtendAnew(argparse.Action):
    """`--corpus A B` and `--corpus A --corpus B` mean the same; what was there before (a file's, a resumed run's) goes.

    argparse's own `extend` would add to it.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Set, or extend what was set on this command line."""
        given = getattr(namespace, self.dest, None)
        kept = [] if given is None or given is self.default else list(given)
        setattr(namespace, self.dest, [*kept, *(values or ())])
