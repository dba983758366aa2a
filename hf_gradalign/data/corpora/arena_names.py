"""Names of the Speech Anti-Spoofing Arena's data sets."""

from __future__ import annotations

import re

ARENA_OWNER = "SpeechAntiSpoofingBenchmarks"
"""The Arena's organisation on the Hub."""

# As far as known here; a name that is not among them is taken as it is.
_NAMES = (
    "ADD2023_track12_test_r1",
    "ASVspoof2019_LA",
    "ASVspoof2021_DF",
    "ASVspoof2021_LA",
    "ASVspoof5",
    "ArAD",
    "CD-ADD",
    "CFAD",
    "DECRO",
    "DFADD",
    "DeepVoice",
    "EmoSpoofTTS",
    "HABLA",
    "InTheWild",
    "LRLspoof",
    "LibriSeVoc",
    "ODSS",
    "PyAra",
    "SONAR",
    "XMAD",
)


def arena_repository(name: str) -> str:
    """The Hub repository of a data set of the Arena.

    Args:
        name: its name; case, hyphens, underscores and spaces do not matter where it is known. With an owner
            (`owner/name`) it is taken as it is.
    """
    if "/" in name:
        return name
    known = {name_key(known): known for known in _NAMES}
    return f"{ARENA_OWNER}/{known.get(name_key(name), name)}"


def name_key(name: str) -> str:
    """A corpus' name without what does not matter in it: case, hyphens, underscores, dots and spaces."""
    return re.sub(r"[\s_.-]+", "", name).lower()
