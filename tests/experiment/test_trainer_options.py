"""Every option of `transformers.TrainingArguments` works in a run, or is refused before its first step.

The table below has one line per option. A new field of transformers fails here until it has been tried.
"""

import dataclasses
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict
from transformers import TrainerCallback, TrainingArguments, Wav2Vec2Config

from hf_gradalign.experiment import parse_arguments, rehearse, train_and_evaluate
from hf_gradalign.experiment.corpora import RunCorpora
from hf_gradalign.experiment.dry_run import synthetic_clips
from hf_gradalign.experiment.preparation import check_views, make_preparation
from hf_gradalign.models import load_audio_classifier
from hf_gradalign.scoring import read_score_file

TESTS = Path(__file__).parents[1]


@dataclasses.dataclass
class Works:
    """Tried here: by itself (`alone`), or with all others of the same `run`."""

    words: str
    alone: bool = False
    run: str = "harmless"


@dataclasses.dataclass
class Refused:
    words: str
    message: str


@dataclasses.dataclass
class Elsewhere:
    """Not tried here, but in another file."""

    where: str


@dataclasses.dataclass
class NotRun:
    reason: str


SEVERAL_PROCESSES = Elsewhere("scripts/test_run_audio_spoof_processes.py")
IN_DDP = Elsewhere("invariants/test_same_trajectory.py")
WITH_THE_HUB = Elsewhere("experiment/test_publication.py")

