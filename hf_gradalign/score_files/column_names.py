"""What the columns of score and key files are called, as `plain_name` writes them."""

import itertools
import re
from collections.abc import Iterable, Mapping

from hf_gradalign.data import canonical_label

# fmt: off
IDS = (
    "utterance_id", "utt_id", "utterance", "utt", "filename", "file_name", "file", "trial_anon", "trial", "audio_id",
    "audio", "wav", "path", "id", "name", "file_path", "file_id", "audio_path", "audio_file", "audio_file_name",
    "wav_path", "wav_file", "utterance_name", "utt_name", "clip_id", "clip", "sample_id", "recording_id", "segment_id",
)
TRUE_LABELS = (
    "cm_label", "ground_truth", "true_label", "true_class", "y_true", "truth", "gt", "key", "cm_key", "asv_label",
    "sasv_label", "trial_type",
)
LABELS = (
    "cm_label", "label", "labels", "key", "cm_key", "class", "ground_truth", "target", "asv_label", "sasv_label",
    "trial_type", *TRUE_LABELS,
)
PREDICTIONS = (
    "prediction", "predictions", "predicted", "predicted_label", "predicted_class", "pred", "preds", "pred_label",
    "pred_class", "predicted_key", "label_pred", "y_pred", "decision", "verdict", "hypothesis", "output_label",
)
CONFIDENCES = ("confidence", "conf", "certainty", "max_probability", "max_prob", "max_score", "top_score")
TRIAL_LABELS = ("asv_label", "sasv_label", "trial_type", "label", "key")
SCORES = ("cm_score", "score", "scores", "cm_scores", "llr", "logit", "asv_score", "sasv_score")
TRIAL_SCORES = ("sasv_score", "asv_score", "score", "scores", "cm_score")
OTHERS = {
    "speaker": ("speaker", "speaker_id", "spk", "tar_spk_anon"),
    "system": ("system", "attack", "attack_id", "attack_anon", "attack_label", "system_id"),
    "subset": ("subset", "phase"),
    "codec": ("codec",),
    "language": ("language",),
    # As the evaluation package of ASVspoof 2021 calls the columns of its physical access.
    "distance_to_asv": ("distance_to_asv", "dis_to_asv"),
    "attacker_room": ("attacker_room", "att_room"),
    "attacker_mic": ("attacker_mic", "att_mic"),
    "replay_device": ("replay_device", "att_d"),
    "distance_to_talker": ("distance_to_talker", "att_to_spk"),
}
# fmt: on

# Words that may well be values too tell no header.
_AMBIGUOUS = frozenset({"target", "audio", "name", "trial", "id", "clip", "gt", "truth", "pred", "predicted", "conf"})
HEADER_WORDS = frozenset(
    {*IDS, *LABELS, *PREDICTIONS, *SCORES, *CONFIDENCES, *(name for names in OTHERS.values() for name in names)}
    - _AMBIGUOUS
)
"""No utterance, speaker, attack or codec goes by such a name, so a first line with one of them is a header."""


def plain_name(name: str) -> str:
    """A column's name without what does not matter in it: case, hyphens and spaces."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def is_one_of(name: str, wanted: Iterable[str]) -> bool:
    """Whether a column goes by one of these names; `UtteranceID` is `utterance_id`."""
    return plain_name(name).replace("_", "") in {other.replace("_", "") for other in wanted}


def class_of(name: str, label_map: Mapping[str, str] | None = None) -> str | None:
    """`spoof` or `bonafide` if a column's name says that it is of one class, as `p_spoof` and `fake score` do."""
    parts = {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
    if parts & {"anti", "non", "not", "no"} and canonical_label(name, label_map) is None:
        return None
    meanings = {canonical_label(part, label_map) for part in (name, *parts, *_pairs(name))} - {None}
    return meanings.pop() if len(meanings) == 1 else None


def _pairs(name: str) -> list[str]:
    # "bona_fide" is two words.
    words = re.split(r"[\W_]+", name.lower())
    return [first + second for first, second in itertools.pairwise(words)]


def common_name(name: str) -> str:
    """What the project calls a column that a file may call otherwise."""
    return next((common for common, spellings in OTHERS.items() if is_one_of(name, spellings)), plain_name(name))
