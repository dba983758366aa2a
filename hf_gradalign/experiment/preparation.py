"""Makes the datasets and the model of a run from its arguments, and checks everything that could be wrong."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from datasets import DatasetDict
from transformers import PretrainedConfig, PreTrainedModel, SequenceFeatureExtractor, set_seed
from transformers.utils import logging

from hf_gradalign.alignment import check_view_weights
from hf_gradalign.augmentation.recipes import Augmentation
from hf_gradalign.data import ClipDataset, DeferredAugmentation, StreamedViewDataset, ViewDataset
from hf_gradalign.experiment.arguments import ModelArguments, RunArguments
from hf_gradalign.experiment.corpora import RunCorpora, data_seed, load_run_corpora, stream_training_corpora
from hf_gradalign.experiment.views import build_views, try_views
from hf_gradalign.models import (
    ARCHITECTURES,
    LABEL2ID,
    SpoofDetectorFeatureExtractor,
    create_detector,
    load_audio_classifier,
)
from hf_gradalign.models.clip_lengths import refuse_discarding
from hf_gradalign.models.encoder_layers import encoder_of, freeze_layers
from hf_gradalign.models.lora import add_lora
from hf_gradalign.models.losses import CROSS_ENTROPY
from hf_gradalign.models.model_files import cached_snapshot
from hf_gradalign.training.run_checkpoints import require_intact_model

logger = logging.get_logger(__name__)


@dataclass
class Preparation:
    """The data and the model of a run.

    Attributes:
        corpus: The checked splits: `train` (unless it is streamed), `validation` and, if there is one, `test`.
        train_dataset: The views of the training split.
        eval_datasets: The clips of the other splits, by split.
        model: The model.
        feature_extractor: Makes model inputs from waveforms.
        eval_sources: The corpus of each split other than `train`, as given by the user.
        batch_transform: Augmentation that is applied to training batches on the accelerator, if any.
        remarks: Warnings about clips that splits share, one sentence each.
    """

    corpus: DatasetDict
    train_dataset: ViewDataset | StreamedViewDataset
    eval_datasets: dict[str, ClipDataset]
    model: PreTrainedModel
    feature_extractor: SequenceFeatureExtractor
    eval_sources: dict[str, str | None] = field(default_factory=dict)
    batch_transform: DeferredAugmentation | None = None
    remarks: tuple[str, ...] = ()


def prepare(run: RunArguments) -> Preparation:
    """Load and check the views, the data and the model.

    Raises:
        ValueError: If labels, columns, splits or audio are wrong, an augmentation is unknown or fails when it is tried,
            a missing view has a weight, or an alignment method does not support the number of views.
        OSError: If a dataset or a model is not found.
    """
    training = run.training
    logging.set_verbosity(training.get_process_log_level())
    set_seed(training.seed)
    run.settle_defaults()
    views = check_views(run)
    model, feature_extractor = load_model(run)
    try_views(views, feature_extractor.sampling_rate, training.device if run.data.augment_on_device else None)
    with training.main_process_first(desc="loading and checking the audio"):
        corpora = load_run_corpora(run, feature_extractor.sampling_rate)
    return make_preparation(corpora, views, model, feature_extractor, run)


def make_preparation(
    corpora: RunCorpora,
    views: Mapping[str, Augmentation | None],
    model: PreTrainedModel,
    feature_extractor: SequenceFeatureExtractor,
    run: RunArguments,
) -> Preparation:
    """Put the parts of a run together.

    Args:
        corpora: The clips. Without a training split, training data are streamed from the corpora in the arguments.
        views: From `check_views`.
        model: From `load_model`.
        feature_extractor: From `load_model`.
        run: The run's arguments, after `settle_defaults`.
    """
    data_args, training = run.data, run.training
    common: dict[str, Any] = {
        "sampling_rate": feature_extractor.sampling_rate,
        "rms_level": data_args.rms_level,
        "label2id": LABEL2ID,
    }
    for_training: dict[str, Any] = {
        "window_seconds": data_args.window_seconds,
        "crop": data_args.crop,
        "seed": data_seed(training),
        "augment": data_args.augmentation_scope,
        "on_bad_audio": data_args.on_bad_audio,
        "defer": data_args.augment_on_device,
        **common,
    }
    train_dataset: ViewDataset | StreamedViewDataset
    if "train" in corpora.splits:
        train_dataset = ViewDataset(corpora.splits["train"], views, **for_training)
    else:
        train_dataset = StreamedViewDataset(
            stream_training_corpora(run),
            views,
            shuffle_buffer_size=data_args.shuffle_buffer_size,
            process_index=training.process_index,
            n_processes=training.world_size,
            repeats=data_args.balance_classes or data_args.corpus_weights is not None,
            **for_training,
        )
    eval_datasets = {
        str(split): ClipDataset(clips, window_seconds=data_args.eval_window_seconds, **common)
        for split, clips in corpora.splits.items()
        if split != "train"
    }
    batch_transform = None
    if data_args.augment_on_device:
        batch_transform = DeferredAugmentation(feature_extractor)
    return Preparation(
        corpora.splits,
        train_dataset,
        eval_datasets,
        model,
        feature_extractor,
        eval_sources=corpora.eval_sources,
        batch_transform=batch_transform,
        remarks=corpora.remarks,
    )


def check_views(run: RunArguments) -> dict[str, Augmentation | None]:
    """Check the views of a run and return the transform of each; None is the unchanged clip.

    Raises:
        ValueError: If an augmentation is unknown, a missing view has a weight, the alignment method does not support
            the number of views, or `max_steps` is missing for a stream.
    """
    data_args, args = run.data, run.training
    if data_args.streaming and args.max_steps <= 0:
        raise ValueError("--streaming: a stream has no length and no epochs, so set --max_steps")
    if data_args.streaming and args.eval_strategy == "epoch":
        logger.warning(
            "A stream has no epochs, so --eval_strategy epoch evaluates only once, at the end. Use steps instead."
        )
    views = build_views(data_args.view_recipes)
    check_view_weights(list(views), cast("dict[str, float] | None", args.view_weights))
    if data_args.augment_on_device and args.device.type == "cpu":
        logger.warning(
            "--augment_on_device: there is no accelerator, so the training process does the work instead of the "
            "loader workers."
        )
    if len(views) > 1:
        args.make_method()(torch.eye(len(views)))  # raises if the method does not support this number of views
    return views


def load_model(
    run: RunArguments, random_config: PretrainedConfig | None = None
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """Load the model of a run and its feature extractor.

    Args:
        run: The run's arguments, after `settle_defaults`.
        random_config: Configuration of a model (with `head`, of an encoder) with random weights, which replaces the
            model in the arguments.

    Raises:
        OSError: If the model is not found.
        ValueError: If the model cannot be trained with these arguments.
    """
    model_args, data_args = run.model, run.data
    _check_lora(run)
    seconds, train_seconds = data_args.eval_window_seconds, data_args.window_seconds
    assert seconds is not None, "the defaults are not settled yet"
    assert train_seconds is not None, "the defaults are not settled yet"
    weights = model_args.class_weights
    common: dict[str, Any] = {
        "class_weights": None if weights is None else dict(zip(("spoof", "bonafide"), weights, strict=True)),
        "attention_implementation": model_args.attention_implementation,
        "revision": model_args.model_revision,
        "conversion_options": model_args.conversion_options,
        "token": run.training.hub_token,
        "trust_remote_code": model_args.trust_remote_code,
    }
    name = model_args.model_name_or_path
    if random_config is not None:
        name, common["random_config"] = None, random_config
    if name is not None and name not in ARCHITECTURES:
        require_intact_model(name)
    # If training clips are scaled to one level, a new model should not depend on the level of other clips.
    do_normalize = data_args.rms_level is not None
    loss_options = cast("dict[str, float] | None", model_args.loss_options)  # read from JSON by now
    if model_args.head is None:
        model, feature_extractor = load_audio_classifier(
            name,
            bonafide_label=None if random_config is not None else model_args.bonafide_label,
            loss=model_args.loss,
            loss_options=loss_options,
            **common,
        )
    else:
        model, feature_extractor = create_detector(
            name,
            head=model_args.head,
            head_options=cast("dict[str, Any] | None", model_args.head_options),  # read from JSON by now
            layer_merging=model_args.layer_merging,
            loss=model_args.loss or CROSS_ENTROPY,
            loss_options=loss_options,
            # The sls head needs the frames of the longer window. The feature extractor gets the evaluation window
            # below.
            n_samples=round(max(seconds, train_seconds) * 16_000),
            do_normalize=do_normalize,
            **common,
        )
    assert isinstance(feature_extractor, SequenceFeatureExtractor)
    # Saved with the model, so that later scoring uses the same window as the evaluation here.
    n_samples = round(seconds * feature_extractor.sampling_rate)
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        feature_extractor.n_samples = model.config.n_samples = n_samples
        if name in ARCHITECTURES:
            feature_extractor.do_normalize = model.config.do_normalize = do_normalize
    else:
        setattr(feature_extractor, "n_scored_samples", n_samples)  # noqa: B010  `hf_gradalign.scoring` reads it
    refuse_discarding(model, feature_extractor, round(train_seconds * feature_extractor.sampling_rate))
    if data_args.augment_on_device:
        DeferredAugmentation(feature_extractor)  # fails now, not after the corpora are loaded
    if run.training.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise ValueError(
            f"--gradient_checkpointing: {name or type(model).__name__} does not support it. To save memory, lower "
            "--per_device_train_batch_size and raise --gradient_accumulation_steps"
        )
    _freeze(model, model_args)
    if model_args.lora_r is not None:
        model = _adapt(model, feature_extractor, model_args)
    return model, feature_extractor


def _freeze(model: PreTrainedModel, model_args: ModelArguments) -> None:
    for part in ("feature_encoder", "backbone"):
        if getattr(model_args, f"freeze_{part}"):
            freeze = getattr(model, f"freeze_{part}", None)
            if freeze is None:
                raise ValueError(
                    f"--freeze_{part}: {type(model).__name__} has no {part.replace('_', ' ')} to "
                    "freeze: remove the option"
                )
            try:
                freeze()
            except ValueError as error:
                raise ValueError(f"--freeze_{part}: {error}. Remove the option") from error
    if model_args.freeze_layers is not None:
        encoder = encoder_of(model)
        if encoder is None:
            raise ValueError(f"--freeze_layers: {type(model).__name__} has no encoder apart from its head; remove it")
        try:
            freeze_layers(encoder, model_args.freeze_layers)
        except ValueError as error:
            raise ValueError(f"--freeze_layers {model_args.freeze_layers}: {error}") from error


def _check_lora(run: RunArguments) -> None:
    """Check, before anything is loaded, that adapters can be trained and later loaded."""
    name, args = run.model.model_name_or_path, run.training
    if run.model.lora_r is None:
        return
    if args.fsdp:
        raise ValueError(
            "--lora_r and --fsdp: sharded adapters can be neither merged nor resumed; use DDP (torchrun without --fsdp)"
        )
    if name is None:
        logger.warning(
            "--lora_r does not train the encoder's own weights, which are random without --model_name_or_path."
        )
    if not args.merge_adapters and name is None:
        raise ValueError(
            "--no_merge_adapters: without --model_name_or_path, there is no base model for loading the adapters; "
            "remove it or name a model"
        )
    # Saved adapters do not contain conversion options.
    is_here_only = run.model.conversion_options or Path(str(name)).exists()
    if not args.merge_adapters and args.push_to_hub and is_here_only:
        raise ValueError(
            f"--no_merge_adapters and --push_to_hub: others do not have your {name}, the base model of the adapters; "
            "push the merged model, or train from a model on the Hub"
        )


def _adapt(model: PreTrainedModel, feature_extractor: SequenceFeatureExtractor, model_args: ModelArguments) -> Any:
    base, revision = model_args.model_name_or_path, model_args.model_revision
    if model_args.conversion_options:
        base, revision = model.name_or_path, None  # with conversion options, the checkpoint is another model
    elif base is not None and Path(base).exists():
        base, revision = os.path.abspath(base), None
    elif base is not None and (snapshot := cached_snapshot(base, {"revision": revision})):
        revision = snapshot.name  # the commit
    return add_lora(
        model,
        feature_extractor,
        cast(int, model_args.lora_r),
        model_args.lora_alpha,
        model_args.lora_target_modules,
        base=base,
        revision=revision,
    )
