"""What a run with gradient alignment is told, beside what any `Trainer` run is told."""

import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments

from hf_gradalign.alignment import AlignmentMethod, get_method


@dataclass
class GradientAlignmentArguments(TrainingArguments):
    """`transformers.TrainingArguments` plus the arguments of gradient alignment.

    Parameters that control alignment:
        align_gradients: Alignment method by name ("none", "pcgrad", "gradvac", "cagrad"). On the command line a bare
            `--align_gradients` means "pcgrad".
        alignment_options: Options of the method, as a mapping or as JSON.

    Parameters that control the choice of the final weights:
        early_stopping_patience: Stop after this many evaluations without a better `metric_for_best_model`.
        average_best_checkpoints: Average the weights of this many best checkpoints when training ends.

    Parameters whose default differs from `TrainingArguments`:
        greater_is_better: False where the metric is "eer", as for a loss.
        remove_unused_columns: False, because a batch of views has views where the Trainer looks for columns.
        restore_callback_states_from_checkpoint: True, so that early stopping counts on after a resume.
        hub_strategy: "end", so that one complete commit is pushed and not each checkpoint's.

    Raises:
        ValueError: On an unknown method or option, a patience or number of checkpoints below 1, or where these need
            an evaluation or a metric that is not configured.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*TrainingArguments._VALID_DICT_FIELDS, "alignment_options"]

    align_gradients: str = field(
        default="none",
        metadata={
            "nargs": "?",
            "const": "pcgrad",
            "help": "How the views' gradients are aligned: none, pcgrad, gradvac or cagrad. Without a name: pcgrad.",
        },
    )
    alignment_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the alignment method as JSON, e.g. '{\"beta\": 0.1}'."}
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better metric_for_best_model. Off by default."},
    )
    average_best_checkpoints: int = field(
        default=1,
        metadata={"help": "Average the weights of this many best checkpoints at the end of training; 1 averages none."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Kept off: a batch of views has views where the Trainer looks for columns."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Let early stopping count on after a resume."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When to push: end, every_save, checkpoint or all_checkpoints."}
    )

    def __post_init__(self) -> None:
        """Check what can be checked before anything is loaded."""
        if isinstance(self.alignment_options, str):
            try:
                self.alignment_options = json.loads(self.alignment_options)
            except json.JSONDecodeError as error:
                raise ValueError(f"--alignment_options is not JSON ({error}): {self.alignment_options}") from None
        self.align_gradients = self.align_gradients.lower()
        self.make_method()
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if self.greater_is_better is None and metric == "eer":
            self.greater_is_better = False
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"--early_stopping_patience must be 1 or more, got {self.early_stopping_patience}")
        if self.average_best_checkpoints < 1:
            raise ValueError(f"--average_best_checkpoints must be 1 or more, got {self.average_best_checkpoints}")
        if self.remove_unused_columns:
            raise ValueError("--remove_unused_columns would remove the views from the batch; leave it off")
        super().__post_init__()
        for option, wanted in (
            ("--early_stopping_patience", self.early_stopping_patience is not None),
            ("--average_best_checkpoints", self.average_best_checkpoints > 1),
        ):
            if wanted and self.metric_for_best_model is None:
                raise ValueError(f"{option} compares checkpoints and needs --metric_for_best_model (e.g. eer or loss)")
            if wanted and self.eval_strategy == "no":
                raise ValueError(f"{option} compares evaluations and needs --eval_strategy epoch or steps")
        if self.average_best_checkpoints > 1 and self.save_strategy == "no":
            raise ValueError("--average_best_checkpoints averages checkpoints and needs --save_strategy epoch or steps")

    def make_method(self) -> AlignmentMethod:
        """A fresh alignment method as these arguments describe it."""
        return get_method(self.align_gradients, **(self.alignment_options or {}))