TABLE = {
    "output_dir": Works(""),
    "per_device_train_batch_size": Works("--per_device_train_batch_size 3"),
    "num_train_epochs": Works("--max_steps -1 --num_train_epochs 1", alone=True),
    "max_steps": Works("--max_steps 2"),
    "learning_rate": Works("--learning_rate 1e-4"),
    "lr_scheduler_type": Works("--lr_scheduler_type reduce_lr_on_plateau", alone=True),
    "lr_scheduler_kwargs": Works(
        "--lr_scheduler_type inverse_sqrt --lr_scheduler_kwargs '{\"timescale\": 3}'", run="evaluation"
    ),
    "warmup_steps": Works("--warmup_steps 1"),
    "optim": Works("--optim adafactor", run="batches"),
    "optim_args": Works("--optim sgd --optim_args momentum=0.9,nesterov=true", run="optimizer"),
    "weight_decay": Works("--weight_decay 0.1"),
    "adam_beta1": Works("--adam_beta1 0.8"),
    "adam_beta2": Works("--adam_beta2 0.99"),
    "adam_epsilon": Works("--adam_epsilon 1e-7"),
    "optim_target_modules": Refused("--optim_target_modules all-linear", "is for GaLore and APOLLO"),
    "gradient_accumulation_steps": Works("--gradient_accumulation_steps 2", alone=True),
    "average_tokens_across_devices": Works("--average_tokens_across_devices false"),
    "max_grad_norm": Works("--max_grad_norm 0.5"),
    "label_smoothing_factor": Works("--label_smoothing_factor 0.1", run="evaluation"),
    "bf16": Works("--bf16", alone=True),
    "fp16": Works("--fp16", alone=True),
    "bf16_full_eval": Works("--bf16_full_eval True", run="half"),
    "fp16_full_eval": Works("--fp16_full_eval True", run="half"),
    "tf32": Works("--tf32", alone=True) if torch.cuda.is_available() else Refused("--tf32", "--tf32 requires Ampere"),
    "activation_checkpointing": Works("--activation_checkpointing", run="optimizer"),
    "activation_checkpointing_kwargs": Works(
        "--activation_checkpointing --activation_checkpointing_kwargs '{\"use_reentrant\": false}'", alone=True
    ),
    "gradient_checkpointing": Works("--gradient_checkpointing", alone=True),
    "gradient_checkpointing_kwargs": Works(
        "--gradient_checkpointing --gradient_checkpointing_kwargs '{\"use_reentrant\": true}'", alone=True
    ),
    "torch_compile": Elsewhere("training/test_compiled_model.py"),
    "torch_compile_backend": Elsewhere("training/test_compiled_model.py"),
    "torch_compile_mode": NotRun("says how inductor optimizes, and starts a C++ compiler"),
    "use_liger_kernel": Refused("--use_liger_kernel", "pip install liger-kernel"),
    "liger_kernel_config": Refused("--use_liger_kernel --liger_kernel_config '{\"rope\": true}'", "pip install liger"),
    "use_cache": Works("--use_cache"),
    "neftune_noise_alpha": Refused("--neftune_noise_alpha 5", "token embeddings, but Wav2Vec2For.* has none"),
    "torch_empty_cache_steps": Works("--torch_empty_cache_steps 1"),
    "auto_find_batch_size": Works("--auto_find_batch_size", alone=True),
    "logging_strategy": Works("--logging_strategy epoch", run="batches"),
    "logging_steps": Works("--logging_steps 1"),
    "logging_first_step": Works("--no_logging_first_step"),
    "log_on_each_node": Works("--log_on_each_node false"),
    "logging_nan_inf_filter": Works("--no-logging-nan-inf-filter"),
    "include_num_input_tokens_seen": Works("--include_num_input_tokens_seen non_padding"),
    "log_level": Works("--log_level error"),
    "log_level_replica": Works("--log_level_replica error"),
    "disable_tqdm": Works("--disable_tqdm"),
    "report_to": Works("--report_to tensorboard"),
    "run_name": Works("--run_name mine"),
    "project": Works("--project mine"),
    "trackio_space_id": NotRun("publishes trackio's dashboard on the Hub"),
    "trackio_bucket_id": NotRun("keeps trackio's metrics on the Hub"),
    "trackio_static_space_id": NotRun("publishes trackio's dashboard on the Hub"),
    "eval_strategy": Works(
        "--eval_strategy no --save_strategy no --load_best_model_at_end no --average_best_checkpoints 1", alone=True
    ),
    "eval_steps": Works("--eval_steps 0.5 --save_steps 0.5", alone=True),
    "eval_delay": Works("--eval_delay 2", run="evaluation"),
    "per_device_eval_batch_size": Works("--per_device_eval_batch_size 3"),
    "prediction_loss_only": Refused("--prediction_loss_only True", "gives no scores, but a run reports them"),
    "eval_on_start": Works("--eval_on_start", run="evaluation"),
    "eval_do_concat_batches": Works("--eval_do_concat_batches False", run="compared"),
    "eval_use_gather_object": Works("--eval_use_gather_object", run="compared"),
    "eval_accumulation_steps": Works("--eval_accumulation_steps 1", run="compared"),
    "include_for_metrics": Works("--include_for_metrics inputs loss", run="compared"),
    "batch_eval_metrics": Works("--batch_eval_metrics True", run="compared"),
    "save_only_model": Works("--save_only_model", alone=True),
    "save_strategy": Works("--save_strategy best", alone=True),
    "save_steps": Works("--save_steps 2"),
    "save_on_each_node": Works("--save_on_each_node"),
    "save_total_limit": Works("--save_total_limit none"),
    "enable_jit_checkpoint": Refused("--enable_jit_checkpoint", "saves in the middle of an update"),
    "push_to_hub": WITH_THE_HUB,
    "hub_token": WITH_THE_HUB,
    "hub_private_repo": WITH_THE_HUB,
    "hub_model_id": WITH_THE_HUB,
    "hub_strategy": Refused("--hub_strategy every_save", "pushed once, complete, when it ends"),
    "hub_always_push": Refused("--hub_always_push", "a run is pushed once, when it ends"),
    "hub_revision": WITH_THE_HUB,
    "load_best_model_at_end": Works("--no_load_best_model_at_end"),
    "metric_for_best_model": Works("--metric_for_best_model eval_eer", run="batches"),
    "greater_is_better": Works("--greater_is_better false"),
    "ignore_data_skip": Works("--ignore_data_skip"),
    "restore_callback_states_from_checkpoint": Works("--no_restore_callback_states_from_checkpoint"),
    "full_determinism": Works("--full_determinism", alone=True),
    "seed": Works("--seed 5"),
    "data_seed": Works("--data_seed 6"),
    "use_cpu": Works("--use_cpu"),
    "accelerator_config": Works(
        '--accelerator_config \'{"even_batches": false, "non_blocking": true}\'', run="batches"
    ),
    "parallelism_config": Refused("--parallelism_config cp", "invalid (ParallelismConfig|Any) value"),
    "dataloader_drop_last": Works("--dataloader_drop_last", run="compared"),
    "dataloader_num_workers": Works("--dataloader_num_workers 1", alone=True),
    "dataloader_pin_memory": Works("--dataloader_pin_memory false"),
    "dataloader_persistent_workers": Works("--dataloader_num_workers 1 --dataloader_persistent_workers", run="workers"),
    "dataloader_prefetch_factor": Works("--dataloader_num_workers 1 --dataloader_prefetch_factor 3", run="workers"),
    "dataloader_multiprocessing_context": Works(
        "--dataloader_num_workers 1 --dataloader_multiprocessing_context fork", run="workers"
    ),
    "dataloader_in_order": Works("--dataloader_num_workers 1 --no_dataloader_in_order", alone=True),
    "remove_unused_columns": Refused("--remove_unused_columns", "would remove the views"),
    "label_names": Works("--label_names labels"),
    "train_sampling_strategy": Works("--train_sampling_strategy sequential", run="optimizer"),
    "length_column_name": Works("--length_column_name n"),
    "ddp_find_unused_parameters": IN_DDP,
    "ddp_bucket_cap_mb": IN_DDP,
    "ddp_broadcast_buffers": IN_DDP,
    "ddp_static_graph": IN_DDP,
    "ddp_backend": SEVERAL_PROCESSES,
    "ddp_timeout": IN_DDP,
    "fsdp": SEVERAL_PROCESSES,
    "fsdp_config": Refused("--fsdp_config missing.json", "also pass --fsdp"),
    "deepspeed": Refused("--deepspeed config.json", "DeepSpeed does not give access to gradients"),
    "debug": Works("--debug underflow_overflow", alone=True),
    "skip_memory_metrics": Works("--no_skip_memory_metrics", run="optimizer"),
    "do_train": Works("--do_train"),
    "do_eval": Works("--do_train --do_eval"),
    "do_predict": Works("--do_train --do_predict"),
    "resume_from_checkpoint": Elsewhere("experiment/test_trainer_options.py"),
    "local_rank": Works("--local_rank 0"),
}
FIELDS = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
LINES = {name: line for name, line in TABLE.items() if name in FIELDS}  # older versions lack some
# Other values of the same options that would end a run, and options that they need.
ALSO_REFUSED = [
    Refused("--train_sampling_strategy group_by_length", "all clips are windows of the same length"),
    Refused("--train_sampling_strategy batch_rebalance", "all clips are windows of the same length"),
    Refused("--label_names label", "use --label_column_name"),
    Refused("--metric_for_best_model accuracy", "accuracy is not measured; available: loss, eer"),
    Refused("--metric_for_best_model eer_threshold", "does not measure how good a model is"),
    Refused("--metric_for_best_model auprc", "also pass --greater_is_better true or false"),
    Refused("--include_for_metrics predictions", "takes inputs and loss, got predictions"),
    Refused("--include_num_input_tokens_seen some", "must be one of no, all, non_padding"),
    Refused("--do_eval", "this command always trains"),
    Refused("--do_predict", "this command always trains"),
    Refused("--dataloader_drop_last --per_device_train_batch_size 11", "would drop all of the training data: 10 items"),
    Refused("--dataloader_persistent_workers", "needs data loader workers: also pass --dataloader_num"),
    Refused("--dataloader_multiprocessing_context fork", "needs data loader workers: also pass --dataloader_num"),
    Refused("--optim adalomo", "updates parameters during the backward pass"),
    Refused("--optim paged_adamw_8bit", "--optim paged_adamw_8bit cannot be created.*bitsandbytes"),
    Refused("--optim_args momentum", "takes NAME=VALUE pairs separated by commas, got 'momentum'"),
    Refused("--optim sgd --optim_args momentun=0.9", "--optim_args momentun=0.9 has no effect on --optim sgd"),
    Refused(
        "--lr_scheduler_type cosine_with_min_lr", "--lr_scheduler_type cosine_with_min_lr cannot be created.*min_lr"
    ),
    Refused("--lr_scheduler_kwargs '{\"cycles\": 2}'", "'cycles'"),
    Refused("--report_to nobody", "nobody is not supported"),
    Refused("--report_to wandb", "pip install wandb"),
    Refused("--accelerator_config missing.json", "No such file"),
    Refused("--accelerator_config '{\"even\": true}'", "unexpected keyword argument 'even'"),
    Refused("--max_steps 0", "would train nothing"),
    Refused("--max_steps -1 --num_train_epochs 0", "would train nothing"),
    Refused("--gradient_accumulation_steps 0", "must be at least 1, got 0"),
    Refused("--weight_decay -1", "must be at least 0, got -1"),
    Refused("--adam_beta2 1", "Invalid beta parameter"),
    Refused("--ddp_backend gloo", "for several processes"),
    Refused("--fsdp", "only works in distributed training"),
    Refused("--fp16 --bf16", "At most one of fp16 and bf16"),
    Refused("--fp16_full_eval --bf16_full_eval", "At most one of fp16 and bf16"),
]

