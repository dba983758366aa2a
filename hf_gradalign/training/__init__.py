"""Training: the `Trainer` subclass, its arguments and its callbacks. Nothing here is specific to audio."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.training.arguments import GradientAlignmentArguments
    from hf_gradalign.training.callbacks import BestCheckpoints, ResumableEarlyStopping, SaveOnInterrupt
    from hf_gradalign.training.checkpoint_averaging import average_checkpoints, average_state_dicts
    from hf_gradalign.training.checkpoint_weights import load_whole_state
    from hf_gradalign.training.conflicts.record import find_conflict_record, read_conflict_rows
    from hf_gradalign.training.conflicts.recorder import ConflictRecorder
    from hf_gradalign.training.coupled_adam import CoupledDecayAdam
    from hf_gradalign.training.distributed import leave_process_group
    from hf_gradalign.training.loss import WeightedCrossEntropy
    from hf_gradalign.training.nonfinite import NonFiniteGuard
    from hf_gradalign.training.resumable_trainer import ResumableTrainer
    from hf_gradalign.training.run_checkpoints import RunCheckpoints
    from hf_gradalign.training.trainer import GradientAlignmentTrainer
    from hf_gradalign.training.view_batch import ViewBatchCollator, ViewsWithIds
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "BestCheckpoints",
    "ConflictRecorder",
    "CoupledDecayAdam",
    "GradientAlignmentArguments",
    "GradientAlignmentTrainer",
    "NonFiniteGuard",
    "ResumableEarlyStopping",
    "ResumableTrainer",
    "RunCheckpoints",
    "SaveOnInterrupt",
    "ViewBatchCollator",
    "ViewsWithIds",
    "WeightedCrossEntropy",
    "average_checkpoints",
    "average_state_dicts",
    "find_conflict_record",
    "leave_process_group",
    "load_whole_state",
    "read_conflict_rows",
]
