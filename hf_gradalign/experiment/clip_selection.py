"""How many of a split's clips a run takes, and which of them it can use."""

import numpy as np
from datasets import Dataset
from transformers.utils import logging

from hf_gradalign.data import check_audio
from hf_gradalign.experiment.arguments import CHECKED_BY_DEFAULT, DataArguments

logger = logging.get_logger(__name__)


def limited(clips: Dataset, size: int | None) -> Dataset:
    """At most so many clips, always the same, the classes in proportion; all for None."""
    if size is None or size >= len(clips):
        return clips
    # Corpora are often sorted by label: their first clips would all be of one class.
    labels = np.asarray(clips["label"][:])
    order = np.random.default_rng(0).permutation(len(labels))
    classes = [order[labels[order] == label] for label in np.unique(labels)]
    ranks = np.concatenate([np.arange(len(members)) / len(members) for members in classes])
    return clips.select(sorted(np.concatenate(classes)[np.argsort(ranks, kind="stable")][:size].tolist()))


def checked(clips: Dataset, data_args: DataArguments, sampling_rate: int, *, of_any_number: bool = False) -> Dataset:
    """The clips, decoded once if the arguments or their number say so, without those that are bad if these are skipped.

    Args:
        clips: Of one split.
        data_args: The run's arguments.
        sampling_rate: What clips will be resampled to, in Hz.
        of_any_number: Whether they are decoded by default however many they are.

    Raises:
        BadAudioError: If clips are bad and are not skipped.
    """
    is_checked = data_args.check_audio
    if is_checked is None:
        is_checked = of_any_number or len(clips) <= CHECKED_BY_DEFAULT
    if not is_checked:
        logger.info(f"{len(clips)} clips are not decoded beforehand; --check_audio does.")
        return clips
    return check_audio(
        clips,
        sampling_rate=sampling_rate,
        num_proc=data_args.preprocessing_num_workers,
        on_bad_audio=data_args.on_bad_audio,
    )
