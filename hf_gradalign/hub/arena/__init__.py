"""The Speech Anti-Spoofing Arena: a detector class for its tool, and results in its YAML formats."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.hub.arena.dataset import ArenaDataset, load_arena_dataset, read_labels
    from hf_gradalign.hub.arena.forms import (
        ARENA_URL,
        Calibration,
        as_yaml,
        badge,
        require_form,
        run_record,
        submission,
    )
    from hf_gradalign.hub.arena.model import GradAlignModel
    from hf_gradalign.hub.arena.pushing import find_scores, push_arena_results
    from hf_gradalign.hub.arena.results import ArenaResult, ArenaScores, evaluate_scores, write_arena_results
    from hf_gradalign.hub.arena.system_info import ArenaPaper, ArenaSystem, describe_system
else:
    __getattr__, __dir__ = lazy_names(__name__)


class ArenaError(ValueError):
    """The Arena would not accept a result. The message says why, and what to do."""


__all__ = [
    "ARENA_URL",
    "ArenaDataset",
    "ArenaError",
    "ArenaPaper",
    "ArenaResult",
    "ArenaScores",
    "ArenaSystem",
    "Calibration",
    "GradAlignModel",
    "as_yaml",
    "badge",
    "describe_system",
    "evaluate_scores",
    "find_scores",
    "load_arena_dataset",
    "push_arena_results",
    "read_labels",
    "require_form",
    "run_record",
    "submission",
    "write_arena_results",
]
