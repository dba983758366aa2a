"""The fingerprint of a run: everything that affects its result, checked when the run is resumed."""

import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from transformers.utils import logging

from hf_gradalign.augmentation.recipes import recipe_name
from hf_gradalign.data.arrow import AudioColumn
from hf_gradalign.data.columns import with_encoded_audio
from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.file_names import FINGERPRINT_NAME
from hf_gradalign.experiment.preparation import Preparation
from hf_gradalign.experiment.views import CLEAN, public_recipe
from hf_gradalign.scoring.fingerprint import digest_of_audio, digest_of_weights
from hf_gradalign.training.distributed import on_main_process
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.plain_text import split_at_colons

logger = logging.get_logger(__name__)

Fingerprint = dict[str, Any]

# Options that do not change the result, except for differences between devices or numbers of processes.
_WITHOUT_EFFECT = """
    output_dir resume_from_checkpoint overwrite allow_changes dry_run local_rank use_cpu debug full_determinism
    logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter log_level
    log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id include_num_input_tokens_seen skip_memory_metrics include_for_metrics label_names
    per_device_eval_batch_size eval_accumulation_steps eval_do_concat_batches eval_use_gather_object
    batch_eval_metrics prediction_loss_only eval_on_start do_train do_eval do_predict
    save_total_limit save_only_model save_on_each_node enable_jit_checkpoint restore_callback_states_from_checkpoint
    push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context remove_unused_columns accelerator_config parallelism_config
    ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
    fsdp fsdp_config deepspeed activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
    gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode use_liger_kernel
    liger_kernel_config torch_empty_cache_steps auto_find_batch_size conflict_record conflict_record_modules
    conflict_record_ids average_tokens_across_devices on_nonfinite use_cache length_column_name
    attention_implementation trust_remote_code model_license augment_on_device preprocessing_num_workers check_audio
    merge_adapters
"""
# Options whose effect shows in the clips, the views, the weights of the model or the utterances per update.
_SEEN_ELSEWHERE = """
    corpus dataset_name eval_corpus test_corpus subset dataset_config_name dataset_revision train_split_name
    eval_split_name test_split_name validation_fraction audio_column_name label_column_name id_column_name
    system_column_name label_map on_missing_audio on_bad_audio max_train_samples max_eval_samples views augmentation
    model_name_or_path model_revision conversion_options bonafide_label class_weights loss loss_options
    per_device_train_batch_size gradient_accumulation_steps
"""
_OF_THE_STREAM = ("corpus", "dataset_name", "dataset_config_name", "dataset_revision", "train_split_name", "label_map")
_OF_THE_SELECTION = ("eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps")
_NOT_OF_THE_CONFIG = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation")
_SHOWN = 8


