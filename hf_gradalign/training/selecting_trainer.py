"""A `Trainer` with early stopping and averaging of the best checkpoints."""

from collections.abc import Sequence
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hf_gradalign.training.arguments import GradientAlignmentArguments
from hf_gradalign.training.callbacks import BestCheckpoints, ResumableEarlyStopping, SaveOnInterrupt
from hf_gradalign.training.checkpoint_averaging import average_checkpoints
from hf_gradalign.training.checkpoint_weights import load_whole_state, require_all_weights
from hf_gradalign.training.resumable_trainer import ResumableTrainer

logger = logging.get_logger(__name__)


class SelectingTrainer(ResumableTrainer):
    """Adds `early_stopping_patience` and `average_best_checkpoints` of `GradientAlignmentArguments`.

    If you pass a callback of one of these kinds (`EarlyStoppingCallback`, `BestCheckpoints`), it replaces the trainer's
    own. After an interrupted run (`SaveOnInterrupt`), nothing is averaged.

    Attributes:
        averaged_checkpoints: Number of checkpoints that were averaged at the end of training; 0 if none.
    """

    args: GradientAlignmentArguments

    def __init__(
        self,
        *,
        args: GradientAlignmentArguments,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
        **kwargs: Any,
    ) -> None:
        given = tuple(callbacks or ())
        kinds = tuple(each if isinstance(each, type) else type(each) for each in given)
        own: list[TrainerCallback] = []
        if args.early_stopping_patience is not None and not any(
            issubclass(kind, EarlyStoppingCallback) for kind in kinds
        ):
            own.append(ResumableEarlyStopping(args.early_stopping_patience))
        if args.average_best_checkpoints > 1 and not any(issubclass(kind, BestCheckpoints) for kind in kinds):
            own.append(BestCheckpoints(args.average_best_checkpoints))
        self._mappings = {"alignment_options": args.alignment_options, "view_weights": args.view_weights}
        super().__init__(args=args, callbacks=[*given, *own], **kwargs)
        self.averaged_checkpoints = 0

    def _hp_search_setup(self, trial: Any) -> None:
        """Set the arguments of a trial of a hyperparameter search.

        Mappings may be JSON, which most backends need. A mapping that a trial does not set is the one of the arguments,
        not the one of the trial before.
        """
        if trial is None:
            super()._hp_search_setup(trial)
            return
        for name in self._mappings:
            setattr(self.args, name, None)  # the base class would call dict() with JSON
        super()._hp_search_setup(trial)
        for name, value in self._mappings.items():
            setattr(self.args, name, getattr(self.args, name) or value)
        self.args.settle_alignment()
        if self.args.average_best_checkpoints > 1:
            raise ValueError(
                "average_best_checkpoints works in output_dir, but each trial of a search has its own folder: set it "
                "to 1 for the search, then train with the best trial's arguments"
            )
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ResumableEarlyStopping) and self.args.early_stopping_patience is not None:
                callback.early_stopping_patience = self.args.early_stopping_patience

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        output = super()._finalize_training(*args, **kwargs)
        stops = [each for each in self.callback_handler.callbacks if isinstance(each, SaveOnInterrupt)]
        was_interrupted = any(stop.interrupted for stop in stops)
        averages = self.args.average_best_checkpoints > 1 and not was_interrupted
        self.averaged_checkpoints = self._load_average() if averages else 0
        return output

    def _load_average(self) -> int:
        paths = BestCheckpoints.paths(self.args)
        if not paths:
            logger.warning(
                "There is no evaluated checkpoint to average; the model keeps its weights from the end of training."
            )
            return 0
        model = self.accelerator.unwrap_model(self.model)
        missing, unexpected = load_whole_state(model, average_checkpoints(paths))
        require_all_weights(model, missing, unexpected, "the average of the best checkpoints")
        logger.info(f"Averaged {len(paths)} checkpoints: {', '.join(path.stem for path in paths)}")
        return len(paths)
