"""The two classes, and every spelling of them that is known: for corpora, score files and models alike."""

import re
from collections.abc import Mapping

from hf_gradalign.utils.plain_text import stripped_text

LABEL_NAMES: tuple[str, str] = ("spoof", "bonafide")
"""The project's two classes, in the order of their numbers. `models/configuration_spoof_detector.py` repeats them,
because that file goes to the Hub by itself."""

Label = str | bytes | int | float | bool

_BONAFIDE = ("bonafide", "genuine", "real", "human", "authentic", "original", "natural", "live", "legitimate")
_SPOOF = (
    "spoof",
    "spoofed",
    "spoofing",
    "fake",
    "faked",
    "deepfake",
    "deepfaked",
    "synthetic",
    "synthesized",
    "synthesised",
    "synthetized",
    "generated",
    "machinegenerated",
    "computergenerated",
    "ai",
    "aigenerated",
    "artificial",
    "cloned",
    "forged",
    "manipulated",
)
_ALIASES = dict.fromkeys(_BONAFIDE, "bonafide") | dict.fromkeys(_SPOOF, "spoof")
# "real speech" says no more than "real", and "spoof class" no more than "spoof".
_NOUNS = "(?:speech|audio|voice|sound|recording|utterance|clip|sample|speaker|class)s?"
_NOUN = re.compile(f"^{_NOUNS}|{_NOUNS}$")


def canonical_label(name: Label, label_map: Mapping[str, str] | None = None) -> str | None:
    """`spoof` or `bonafide` for a label's name in any of its usual spellings; None for any other.

    Case, spaces, hyphens and underscores do not matter, nor does a word such as "speech" or "audio" before or after.
    `label_map` is asked first.
    """
    mapped = {normalize_label(source): target for source, target in (label_map or {}).items()}
    key = normalize_label(name)
    key = normalize_label(mapped.get(key, key))
    return _ALIASES.get(key) or _ALIASES.get(_NOUN.sub("", key))


def normalize_label(name: Label) -> str:
    """A label's name without what does not matter in it; two labels are the same if this is."""
    if isinstance(name, float) and name.is_integer():
        name = int(name)  # A column with gaps turns 1 into 1.0 on its way through pandas.
    text = re.sub(r"^([+-]?\d+)\.0+$", r"\1", stripped_text(name).lower())
    # Between letters only: a minus sign is no hyphen.
    return re.sub(r"(?<=[^\W\d])[-_\s]+(?=[^\W\d])", "", text)