TINY = {
    "conv_dim": (8, 8),
    "conv_stride": (20, 16),
    "conv_kernel": (20, 16),
    "num_feat_extract_layers": 2,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "apply_spec_augment": False,
    "layerdrop": 0.0,
}
QUICK = shlex.split(
    "--align_gradients --max_steps 2 --per_device_train_batch_size 4 --per_device_eval_batch_size 4 --use_cpu "
    "--window_seconds 0.25 --augmentation rawboost2 --class_weights 0.1 0.9 --learning_rate 0.01 --disable_tqdm "
    "--eval_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2 --report_to none --log_level error"
)
SIZES = {"train": 10, "validation": 10, "test": 6}


class FirstStep(TrainerCallback):
    """Record whether training started."""

    began = False

    def on_step_begin(self, args, state, control, **kwargs):
        self.began = True


@pytest.fixture(scope="module")
def clips():
    return DatasetDict({split: synthetic_clips(size, 0.25, 16_000, split) for split, size in SIZES.items()})


@pytest.fixture
def quick_run(clips, tmp_path):
    """Make a run with a tiny model and more options; return its results, its arguments and its folder."""

    def make(words, callbacks=(), resume_from_checkpoint=None):
        folder = tmp_path / "out"
        run = parse_arguments([*QUICK, *shlex.split(words), "--output_dir", str(folder)])
        run.settle_defaults()
        torch.manual_seed(0)
        weights = dict(zip(("spoof", "bonafide"), run.model.class_weights, strict=True))
        model, extractor = load_audio_classifier(random_config=Wav2Vec2Config(**TINY), class_weights=weights)
        corpora, views = RunCorpora(clips, {}), check_views(run)
        preparation = make_preparation(corpora, views, model, extractor, run)
        rehearse(preparation, run)
        return train_and_evaluate(preparation, run, resume_from_checkpoint, callbacks), run.training, folder

    return make


