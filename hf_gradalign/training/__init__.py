"""Training: the `Trainer` subclass, its arguments and its callbacks. Knows nothing of audio."""

from hf_gradalign.training.arguments import GradientAlignmentArguments
from hf_gradalign.training.best_checkpoints import BestCheckpoints
from hf_gradalign.training.checkpoint_averaging import average_checkpoints
from hf_gradalign.training.early_stopping import ResumableEarlyStopping
from hf_gradalign.training.interruption import SaveOnInterrupt
from hf_gradalign.training.loss import WeightedCrossEntropy
from hf_gradalign.training.trainer import GradientAlignmentTrainer

__all__ = [
    "BestCheckpoints",
    "GradientAlignmentArguments",
    "GradientAlignmentTrainer",
    "ResumableEarlyStopping",
    "SaveOnInterrupt",
    "WeightedCrossEntropy",
    "average_checkpoints",
]
