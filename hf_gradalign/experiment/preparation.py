"""From a run's arguments to its data sets and model; everything that can be wrong is found here, before training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from datasets import DatasetDict
from transformers import PretrainedConfig, PreTrainedModel, SequenceFeatureExtractor, set_seed
from transformers.utils import logging

from hf_gradalign.alignment import check_view_weights
from hf_gradalign.augmentation.recipes import Augmentation
from hf_gradalign.data import ClipDataset, DeferredAugmentation, StreamedViewDataset, ViewDataset
from hf_gradalign.experiment.arguments import RunArguments
from hf_gradalign.experiment.corpora import RunCorpora, data_seed, load_run_corpora, stream_training_corpora
from hf_gradalign.experiment.views import build_views, try_views
from hf_gradalign.models import LABEL2ID, SpoofDetectorFeatureExtractor, load_audio_classifier, load_detector
from hf_gradalign.scoring.windowing import without_cropping
from hf_gradalign.training.run_checkpoints import require_sound_model

logger = logging.get_logger(__name__)


@dataclass
class Preparation:
    """What a run trains and evaluates with.

    Attributes:
        corpus: The checked splits: `train` (unless it is streamed), `validation` and, where there is one, `test`.
        train_dataset: The training split's views.
        eval_datasets: The other splits' clips, by split.
        model: The model.
        feature_extractor: Makes the model's inputs from waveforms.
        eval_sources: The corpus that each split other than `train` is of, as it was named.
        batch_transform: What is left to do to training batches on the accelerator, if anything is.
    """

    corpus: DatasetDict
    train_dataset: ViewDataset | StreamedViewDataset
    eval_datasets: dict[str, ClipDataset]
    model: PreTrainedModel
    feature_extractor: SequenceFeatureExtractor
    eval_sources: dict[str, str | None] = field(default_factory=dict)
    batch_transform: DeferredAugmentation | None = None


def prepare(run: RunArguments) -> Preparation:
    """Load and check the views, the data and the model.

    Raises:
        ValueError: On wrong labels, columns, splits, bad audio, an unknown augmentation or one that fails when it is
            tried, a weight for a view that is not there, or an alignment method that cannot weigh so many views.
        OSError: If a data set or a model is not found.
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
    return put_together(corpora, views, model, feature_extractor, run)


def put_together(
    corpora: RunCorpora,
    views: Mapping[str, Augmentation | None],
    model: PreTrainedModel,
    feature_extractor: SequenceFeatureExtractor,
    run: RunArguments,
) -> Preparation:
    """What a run trains and evaluates with, from its parts.

    Args:
        corpora: The clips; without a training split it is streamed from what the arguments name.
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
        batch_transform = DeferredAugmentation(without_cropping(feature_extractor))
    return Preparation(
        corpora.splits,
        train_dataset,
        eval_datasets,
        model,
        feature_extractor,
        eval_sources=corpora.eval_sources,
        batch_transform=batch_transform,
    )


def check_views(run: RunArguments) -> dict[str, Augmentation | None]:
    """Each view's transform, None for the clip as it is, after a look at whether the run can be done with them.

    Raises:
        ValueError: On an unknown augmentation, a weight for a view that is not there, an alignment method that cannot
            weigh so many views, or a stream without an end.
    """
    data_args, args = run.data, run.training
    if data_args.streaming and args.max_steps <= 0:
        raise ValueError("--streaming: a stream has no length and no epochs; say how long to train with --max_steps")
    if data_args.streaming and args.eval_strategy == "epoch":
        logger.warning("A stream has no epochs: --eval_strategy epoch evaluates once, at the end; try steps.")
    views = build_views(data_args.view_recipes)
    check_view_weights(list(views), cast("dict[str, float] | None", args.view_weights))
    if len(views) == 1 and args.align_gradients != "none":
        logger.warning(
            f"There is one view, {next(iter(views))}: --align_gradients {args.align_gradients} does nothing."
        )
    if data_args.augment_on_device and args.device.type == "cpu":
        logger.warning(
            "--augment_on_device: there is no accelerator, and the training process takes over the work of its loader "
            "workers."
        )
    if len(views) > 1:
        args.make_method()(torch.eye(len(views)))  # a method that cannot weigh so many says so
    return views


def load_model(
    run: RunArguments, random_config: PretrainedConfig | None = None
) -> tuple[PreTrainedModel, SequenceFeatureExtractor]:
    """The model that the arguments name, and its feature extractor.

    Args:
        run: The run's arguments, after `settle_defaults`.
        random_config: A configuration to make the model or, with `head`, its encoder of, with random weights, in place
            of what is named.

    Raises:
        OSError: If there is no such model.
        ValueError: If it cannot be trained as the arguments say.
    """
    model_args, data_args = run.model, run.data
    seconds = data_args.eval_window_seconds
    assert seconds is not None, "the defaults are not settled yet"
    weights = model_args.class_weights
    common: dict[str, Any] = {
        "class_weights": None if weights is None else dict(zip(("spoof", "bonafide"), weights, strict=True)),
        "attention_implementation": model_args.attention_implementation,
        "revision": model_args.model_revision,
        "token": run.training.hub_token,
        "trust_remote_code": model_args.trust_remote_code,
    }
    name = model_args.model_name_or_path
    if random_config is not None:
        name, common["random_config"] = None, random_config
    if name is not None:
        require_sound_model(name)
    if model_args.head is None:
        model, feature_extractor = load_audio_classifier(
            name, bonafide_label=None if random_config is not None else model_args.bonafide_label, **common
        )
    else:
        model, feature_extractor = load_detector(
            name,
            head=model_args.head,
            head_options=cast("dict[str, Any] | None", model_args.head_options),  # read from JSON by now
            n_samples=round(seconds * 16_000),
            # Where clips are brought to a level here, the model must not depend on the level of those it hears later.
            do_normalize=data_args.rms_level is not None,
            **common,
        )
    assert isinstance(feature_extractor, SequenceFeatureExtractor)
    # What is saved with the model scores clips as they are evaluated here.
    n_samples = round(seconds * feature_extractor.sampling_rate)
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        feature_extractor.n_samples = model.config.n_samples = n_samples
    else:
        setattr(feature_extractor, "n_scored_samples", n_samples)  # noqa: B010  `hf_gradalign.scoring` reads it
    if data_args.augment_on_device:
        DeferredAugmentation(without_cropping(feature_extractor))  # refused now rather than after the corpora
    for part in ("feature_encoder", "backbone"):
        if getattr(model_args, f"freeze_{part}"):
            freeze = getattr(model, f"freeze_{part}", None)
            if freeze is None:
                raise ValueError(f"--freeze_{part}: {type(model).__name__} has no {part.replace('_', ' ')} to freeze")
            freeze()
    return model, feature_extractor