def check_whole(results, folder):
    """Check that a run has scores of every clip, error rates and losses."""
    for split in ("eval", "test"):
        assert 0 <= results.metrics[f"{split}_eer"] <= 1
        assert np.isfinite(results.metrics[f"{split}_loss"])
    for split in ("validation", "test"):
        scores = list(read_score_file(folder / f"scores_{split}.txt").values())
        assert len(scores) == SIZES[split]
        assert np.isfinite(scores).all()


def test_every_option_has_its_line():
    assert FIELDS - set(TABLE) == set(), "new in transformers: try them, and add them to the table"


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, line in LINES.items() if isinstance(line, Elsewhere | NotRun)]
)
def test_options_tested_elsewhere_exist_there(name, line):
    if isinstance(line, Elsewhere):
        assert name in (TESTS / line.where).read_text(encoding="utf-8")
    else:
        assert len(line.reason) > 20


def words_of(run):
    """The words of all options that are tried in a run of this name."""
    return [line.words for line in LINES.values() if isinstance(line, Works) and line.run == run and not line.alone]


def test_every_run_of_options_is_made():
    runs = {line.run for line in LINES.values() if isinstance(line, Works)}
    assert runs == {"harmless", "evaluation", "optimizer", "batches", "workers", "compared", "half"}