def describe_run(preparation: Preparation, run: RunArguments) -> Fingerprint:
    """Return everything that affects the result of a run, for JSON.

    Files count by content, not by location. For audio, this is the size of each file and the ends of 64 files.

    Args:
        preparation: Data and model, before training.
        run: The arguments given to `prepare`.

    Returns:
        Values by name, with digests for long ones. Names of options start with two dashes.
    """
    data_args, args = run.data, run.training
    content: Fingerprint = {}
    for split, clips in preparation.corpus.items():
        content[f"clips of {split}"] = len(clips)
        content[f"ids of {split}"] = _digest(*clips["utterance_id"][:])
        content[f"labels of {split}"] = _digest(*clips["label"][:])
        content[f"audio of {split}"] = _audio(clips)
    content["views"] = ", ".join(data_args.view_recipes)
    for name, recipe in data_args.view_recipes.items():
        content[f"view {name}"] = _view(recipe)
    content["weights of the model before training"] = digest_of_weights(preparation.model)
    config = preparation.model.config.to_diff_dict()
    content |= {f"{name} of the model": value for name, value in config.items() if name not in _NOT_OF_THE_CONFIG}
    content["utterances an update"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if data_args.streaming:  # decides who reads which clips; without workers, the process itself reads
        readers = f"{max(1, args.dataloader_num_workers)} and {args.world_size}"
        content["--dataloader_num_workers and processes of the stream"] = readers
    options = asdict(run.model) | asdict(data_args) | args.to_dict()
    left_out = {*_WITHOUT_EFFECT.split(), *_SEEN_ELSEWHERE.split()} - set(_OF_THE_STREAM if data_args.streaming else ())
    if not (args.load_best_model_at_end or args.average_best_checkpoints > 1 or args.early_stopping_patience):
        left_out |= set(_OF_THE_SELECTION)
    left_out |= {f"{what}_steps" for what in ("eval", "save") if options[f"{what}_strategy"] != "steps"}
    content |= {f"--{name}": value for name, value in options.items() if name not in left_out}
    return json.loads(json.dumps(content, default=str))


def check_resumed(preparation: Preparation, run: RunArguments, checkpoint: str | None) -> Fingerprint | None:
    """Check that a run is resumed with the data, views, model and options that it was started with.

    Args:
        preparation: As for `describe_run`.
        run: As for `describe_run`. With `allow_changes`, differences are only logged.
        checkpoint: Checkpoint to resume from; None for a new run.

    Returns:
        The fingerprint of the run, for `keep_fingerprint`; None except in the main process.

    Raises:
        ValueError: If anything differs, in every process.
    """
    fingerprints: list[Fingerprint] = []

    def compare() -> None:
        fingerprints.append(describe_run(preparation, run))
        if checkpoint is not None:
            path = Path(checkpoint).parent / FINGERPRINT_NAME
            _compare(path, fingerprints[0], run.training.allow_changes, _defaults_of(preparation.model.config))

    on_main_process(compare)
    return fingerprints[0] if fingerprints else None


def keep_fingerprint(fingerprint: Mapping[str, Any], folder: str | Path) -> None:
    """Write a fingerprint into a run's folder."""
    write_text_atomically(Path(folder, FINGERPRINT_NAME), json.dumps(fingerprint, indent=1) + "\n")


def _defaults_of(config: Any) -> Fingerprint:
    """Return the defaults of a configuration's fields, used for fields that an earlier version did not have."""
    parameters = inspect.signature(type(config).__init__).parameters.values()
    defaults = {f"{one.name} of the model": one.default for one in parameters if one.default is not one.empty}
    return json.loads(json.dumps(defaults, default=str))


def _compare(path: Path, now: Fingerprint, allow_changes: bool, defaults: Fingerprint) -> None:
    if not path.is_file():
        logger.warning(
            f"{path.parent} has no {FINGERPRINT_NAME} (it is from an earlier version), so data, views, model and "
            "options are not compared with those it was started with."
        )
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("not a mapping")
    except ValueError as error:
        if allow_changes:
            return
        raise ValueError(
            f"{path} cannot be read ({error}), so it is unknown what the run was started with; use --allow_changes to "
            "resume it anyway"
        ) from error
    differences = list(_differences({name: defaults[name] for name in now if name in defaults} | before, now))
    if not differences:
        return
    listed = "".join(f"\n  {text}" for text in differences[:_SHOWN])
    if len(differences) > _SHOWN:
        listed += f"\n  and {len(differences) - _SHOWN} more"
    if not allow_changes:
        raise ValueError(
            f"the run in {path.parent} was started with other settings:{listed}\nUse the options and the data it was "
            "started with, start another run, or resume with --allow_changes"
        )
    logger.warning(f"--allow_changes: the run in {path.parent} was started with other settings:{listed}")


def _differences(before: Fingerprint, now: Fingerprint) -> Iterator[str]:
    for name in [*before, *(name for name in now if name not in before)]:
        # Other versions of a package may have other options.
        if before.get(name) == now.get(name) or (name.startswith("--") and not (name in before and name in now)):
            continue
        if all(isinstance(each.get(name), str) and len(each[name]) == 64 for each in (before, now)):
            yield f"{name}: differs"
        else:
            yield f"{name}: {before.get(name)!s:.80} then, {now.get(name)!s:.80} now"


def _audio(clips: Dataset) -> str:
    encoded = with_encoded_audio(clips.with_format(None).select_columns(["audio"]))
    sizes = [_size(path) for path in encoded.flatten()["audio.path"][:]]
    return _digest(digest_of_audio(AudioColumn(encoded)), *sizes)


def _size(path: str | None) -> int:
    try:
        return os.stat(path or "").st_size
    except OSError:
        return -1


def _view(recipe: str) -> str:
    """Return a recipe with a digest of the files that it uses."""
    if recipe == CLEAN:
        return recipe
    if recipe_name(recipe) is None:
        text = Path(recipe).expanduser().read_text(encoding="utf-8")
        words = [text, *map(_content, _strings(yaml.safe_load(text)))]
    else:
        words = [_content(word) for part in recipe.split("+") for word in split_at_colons(part)[1:]]
    words = [word for word in words if word]
    return f"{public_recipe(recipe)} {_digest(*words)[:16]}" if words else public_recipe(recipe)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def _content(name: str) -> str:
    """Return names and sizes of the files in a folder, or the size of a file; empty if neither exists."""
    path = Path(name).expanduser()
    if path.is_file():
        return str(_size(str(path)))
    files = sorted(Path(folder, file) for folder, _, files in os.walk(path) for file in files)
    return " ".join(f"{file.relative_to(path).as_posix()} {_size(str(file))}" for file in files)


def _digest(*words: Any) -> str:
    return hashlib.sha256(json.dumps([str(word) for word in words]).encode()).hexdigest()
