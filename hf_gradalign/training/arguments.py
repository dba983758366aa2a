"""The arguments of a run with gradient alignment, in addition to those of any `Trainer` run."""

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from accelerate.utils import get_int_from_env
from transformers import TrainingArguments

from hf_gradalign.alignment import AlignmentMethod, canonical_name, check_scope, get_method, positive_weights
from hf_gradalign.training.metric_direction import greater_is_better
from hf_gradalign.training.setup_checks import NO_DEEPSPEED, check_numbers, check_rates, check_selection

_ON_NONFINITE = ("stop", "skip")
_RECORDS = ("none", "jsonl", "parquet")
_FOR_METRICS = ("inputs", "loss")
_TOKENS_SEEN = ("no", "all", "non_padding")


@dataclass
class GradientAlignmentArguments(TrainingArguments):
    """`transformers.TrainingArguments` plus the arguments of gradient alignment.

    Parameters that control alignment:
        align_gradients: Name of the alignment method: "none", "pcgrad", "gradvac" or "cagrad"; with the extra `torchjd`
            also the names of `TorchJDWeighting` ("upgrad", "mgda", ...); "crmogm(NAME)" smooths the weights of any of
            them. On the command line, `--align_gradients` without a name means "pcgrad". In Python, True means
            "pcgrad", and None and False mean "none".
        alignment_options: Options of the method, as a mapping or JSON (see `get_method`).
        alignment_scope: The parameters that share a Gramian: all of the "model" (as in the paper), each "module"
            (transformer layer), or each "parameter".
        alignment_modules: With the scope "module", prefixes of parameter names. Each prefix gets one Gramian, instead
            of each layer.
        alignment_parameters: Regular expressions. Only parameters whose name matches one (`re.search`) are aligned.
            The others get the mean of the views' gradients.
        view_weights: Weight of each view by name, as a mapping or JSON; 1 by default. Gradients are scaled by these
            weights, divided by their mean, before they are aligned.

    Parameters that control learning rates:
        head_learning_rate: Peak learning rate of everything outside of the encoder (`base_model_prefix`);
            `learning_rate` by default. The schedule multiplies both.
        layerwise_lr_decay: Factor in (0, 1] from the learning rate of each transformer layer to that of the layer
            below. The last layer has `learning_rate`. Everything before the layers (convolutions) has the lowest rate.

    Parameters that control the conflict record:
        conflict_record: Format of the conflict record: "jsonl", "parquet", or "none" to write none. The record is a
            file `conflicts.*` in the output folder with one row per update (`ConflictRecorder`). On the command line,
            `--conflict_record` without a format means "jsonl".
        conflict_record_modules: Whether to also record each transformer layer and other module.
        conflict_record_ids: Whether to also record the ids of each update's items.

    Parameters that control non-finite losses and gradients:
        on_nonfinite: "stop" ends training with an error that says where they come from. "skip" drops the update and
            counts it, and waits for the device once per update (`NonFiniteGuard`).

    Parameters that control the final weights:
        merge_adapters: Save a model with PEFT adapters merged, which loads without PEFT and without its base model, and
            the adapters alone in `adapter/`. If False, only the adapters are saved.
        early_stopping_patience: Stop after this many evaluations without a better `metric_for_best_model`.
        average_best_checkpoints: At the end of training, load the average of the weights of this many best checkpoints.

    Parameters whose default differs from `TrainingArguments`:
        greater_is_better: By default known from the name of `metric_for_best_model`, with or without the name of an
            evaluation set ("la_eer"). Required for an unknown metric.
        remove_unused_columns: False, because the Trainer would remove the views of a batch as unused columns.
        restore_callback_states_from_checkpoint: True, so that early stopping keeps its count after a resume.
        hub_strategy: "end", so that one complete commit is pushed instead of one per checkpoint.
        logging_nan_inf_filter: False, because the filter waits for the device after every pass and hides non-finite
            losses.
        accelerator_config: `{"non_blocking": True}` with a GPU and pinned memory, so that the next batch is copied
            while the last one is still being computed.

    Raises:
        ValueError: For an unknown method, option or scope; a view weight or learning rate out of range; a patience or
            number of checkpoints below 1, or without the evaluation or metric that they need; a `metric_for_best_model`
            that measures nothing, or of unknown direction; an option of the conflict record without a record; options
            of the base class that would have no effect or would fail when the first batch is loaded.
    """

    # A class variable in the base class too, where it is not annotated as one.
    _VALID_DICT_FIELDS: ClassVar[list[str]] = [  # ty: ignore[incompatible-attribute-override]
        *TrainingArguments._VALID_DICT_FIELDS,
        "alignment_options",
        "view_weights",
    ]

    align_gradients: str = field(
        default="none",
        metadata={
            "nargs": "?",
            "const": "pcgrad",
            "help": (
                "Method that aligns the views' gradients: none, pcgrad, gradvac, cagrad; with TorchJD also upgrad, "
                "dualproj, mgda, imtlg, aligned_mtl, fairgrad, krum, pcd; 'crmogm(NAME)' smooths the weights of any. "
                "Without a name: pcgrad."
            ),
        },
    )
    alignment_options: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Options of the alignment method as JSON, e.g. '{\"beta\": 0.1}'. An unknown option lists all."
        },
    )
    alignment_scope: str = field(
        default="model",
        metadata={"choices": ["model", "module", "parameter"], "help": "The parameters that share a Gramian."},
    )
    alignment_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "With --alignment_scope module: prefixes of parameter names, one Gramian each, instead of layers."
        },
    )
    alignment_parameters: list[str] | None = field(
        default=None,
        metadata={
            "help": "Regular expressions: align only parameters whose name matches one; others get the mean gradient."
        },
    )
    view_weights: dict[str, float] | str | None = field(
        default=None, metadata={"help": "Weight of each view as JSON, e.g. '{\"codec\": 0.5}'; 1 by default."}
    )
    head_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the head; by default --learning_rate."}
    )
    layerwise_lr_decay: float | None = field(
        default=None,
        metadata={
            "help": "Factor, above 0 and at most 1, from the learning rate of each transformer layer to that of the "
            "layer below, such as 0.9. The last layer has --learning_rate, and the convolutions have the lowest rate."
        },
    )
    conflict_record: str = field(
        default="none",
        metadata={
            "choices": _RECORDS,
            "nargs": "?",
            "const": "jsonl",
            "help": "Write the cosine, norms, weights and losses of each update to a file in the output folder.",
        },
    )
    conflict_record_modules: bool = field(
        default=False, metadata={"help": "Also record each transformer layer and other module."}
    )
    conflict_record_ids: bool = field(default=False, metadata={"help": "Also record the utterances of each update."})
    on_nonfinite: str = field(
        default="stop",
        metadata={
            "choices": _ON_NONFINITE,
            "help": "For a loss or gradient that is not finite: stop and say where it comes from, or skip the update.",
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "Stop after this many evaluations without a better metric_for_best_model. Off by default."},
    )
    average_best_checkpoints: int = field(
        default=1,
        metadata={"help": "Average the weights of this many best checkpoints at the end of training; 1 averages none."},
    )
    merge_adapters: bool = field(
        default=True,
        metadata={
            "help": "Save a model with PEFT adapters merged, so that it loads like any other, and the adapters in "
            "adapter/. --no_merge_adapters saves only the adapters, which need the base model."
        },
    )
    # Not also a bool, as in the base class, because the command line would then accept only yes and no.
    include_num_input_tokens_seen: str = field(  # ty: ignore[incompatible-mutable-override]
        default="no",
        metadata={
            "nargs": "?",
            "const": "all",
            "help": "Count the samples (tokens) that the model processes in all views: no, all or non_padding.",
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay off: it would remove the views from a batch."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True, metadata={"help": "Let early stopping keep its count after a resume."}
    )
    hub_strategy: str = field(
        default="end", metadata={"help": "When to push: end, every_save, checkpoint or all_checkpoints."}
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Log the last finite loss instead of one that is not finite; waits for the device after every pass."
        },
    )

    def __post_init__(self) -> None:
        """Check the arguments before anything is loaded."""
        if self.deepspeed:
            raise ValueError(NO_DEEPSPEED)
        self.settle_alignment()
        check_rates(self)
        if self.conflict_record not in _RECORDS:
            raise ValueError(f"--conflict_record must be one of {', '.join(_RECORDS)}, got {self.conflict_record!r}")
        if self.on_nonfinite not in _ON_NONFINITE:
            raise ValueError(f"--on_nonfinite must be one of {', '.join(_ON_NONFINITE)}, got {self.on_nonfinite!r}")
        for name in ("conflict_record_modules", "conflict_record_ids"):
            if getattr(self, name) and self.conflict_record == "none":
                raise ValueError(f"--{name} adds to the conflict record: also pass --conflict_record jsonl")
        if isinstance(self.fsdp, str) and self.fsdp.lower() == "true":
            # This is how a saved command line spells a bare --fsdp.
            self.fsdp = True  # ty: ignore[invalid-assignment]
        if self.metric_for_best_model is not None:
            self.greater_is_better = greater_is_better(self.metric_for_best_model, self.greater_is_better)
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(f"--early_stopping_patience must be 1 or more, got {self.early_stopping_patience}")
        if self.average_best_checkpoints < 1:
            raise ValueError(f"--average_best_checkpoints must be 1 or more, got {self.average_best_checkpoints}")
        self._check_options_of_the_trainer()
        if self.remove_unused_columns:
            raise ValueError("--remove_unused_columns would remove the views from the batch; leave it off")
        if self.accelerator_config is None and torch.cuda.is_available() and not self.use_cpu:
            self.accelerator_config = {"non_blocking": self.dataloader_pin_memory}
        check_selection(self)
        super().__post_init__()
        for option, wanted in (
            ("--early_stopping_patience", self.early_stopping_patience is not None),
            ("--average_best_checkpoints", self.average_best_checkpoints > 1),
        ):
            if wanted and self.metric_for_best_model is None:
                raise ValueError(f"{option} compares checkpoints and needs --metric_for_best_model (e.g. eer or loss)")

    def settle_alignment(self) -> None:
        """Parse and check the arguments of alignment, including those set by a hyperparameter search.

        Raises:
            ValueError: For an unknown method, option or scope, or a view weight out of range.
        """
        self.alignment_options = _mapping("--alignment_options", self.alignment_options)
        self.view_weights = positive_weights(_mapping("--view_weights", self.view_weights))
        if self.align_gradients is None or isinstance(self.align_gradients, bool):
            self.align_gradients = "pcgrad" if self.align_gradients else "none"
        self.align_gradients = canonical_name(self.align_gradients)
        self.make_method()
        check_scope(self.alignment_scope, self.alignment_modules, self.alignment_parameters)

    def _check_options_of_the_trainer(self) -> None:
        """Check options that the base class would ignore or that would fail when the first batch is loaded."""
        check_numbers(self)
        if not (self.bf16 or self.fp16):
            # The base class obeys `accelerate launch --mixed_precision`, so the saved arguments must show it.
            precision = os.environ.get("ACCELERATE_MIXED_PRECISION")
            self.bf16, self.fp16 = precision == "bf16", precision == "fp16"
        seen = self.include_num_input_tokens_seen
        if isinstance(seen, bool) or str(seen).lower() in ("true", "false"):
            self.include_num_input_tokens_seen = "all" if str(seen).lower() == "true" else "no"
        elif seen == "none":
            self.include_num_input_tokens_seen = "no"
        elif seen not in _TOKENS_SEEN:
            raise ValueError(f"--include_num_input_tokens_seen must be one of {', '.join(_TOKENS_SEEN)}, got {seen!r}")
        if unknown := sorted(set(self.include_for_metrics or ()) - set(_FOR_METRICS)):
            raise ValueError(f"--include_for_metrics takes {' and '.join(_FOR_METRICS)}, got {', '.join(unknown)}")
        if self.dataloader_num_workers == 0:
            for option in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
                if getattr(self, option):
                    raise ValueError(
                        f"--{option} needs data loader workers: also pass --dataloader_num_workers, or remove it"
                    )
        if (self.bf16 or self.bf16_full_eval) and not torch.accelerator.is_available():
            self.use_cpu = True  # happens anyway, and the base class requires it
        if self.ddp_backend is not None and _is_single_process():
            raise ValueError("--ddp_backend is for several processes (torchrun), but there is only one; remove it")
        if self.fsdp_config and not self.fsdp:
            raise ValueError("--fsdp_config has no effect without --fsdp: also pass --fsdp")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the token out of `training_args.bin`, which is pickled into each checkpoint."""
        return {**vars(self), "hub_token": None}

    def make_method(self) -> AlignmentMethod:
        """Return a new instance of the alignment method that these arguments describe."""
        return get_method(self.align_gradients, **(cast("dict[str, Any] | None", self.alignment_options) or {}))


def _is_single_process() -> bool:
    # The variables that accelerate reads.
    counts = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    return get_int_from_env(counts, 1) == 1 and "LOCAL_RANK" not in os.environ


def _mapping(option: str, value: dict[str, Any] | str | None) -> dict[str, Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"{option} is not JSON ({error}): {value}") from None
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{option} must be a mapping from names to values, got {value!r}")
    return value
