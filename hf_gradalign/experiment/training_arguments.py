"""How a run is trained: the Trainer's arguments with the defaults of this task."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from hf_gradalign.training import GradientAlignmentArguments

_ADAMW = (OptimizerNames.ADAMW_TORCH, OptimizerNames.ADAMW_TORCH_FUSED)  # the Trainer's default, by torch's version


@dataclass
class AudioSpoofTrainingArguments(GradientAlignmentArguments):
    """`GradientAlignmentArguments` with the defaults of this task: ten epochs, selected by validation loss."""

    output_dir: str | None = field(
        default=None,
        metadata={"help": "Where everything is written. By default a new folder below runs/."},
    )
    per_device_train_batch_size: int = field(
        default=16, metadata={"help": "Utterances a batch; each is seen in every view."}
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Utterances an evaluation batch."})
    num_train_epochs: float = field(default=10.0, metadata={"help": "Number of epochs."})
    learning_rate: float | None = field(  # ty: ignore[incompatible-attribute-override]  None: not chosen
        default=None,
        metadata={"help": "Peak learning rate. By default 1e-3 for the small model, 1e-5 with --model_name_or_path."},
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.15, metadata={"help": "Warm-up steps; below 1, their share of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay."})
    coupled_weight_decay: bool = field(
        default=False,
        metadata={
            "help": "Take torch.optim.Adam, which adds the weight decay of all parameters to their gradients (as the "
            "paper's code does), in place of AdamW, which takes it off weights and leaves biases and norms alone."
        },
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every so many updates."})
    logging_first_step: bool = field(default=True, metadata={"help": "Log the first update too."})
    eval_strategy: IntervalStrategy | str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: SaveStrategy | str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints to keep, with the best."})
    average_best_checkpoints: int = field(
        default=3, metadata={"help": "Average the weights of this many best checkpoints at the end; 1 takes the best."}
    )
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint's weights."})
    metric_for_best_model: str | None = field(
        default="loss",
        metadata={"help": "What checkpoints are selected by on the validation split: loss (as in the paper) or eer."},
    )
    conflict_record: str = field(
        default="jsonl",
        metadata={
            "choices": ["none", "jsonl", "parquet"],
            "nargs": "?",
            "const": "jsonl",
            "help": "Write the cosine, norms, weights and losses of each update to a file in the output folder; the "
            "model card shows figures of it.",
        },
    )
    dataloader_pin_memory: bool = field(
        default=torch.accelerator.is_available(), metadata={"help": "Pin memory; on where there is an accelerator."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "last",
            "help": "Checkpoint or run folder to go on from; without a value the last checkpoint of --output_dir.",
        },
    )

    overwrite: bool = field(
        default=False,
        metadata={
            "help": "Replace what --output_dir holds, a run or other files of the names that a run writes. They are "
            "kept in _replaced/ until the new run is complete."
        },
    )
    allow_changes: bool = field(
        default=False,
        metadata={
            "help": "Resume though the data, views, model or options differ from those that the run was started with."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Train nothing: check options and corpora, build the model (with random weights where the Hub is "
            "out of reach), take two updates on synthetic audio, and tell parameters, memory, and time of the run."
        },
    )

    def __post_init__(self) -> None:
        """Keep the output folder open until the run knows whether it resumes."""
        chosen = self.output_dir
        rate = self.learning_rate
        self.learning_rate = 0.0 if rate is None else rate
        refuse_options_without_use(self)
        super().__post_init__()
        self.learning_rate = rate
        if self.coupled_weight_decay and self.optim not in _ADAMW:
            raise ValueError(
                f"--coupled_weight_decay takes torch.optim.Adam: leave out --optim {OptimizerNames(self.optim).value}"
            )
        self.output_dir = None if chosen is None else os.path.expanduser(chosen)

    @property
    def run_folder(self) -> Path:
        """The folder that the run is written to, once `output_dir` is settled."""
        assert self.output_dir is not None, "the output folder is not settled yet"
        return Path(self.output_dir)


def refuse_options_without_use(args: Any) -> None:
    """Look at a run's training arguments as they were given.

    Raises:
        ValueError: On an option that the run could not do what it says, or that would do nothing.
    """
    if args.hub_strategy != "end":
        raise ValueError(f"--hub_strategy {args.hub_strategy}: the run is pushed once, complete, when it ends (end)")
    if args.hub_always_push:
        raise ValueError("--hub_always_push is about pushing checkpoints, and a run is pushed once, when it ends")
    if args.max_steps == 0 or (args.max_steps < 0 and not args.num_train_epochs > 0):
        raise ValueError(
            f"--num_train_epochs {args.num_train_epochs:g} and --max_steps {args.max_steps} would train nothing; "
            "scripts/score_audio_spoof.py scores with a model that is there"
        )
    if args.prediction_loss_only:
        raise ValueError(
            "--prediction_loss_only leaves an evaluation without scores, which are what a run reports; leave it out"
        )
    if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        raise ValueError(
            f"--train_sampling_strategy {args.train_sampling_strategy} sorts clips by length, and all are windows of "
            "the same length here (--window_seconds); leave it out"
        )
    if args.length_column_name != "length":
        raise ValueError(
            "--length_column_name is for sorting clips by length, and all are windows of the same length; leave it out"
        )
    if args.label_names not in (None, ["labels"]):
        raise ValueError(
            f"--label_names {' '.join(args.label_names)}: what the model is given as its label is always called "
            "labels; for a column of the corpus use --label_column_name"
        )
    if (args.do_eval or args.do_predict) and not args.do_train:
        raise ValueError(
            "--do_eval and --do_predict without --do_train: this script always trains, and evaluates as it does; "
            "scripts/score_audio_spoof.py scores with a model that is there"
        )
