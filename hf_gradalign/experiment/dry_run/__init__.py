"""The dry run: what can be wrong with a run, and what it will take, in a minute."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.experiment.dry_run.report import DryRunReport
    from hf_gradalign.experiment.dry_run.running import dry_run

__getattr__, __dir__ = lazy_names(__name__)

__all__ = ["DryRunReport", "dry_run"]