@pytest.mark.parametrize("run", ["evaluation", "optimizer", "batches", "workers"])
def test_options_together(quick_run, run):
    results, _, folder = quick_run(" ".join(words_of(run)))
    check_whole(results, folder)


def test_harmless_options_together(quick_run):
    results, args, folder = quick_run(" ".join(words_of("harmless")))
    check_whole(results, folder)
    assert (args.save_total_limit, args.seed, args.per_device_train_batch_size) == (None, 5, 3)
    assert not any((args.logging_first_step, args.logging_nan_inf_filter, args.load_best_model_at_end))


# Two that other lines set too are slow.
SLOW_ALONE = ("--dataloader_num_workers 1", "--gradient_checkpointing")


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(line.words, marks=pytest.mark.slow if line.words in SLOW_ALONE else [])
        for line in LINES.values()
        if isinstance(line, Works) and line.alone
    ],
    ids=lambda words: words,
)
def test_single_option(quick_run, words):
    try:
        results, _, folder = quick_run(words)
    finally:
        torch.use_deterministic_algorithms(False)
    check_whole(results, folder)


@pytest.mark.slow
def test_evaluation_options_do_not_change_results(quick_run):
    expected, _, folder = quick_run("")
    scores = (folder / "scores_test.txt").read_text()
    names = [f"{split}_{name}" for split in ("eval", "test") for name in ("eer", "eer_threshold", "loss")]
    for words in (
        *words_of("compared"),
        "--batch_eval_metrics --eval_do_concat_batches no",
        "--eval_accumulation_steps 1 --no_eval_do_concat_batches",
    ):
        shutil.rmtree(folder)
        results, _, _ = quick_run(words)
        check_whole(results, folder)
        assert {name: results.metrics[name] for name in names} == {name: expected.metrics[name] for name in names}, (
            words
        )
        assert (folder / "scores_test.txt").read_text() == scores, words
    for words in words_of("half"):
        shutil.rmtree(folder)
        results, _, _ = quick_run(words)
        check_whole(results, folder)
        assert results.metrics["eval_loss"] == pytest.approx(expected.metrics["eval_loss"], abs=1e-3)
        assert (folder / "scores_test.txt").read_text() != scores


@pytest.mark.parametrize("words", ["", "--ignore_data_skip", "--save_only_model"])
def test_resuming(quick_run, words):
    _, _, folder = quick_run(words)
    results, _, _ = quick_run(f"{words} --max_steps 4", resume_from_checkpoint=str(folder / "checkpoint-2"))
    check_whole(results, folder)
    assert (folder / "checkpoint-4").is_dir()


@pytest.mark.parametrize(
    ("words", "message"),
    [(line.words, line.message) for line in [*LINES.values(), *ALSO_REFUSED] if isinstance(line, Refused)],
)
def test_refused_option(quick_run, capsys, words, message):
    first = FirstStep()
    with pytest.raises((SystemExit, ValueError)) as refusal:
        quick_run(words, [first])
    printed = capsys.readouterr().err if refusal.type is SystemExit else str(refusal.value)
    assert not first.began
    assert re.search(message, printed), printed
