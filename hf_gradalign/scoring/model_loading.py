"""A trained classifier as it was saved, ready to score: nothing is trained, replaced or guessed."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.models import load_classifier, load_feature_extractor, output_labels
from hf_gradalign.training.run_checkpoints import require_sound_model


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
        OSError: If there is no such model, or one of its files is broken, or a checkpoint's is not what was saved; the
            message says what it is.
        ValueError: If it is no classifier of audio, or some of its weights are missing, as of an encoder that has never
            been trained to classify.
    """
    require_sound_model(name_or_path)
    model, random = load_classifier(name_or_path, hub_options)
    extractor = feature_extractor or load_feature_extractor(name_or_path, hub_options)
    absent = sorted(random)
    if absent:
        raise ValueError(
            f"{name_or_path} lacks {len(absent)} weights of a {type(model).__name__} ({', '.join(absent[:3])}, ...): "
            "it is no trained classifier, and scores of random weights say nothing. Train it with "
            f"scripts/run_audio_spoof.py --model_name_or_path {name_or_path}"
        )
    return model.eval(), extractor


def label_columns(
    id2label: Mapping[int, str], bonafide_label: str | None = None, label2id: Mapping[str, int] | None = None
) -> tuple[int | None, int | None]:
    """Which logit speaks for bona fide speech, and which against it.

    Args:
        id2label: A model's labels by number.
        bonafide_label: As in `output_labels`.
        label2id: As in `output_labels`.

    Returns:
        The numbers of bona fide and of spoof; None for what a model with a single logit has none for.

    Raises:
        ValueError: If that cannot be told from the names.
    """
    order = output_labels(id2label, label2id, bonafide_label)
    bonafide, spoof = (order.index(name) if name in order else None for name in ("bonafide", "spoof"))
    return bonafide, spoof
