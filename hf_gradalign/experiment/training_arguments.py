"""The Trainer's arguments, with the defaults of this task."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.training_args import OptimizerNames

from hf_gradalign.training import GradientAlignmentArguments
from hf_gradalign.utils.loader_workers import pins_memory

_ADAMW = (OptimizerNames.ADAMW_TORCH, OptimizerNames.ADAMW_TORCH_FUSED)  # the Trainer's default, by torch's version


@dataclass
class AudioSpoofTrainingArguments(GradientAlignmentArguments):
    """`GradientAlignmentArguments` with the defaults of this task: ten epochs, selected by validation loss."""

    output_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for all outputs. By default, a new folder in runs/."},
    )
    per_device_train_batch_size: int = field(
        default=16, metadata={"help": "Utterances per batch; each is used in every view."}
    )
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Utterances per evaluation batch."})
    num_train_epochs: float = field(default=10.0, metadata={"help": "Number of epochs."})
    learning_rate: float | None = field(  # ty: ignore[incompatible-attribute-override]  None: not chosen
        default=None,
        metadata={
            "help": "Peak learning rate. By default 1e-3 for the small model, 1e-4 for aasist and aasist_l, and 1e-5 "
            "for any other --model_name_or_path."
        },
    )
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=0.15, metadata={"help": "Warm-up steps; below 1, their fraction of all steps."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay."})
    coupled_weight_decay: bool = field(
        default=False,
        metadata={
            "help": "Use torch.optim.Adam, which adds the weight decay of all parameters to their gradients (as the "
            "paper's code does), instead of AdamW, which decays weights directly and skips biases and norms."
        },
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every this many updates."})
    logging_first_step: bool = field(default=True, metadata={"help": "Log the first update too."})
    eval_strategy: IntervalStrategy | str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: SaveStrategy | str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(
        default=2, metadata={"help": "How many checkpoints to keep, including the best."}
    )
    average_best_checkpoints: int = field(
        default=3,
        metadata={"help": "At the end, average the weights of this many best checkpoints; 1 uses the best one."},
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "Use the weights of the best checkpoint at the end."}
    )
    metric_for_best_model: str | None = field(
        default="loss",
        metadata={"help": "Metric of the validation split that selects checkpoints: loss (as in the paper) or eer."},
    )
    push_to_hub: bool = field(
        default=False,
        metadata={"help": "Push the model, its card and its scores to the Hub once, when the run ends."},
    )
    hub_strategy: str = field(default="end", metadata={"help": "Only end: a run is pushed when it is complete."})
    conflict_record: str = field(
        default="jsonl",
        metadata={
            "choices": ["none", "jsonl", "parquet"],
            "nargs": "?",
            "const": "jsonl",
            "help": "Write the cosine, norms, weights and losses of each update to a file in the output folder. The "
            "model card shows figures of this record.",
        },
    )
    dataloader_pin_memory: bool = field(
        default=pins_memory(torch.accelerator.current_accelerator(check_available=True)),
        metadata={"help": "Pin memory; on by default if there is an accelerator that supports it (not MPS)."},
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "nargs": "?",
            "const": "last",
            "help": "Checkpoint or run folder to resume from; without a value, the last checkpoint in --output_dir.",
        },
    )

    overwrite: bool = field(
        default=False,
        metadata={
            "help": "Replace a run in --output_dir, or other files with names that a run writes. They are kept in "
            "_replaced/ until the new run is complete."
        },
    )
    allow_changes: bool = field(
        default=False,
        metadata={"help": "Resume even if data, views, model or options differ from those the run was started with."},
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Do not train: check options and corpora, build the model (with random weights if the Hub "
            "cannot be reached), take two updates on synthetic audio, and report parameters, memory and time."
        },
    )

    def __post_init__(self) -> None:
        """Check the options. The output folder stays unset until the run knows whether it resumes."""
        chosen = self.output_dir
        rate = self.learning_rate
        self.learning_rate = 0.0 if rate is None else rate
        refuse_options_without_use(self)
        super().__post_init__()
        self.learning_rate = rate
        if self.coupled_weight_decay and self.optim not in _ADAMW:
            raise ValueError(
                f"--coupled_weight_decay uses torch.optim.Adam: remove --optim {OptimizerNames(self.optim).value}"
            )
        self.output_dir = None if chosen is None else os.path.expanduser(chosen)

    @property
    def run_folder(self) -> Path:
        """The folder that the run is written to, once `output_dir` is settled."""
        assert self.output_dir is not None, "the output folder is not settled yet"
        return Path(self.output_dir)


def refuse_options_without_use(args: Any) -> None:
    """Refuse, before anything is loaded, Trainer options that have no effect on a run or would end it late.

    Raises:
        ValueError: If a run does not support an option, or the option has no effect.
    """
    if args.hub_strategy != "end":
        raise ValueError(f"--hub_strategy {args.hub_strategy}: a run is pushed once, complete, when it ends: use end")
    if args.hub_always_push:
        raise ValueError("--hub_always_push pushes checkpoints, but a run is pushed once, when it ends: remove it")
    if args.max_steps == 0 or (args.max_steps < 0 and not args.num_train_epochs > 0):
        raise ValueError(
            f"--num_train_epochs {args.num_train_epochs:g} and --max_steps {args.max_steps} would train nothing; "
            "scripts/score_audio_spoof.py scores with a trained model"
        )
    if args.prediction_loss_only:
        raise ValueError("--prediction_loss_only gives no scores, but a run reports them: remove it")
    if args.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
        raise ValueError(
            f"--train_sampling_strategy {args.train_sampling_strategy} sorts clips by length, but all clips are "
            "windows of the same length (--window_seconds): remove it"
        )
    if args.label_names not in (None, ["labels"]):
        raise ValueError(
            f"--label_names {' '.join(args.label_names)}: the model's label argument is always called labels; "
            "for a column of the corpus use --label_column_name"
        )
    if (args.do_eval or args.do_predict) and not args.do_train:
        raise ValueError(
            "--do_eval and --do_predict without --do_train: this command always trains; "
            "scripts/score_audio_spoof.py scores with a trained model"
        )
