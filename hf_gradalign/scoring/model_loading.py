"""A trained classifier as it was saved, ready to score: nothing is trained, replaced or guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.data.labels import canonical_label
from hf_gradalign.models import load_feature_extractor


def load_trained_classifier(
    name_or_path: str, *, feature_extractor: FeatureExtractionMixin | None = None, **hub_options: Any
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load a classifier of audio and its feature extractor.

    Args:
        name_or_path: A Hub id or a folder with any model of `AutoModelForAudioClassification`.
        feature_extractor: In place of the model's own.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`.

    Returns:
        The model, in float32 and evaluation mode, and the feature extractor.

    Raises:
        OSError: If there is no such model.
        ValueError: If it is no classifier of audio, or some of its weights are missing, as of an encoder that has never
            been trained to classify.
    """
    try:
        model, loading = AutoModelForAudioClassification.from_pretrained(
            name_or_path, dtype=torch.float32, output_loading_info=True, **hub_options
        )
        extractor = feature_extractor or load_feature_extractor(name_or_path, hub_options)
    except OSError as error:
        here = "" if Path(name_or_path).exists() else f" (there is no folder {Path(name_or_path).absolute()})"
        raise OSError(f"cannot load the model {name_or_path}{here}: {error}") from error
    except ValueError as error:
        raise ValueError(f"cannot load the model {name_or_path}: {error}") from error
    absent = sorted(loading["missing_keys"]) + sorted(str(key) for key in loading.get("mismatched_keys", ()))
    if absent:
        raise ValueError(
            f"{name_or_path} lacks {len(absent)} weights of a {type(model).__name__} ({', '.join(absent[:3])}, ...): "
            "it is no trained classifier, and scores of random weights say nothing. Train it with "
            f"scripts/run_audio_spoof.py --model_name_or_path {name_or_path}"
        )
    return model.eval(), extractor


def label_columns(id2label: Mapping[int, str], bonafide_label: str | None = None) -> tuple[int, int | None]:
    """Which logit speaks for bona fide speech, and which against it.

    Args:
        id2label: A model's labels by number.
        bonafide_label: The bona fide label's name, where it is not one that is known.

    Returns:
        The numbers of bona fide and of spoof; None for spoof where the model has a single logit.

    Raises:
        ValueError: If that cannot be told from the names.
    """
    names = {int(number): str(name) for number, name in id2label.items()}
    shown = ", ".join(f"{number}: {name}" for number, name in sorted(names.items()))
    label_map = None if bonafide_label is None else {bonafide_label: "bonafide"}
    if bonafide_label is not None and bonafide_label not in names.values():
        raise ValueError(f"the model has no label {bonafide_label!r}; its labels are {shown}")
    if len(names) == 1:
        return next(iter(names)), None
    meanings = {number: canonical_label(name, label_map) for number, name in names.items()}
    bonafide = [number for number, meaning in meanings.items() if meaning == "bonafide"]
    others = [number for number in names if number not in bonafide]
    if len(bonafide) != 1 or len(others) != 1:
        raise ValueError(
            f"cannot tell which of the model's labels ({shown}) is bona fide speech and which is spoof: name the bona "
            "fide one of two with --bonafide_label (bonafide_label in Python)"
        )
    return bonafide[0], others[0]
