"""The dry run: checks a run and takes two timed updates on synthetic audio."""

import copy
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import soundfile
import torch
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset, DatasetDict
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import (
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PrinterCallback,
    SequenceFeatureExtractor,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import IntervalStrategy, SaveStrategy
from transformers.utils import logging

from hf_gradalign.data import ViewDataset
from hf_gradalign.experiment.arguments import AudioSpoofTrainingArguments, RunArguments
from hf_gradalign.experiment.corpora import RunCorpora, load_run_corpora, stream_training_corpora
from hf_gradalign.experiment.estimates import DryRunReport, disk_space, estimate_run
from hf_gradalign.experiment.preparation import Preparation, check_views, load_model, make_preparation
from hf_gradalign.experiment.rehearsal import rehearse
from hf_gradalign.experiment.training_run import make_trainer
from hf_gradalign.experiment.views import try_views
from hf_gradalign.models import ID2LABEL
from hf_gradalign.models.configuration_spoof_detector import XLS_R_300M
from hf_gradalign.models.lora import count_parameters
from hf_gradalign.utils.memory import peak_memory

logger = logging.get_logger(__name__)

_STEPS = 2  # the first is a warm-up
_CLIPS_TIMED = 8
_PITCH = (90.0, 250.0)  # Hz
_BUILT_IN: dict[str, dict[str, Any]] = {"facebook/wav2vec2-xls-r-300m": XLS_R_300M}


def is_hub_unreachable(error: BaseException) -> bool:
    """Return whether an error means that the Hub could not be reached, rather than that the model does not exist."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def stand_in_config(name: str, **hub_options: Any) -> PretrainedConfig | None:
    """Return the configuration of a model whose weights are not available: from the cache, or a built-in one.

    Args:
        name: Hub id.
        hub_options: `revision`, `cache_dir`, `trust_remote_code`.

    Returns:
        The configuration; None if neither exists.
    """
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True, **hub_options)
    except OSError:
        fields = _BUILT_IN.get(name)
    if fields is None:
        return None
    fields = dict(fields)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def synthetic_clips(count: int, seconds: float, sampling_rate: int, prefix: str) -> Dataset:
    """Return clips of a buzz in noise, alternating spoof and bona fide, as FLAC in memory.

    Half of the clips are a fifth longer than `seconds` and half a fifth shorter, so that both cutting and repeating are
    tried. The clips are always the same.

    Args:
        count: Number of clips, at least 1.
        seconds: Approximate length.
        sampling_rate: In Hz.
        prefix: Prefix of each `utterance_id`.

    Returns:
        Columns `audio` (encoded), `label` (0 spoof, 1 bona fide), `utterance_id` and `system`.
    """
    generator = np.random.default_rng(0)
    columns: dict[str, list] = {"audio": [], "label": [], "utterance_id": [], "system": []}
    for index in range(count):
        label = index % len(ID2LABEL)
        times = np.arange(max(1, round(seconds * (0.8, 1.2)[index // 2 % 2] * sampling_rate))) / sampling_rate
        phase = 2 * np.pi * generator.uniform(*_PITCH) * times
        buzz = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 6))
        samples = 0.1 * buzz + 0.01 * generator.standard_normal(len(times))
        content = io.BytesIO()
        soundfile.write(content, samples, sampling_rate, format="FLAC")
        name = f"{prefix}_{index}"
        columns["audio"].append({"bytes": content.getvalue(), "path": f"{name}.flac"})
        columns["label"].append(label)
        columns["utterance_id"].append(name)
        columns["system"].append("-" if label else "synthetic")
    return Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))


class StepClock(TrainerCallback):
    """Records the times of updates in seconds. It waits for the accelerator, so use it only for a few steps.

    Attributes:
        updates: The end of each update.
        evaluations: The end of each evaluation batch.
    """

    def __init__(self) -> None:
        self.updates: list[float] = []
        self.evaluations: list[float] = []

    def on_step_end(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.updates.append(_now(args.device))

    def on_prediction_step(  # noqa: D102
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.evaluations.append(_now(args.device))


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def dry_run(run: RunArguments) -> DryRunReport:
    """Check everything that a run needs, and take two updates and two evaluation batches on synthetic audio.

    Options, views, corpora and model are checked as in a run, so corpora must exist. A model that can be neither
    downloaded nor found in the cache is built with random weights, if its sizes are known. Outputs go to a folder that
    is deleted at the end. Downloads go to the caches of their libraries.

    Args:
        run: The run's arguments. Only defaults that depend on others are filled in.

    Raises:
        ValueError: If the run cannot work with these arguments, or does not fit into the memory of the accelerator.
        OSError: If a corpus is not found, or a model cannot be loaded or replaced.
    """
    model_args, data_args, args = run.model, run.data, run.training
    logging.set_verbosity(args.get_process_log_level())
    set_seed(args.seed)
    run.settle_defaults()
    views = check_views(run)
    model, feature_extractor, is_random = _load_model(run)
    try_views(views, feature_extractor.sampling_rate, args.device if data_args.augment_on_device else None)
    with args.main_process_first(desc="loading and checking the audio"):
        real = load_run_corpora(run, feature_extractor.sampling_rate)
        if data_args.streaming:
            stream_training_corpora(run)
    clips = {str(split): len(each) for split, each in real.splits.items()}
    corpora = _synthetic_corpora(run, feature_extractor.sampling_rate)
    preparation = make_preparation(corpora, views, model, feature_extractor, run)
    held_out = RunCorpora(DatasetDict({**real.splits, "train": corpora.splits["train"]}), real.eval_sources)
    evaluated = make_preparation(held_out, views, model, feature_extractor, run)
    assert isinstance(preparation.train_dataset, ViewDataset)  # synthetic clips are never streamed
    seconds_per_clip = _seconds_per_clip(preparation.train_dataset)
    clock = StepClock()
    with tempfile.TemporaryDirectory(prefix="hf_gradalign_dry_run_") as folder:
        rehearse(evaluated, run, folder=folder, saves=False)
        try:
            _take_steps(preparation, _step_arguments(args, folder), clock)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not should_reduce_batch_size(error):
                raise
            raise ValueError(
                f"the run does not fit into the memory of {args.device} with --per_device_train_batch_size "
                f"{args.per_device_train_batch_size}: halve it and double --gradient_accumulation_steps (the updates "
                f"stay the same), or try --gradient_checkpointing or --bf16 ({error})"
            ) from error
    per_update = args.train_batch_size * args.gradient_accumulation_steps
    measured, loading = clock.updates[-1] - clock.updates[-2], seconds_per_clip * per_update
    if args.dataloader_num_workers:
        # The batches of the two updates were prefetched. In the long run, an update is no faster than loading its
        # batches.
        computing, loading = measured, loading / args.dataloader_num_workers
        seconds_per_update = max(computing, loading)
    else:
        computing, seconds_per_update = max(measured - loading, 0.0), measured
    evaluation_seconds = clock.evaluations[-1] - clock.evaluations[-2]
    n_parameters = count_parameters(model)
    n_trained = model.num_parameters(only_trainable=True)
    estimate = estimate_run(args, clips, seconds_per_update, evaluation_seconds)
    return DryRunReport(
        model=f"{model_args.model_name_or_path or 'small wav2vec 2.0'}, {model_args.head or 'its own'} head",
        has_random_weights=is_random,
        corpus=", ".join("the demo corpus (no --corpus given)" if c is None else c for c in data_args.corpora),
        clips=clips,
        views=data_args.view_recipes,
        alignment=args.align_gradients,
        n_parameters=n_parameters,
        n_trained=n_trained,
        utterances=per_update * args.world_size,
        device=args.device.type,
        peak_memory_mib=peak_memory(args.device),
        seconds_per_update=seconds_per_update,
        seconds_per_clip=seconds_per_clip,
        bound=_bound(computing, loading, seconds_per_clip, _seconds_per_read(real.splits.get("train"))),
        loader_workers=args.dataloader_num_workers,
        seconds_per_evaluation_batch=evaluation_seconds,
        utterances_per_evaluation_batch=args.eval_batch_size,
        estimate=estimate,
        disk=disk_space(model, args, clips, estimate),
        epochs=None if args.max_steps > 0 else args.num_train_epochs,
        patience=args.early_stopping_patience,
    )


def _load_model(run: RunArguments) -> tuple[PreTrainedModel, SequenceFeatureExtractor, bool]:
    """Load the model and its feature extractor, and return whether its weights are random instead of the Hub's."""
    try:
        return *load_model(run), False
    except OSError as error:
        name = run.model.model_name_or_path
        if name is None or not is_hub_unreachable(error):
            raise
        options: dict[str, Any] = {"revision": run.model.model_revision, "token": run.training.hub_token}
        config = stand_in_config(name, trust_remote_code=run.model.trust_remote_code, **options)
        if config is None:
            raise OSError(
                f"{name} is neither a folder nor in the Hub's cache, and the Hub cannot be reached: download it on a "
                f"machine with a connection (hf download {name}) and pass the folder, or try the dry run with "
                "facebook/wav2vec2-xls-r-300m, whose sizes are known"
            ) from error
    logger.warning(f"{name}: the Hub cannot be reached, so the weights are random. The run itself will need the Hub.")
    return *load_model(run, config), True


def _synthetic_corpora(run: RunArguments, sampling_rate: int) -> RunCorpora:
    data_args, args = run.data, run.training
    per_update = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    sizes = {
        "train": (_STEPS * per_update, data_args.window_seconds),
        # Two clips are needed for an equal error rate.
        "validation": (_STEPS * args.eval_batch_size * args.world_size, data_args.eval_window_seconds),
    }
    splits = DatasetDict()
    for split, (count, seconds) in sizes.items():
        assert seconds is not None, "the defaults are not settled yet"
        splits[split] = synthetic_clips(count, seconds, sampling_rate, split)
    return RunCorpora(splits, {})


def _seconds_per_clip(dataset: ViewDataset) -> float:
    times = []
    for index in range(min(_CLIPS_TIMED, len(dataset))):
        start = time.perf_counter()
        dataset[index]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _seconds_per_read(clips: Dataset | None) -> float:
    """Return the seconds to read a file from disk without decoding it; 0 if clips are not files or are streamed."""
    if clips is None:
        return 0.0
    times = []
    for index in range(0, len(clips), max(1, len(clips) // _CLIPS_TIMED)):
        audio = clips[index]["audio"] or {}
        if audio.get("bytes") is None and audio.get("path"):
            start = time.perf_counter()
            Path(audio["path"]).read_bytes()
            times.append(time.perf_counter() - start)
    return statistics.median(times) if times else 0.0


def _bound(computing: float, loading: float, seconds_per_clip: float, seconds_per_read: float) -> str:
    """Return what limits the speed of an update, as text."""
    if loading < computing:
        return f"the model: {computing:.3g} s per update, loading {loading:.3g} s"
    if seconds_per_read > seconds_per_clip / 2:
        return (
            f"the disk: {1000 * seconds_per_read:.3g} ms to read a clip, loading {loading:.3g} s per update, the model "
            f"{computing:.3g} s; a faster disk or clips packed in parquet would help"
        )
    return (
        f"the data: loading {loading:.3g} s per update, the model {computing:.3g} s; more --dataloader_num_workers or "
        "--augment_on_device would help"
    )


def _step_arguments(args: AudioSpoofTrainingArguments, folder: str) -> AudioSpoofTrainingArguments:
    """Return the arguments of a run for two updates that keep no outputs."""
    args = copy.copy(args)
    args.output_dir = folder
    args.max_steps = _STEPS
    args.eval_strategy = args.logging_strategy = IntervalStrategy.NO
    args.save_strategy = SaveStrategy.NO
    args.load_best_model_at_end = args.push_to_hub = args.eval_on_start = False
    args.conflict_record = "none"
    args.conflict_record_modules = args.conflict_record_ids = False
    args.early_stopping_patience = args.resume_from_checkpoint = None
    args.average_best_checkpoints = 1
    args.report_to = []
    args.disable_tqdm = True
    return args


def _take_steps(preparation: Preparation, args: AudioSpoofTrainingArguments, clock: StepClock) -> None:
    trainer = make_trainer(preparation, args, [clock])
    trainer.remove_callback(PrinterCallback)  # the loss on synthetic audio means nothing
    trainer.train()
    trainer.evaluate()
