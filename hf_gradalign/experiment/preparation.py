"""From a run's arguments to its data sets and model; everything that can be wrong is found here, before training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedModel, set_seed
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.utils import logging

from hf_gradalign.data import (
    ClipDataset,
    ViewDataset,
    check_audio,
    load_corpus,
    parse_label_map,
    require_both_classes,
)
from hf_gradalign.experiment.arguments import (
    PAPER_WINDOW_SECONDS,
    AudioSpoofTrainingArguments,
    DataArguments,
    ModelArguments,
)
from hf_gradalign.experiment.views import build_views
from hf_gradalign.models import LABEL2ID, SpoofDetectorFeatureExtractor, load_audio_classifier, load_detector
from hf_gradalign.training import check_view_weights

logger = logging.get_logger(__name__)


@dataclass
class Preparation:
    """What a run trains and evaluates with.

    Attributes:
        corpus: The checked splits: `train`, `validation` and, where there is one, `test`.
        train_dataset: The training split's views.
        eval_datasets: The other splits' clips, by split.
        model: The model.
        feature_extractor: Makes the model's inputs from waveforms.
    """

    corpus: DatasetDict
    train_dataset: ViewDataset
    eval_datasets: dict[str, ClipDataset]
    model: PreTrainedModel
    feature_extractor: FeatureExtractionMixin


def settle_defaults(model: ModelArguments, data: DataArguments, training: AudioSpoofTrainingArguments) -> None:
    """Fill in the defaults that depend on whether a model was named."""
    from_scratch = model.model_name_or_path is None
    if training.learning_rate is None:
        training.learning_rate = 1e-3 if from_scratch else 1e-5
    if data.window_seconds is None:
        data.window_seconds = 2.0 if from_scratch else PAPER_WINDOW_SECONDS
    if data.eval_window_seconds is None:
        data.eval_window_seconds = data.window_seconds
    if from_scratch:
        data.rms_level = data.rms_level or 0.1
        model.model_license = model.model_license or "apache-2.0"


def prepare(model_args: ModelArguments, data_args: DataArguments, args: AudioSpoofTrainingArguments) -> Preparation:
    """Load and check the views, the data and the model.

    Raises:
        ValueError: On wrong labels, columns, splits, bad audio, an unknown augmentation, a weight for a view that is
            not there, or an alignment method that cannot weigh so many views.
        OSError: If a data set or a model is not found.
    """
    logging.set_verbosity(args.get_process_log_level())
    set_seed(args.seed)
    settle_defaults(model_args, data_args, args)
    views = build_views(data_args.view_recipes)
    check_view_weights(list(views), args.view_weights)
    if len(views) == 1 and args.align_gradients != "none":
        logger.warning(
            f"There is one view, {next(iter(views))}: --align_gradients {args.align_gradients} does nothing."
        )
    if len(views) > 1:
        args.make_method()(torch.eye(len(views)))  # a method that cannot weigh so many says so
    model, feature_extractor = _load_model(model_args, data_args, args)
    with args.main_process_first(desc="loading and checking the audio"):
        corpus = _load_splits(data_args, args, feature_extractor.sampling_rate)
    common: dict[str, Any] = {
        "sampling_rate": feature_extractor.sampling_rate,
        "rms_level": data_args.rms_level,
        "label2id": LABEL2ID,
    }
    train_dataset = ViewDataset(
        corpus["train"],
        views,
        window_seconds=data_args.window_seconds,
        crop=data_args.crop,
        seed=args.seed if args.data_seed is None else args.data_seed,
        augment=data_args.augmentation_scope,
        **common,
    )
    eval_datasets = {
        split: ClipDataset(clips, window_seconds=data_args.eval_window_seconds, **common)
        for split, clips in corpus.items()
        if split != "train"
    }
    return Preparation(corpus, train_dataset, eval_datasets, model, feature_extractor)


def _load_model(
    model_args: ModelArguments, data_args: DataArguments, args: AudioSpoofTrainingArguments
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    weights = model_args.class_weights
    common: dict[str, Any] = {
        "class_weights": None if weights is None else dict(zip(("spoof", "bonafide"), weights, strict=True)),
        "attention_implementation": model_args.attention_implementation,
        "revision": model_args.model_revision,
        "token": args.hub_token,
        "trust_remote_code": model_args.trust_remote_code,
    }
    if model_args.head is None:
        model, feature_extractor = load_audio_classifier(model_args.model_name_or_path, **common)
    else:
        model, feature_extractor = load_detector(
            model_args.model_name_or_path,
            head=model_args.head,
            head_options=model_args.head_options,
            n_samples=round(data_args.eval_window_seconds * 16_000),
            # Where clips are brought to a level here, the model must not depend on the level of those it hears later.
            do_normalize=data_args.rms_level is not None,
            **common,
        )
    if isinstance(feature_extractor, SpoofDetectorFeatureExtractor):
        # What is saved with the model scores clips as they are evaluated here.
        n_samples = round(data_args.eval_window_seconds * feature_extractor.sampling_rate)
        feature_extractor.n_samples = model.config.n_samples = n_samples
    for part in ("feature_encoder", "backbone"):
        if getattr(model_args, f"freeze_{part}"):
            freeze = getattr(model, f"freeze_{part}", None)
            if freeze is None:
                raise ValueError(f"--freeze_{part}: {type(model).__name__} has no {part.replace('_', ' ')} to freeze")
            freeze()
    return model, feature_extractor


def _load_splits(data_args: DataArguments, args: AudioSpoofTrainingArguments, sampling_rate: int) -> DatasetDict:
    corpus = load_corpus(
        data_args.dataset_name,
        config_name=data_args.dataset_config_name,
        revision=data_args.dataset_revision,
        token=args.hub_token,
        train_split=data_args.train_split_name,
        validation_split=data_args.eval_split_name,
        test_split=data_args.test_split_name,
        audio_column=data_args.audio_column_name,
        label_column=data_args.label_column_name,
        label_map=parse_label_map(data_args.label_map) if data_args.label_map else None,
        validation_fraction=data_args.validation_fraction,
    )
    for split in corpus:
        limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
        if limit is not None and limit < len(corpus[split]):
            corpus[split] = _stratified_subset(corpus[split], limit)
        corpus[split] = check_audio(
            corpus[split],
            sampling_rate=sampling_rate,
            num_proc=data_args.preprocessing_num_workers,
            on_bad_audio=data_args.on_bad_audio,
        )
        # An equal error rate needs both; better known now than after the training.
        require_both_classes(corpus[split]["label"][:], split)
    return corpus


def _stratified_subset(split: Dataset, size: int) -> Dataset:
    # Corpora are often sorted by label: their first clips would all be of one class.
    labels = np.asarray(split["label"][:])
    order = np.random.default_rng(0).permutation(len(labels))
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(members)) / len(members) for members in classes])
    return split.select(sorted(np.concatenate(classes)[np.argsort(ranks, kind="stable")][:size].tolist()))
