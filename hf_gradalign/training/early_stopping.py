"""Early stopping that stays stopped."""

from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments


class ResumableEarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, for runs that are resumed.

    A run that had stopped for want of patience and is resumed trains no further. The count of evaluations without a
    better value comes from the checkpoint (`restore_callback_states_from_checkpoint`).
    """

    def on_train_begin(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True
