"""What the columns of score and key files are called, as `plain_name` writes them."""

import re

# fmt: off
IDS = (
    "utterance_id", "utt_id", "utterance", "utt", "filename", "file_name", "file", "trial_anon", "trial", "audio_id",
    "audio", "wav", "path", "id", "name",
)
LABELS = (
    "cm_label", "label", "labels", "key", "cm_key", "class", "ground_truth", "target", "asv_label", "sasv_label",
    "trial_type",
)
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
_AMBIGUOUS = frozenset({"target", "audio", "name", "trial", "id"})
HEADER_WORDS = frozenset({*IDS, *LABELS, *SCORES, *(name for names in OTHERS.values() for name in names)} - _AMBIGUOUS)
"""No utterance, speaker, attack or codec goes by such a name, so a first line with one of them is a header."""


def plain_name(name: str) -> str:
    """A column's name without what does not matter in it: case, hyphens and spaces."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def common_name(name: str) -> str:
    """What the project calls a column that a file may call otherwise."""
    plain = plain_name(name)
    return next((common for common, spellings in OTHERS.items() if plain in spellings), plain)
