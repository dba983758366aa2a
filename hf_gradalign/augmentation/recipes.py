"""Augmentations by name, one after the other, or from a file."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from audiomentations import BandPassFilter, Compose, Gain, TimeMask

from hf_gradalign.augmentation.codec import Codec
from hf_gradalign.augmentation.frequency_mask import FrequencyMask
from hf_gradalign.augmentation.musan_rir import MusanRir
from hf_gradalign.augmentation.packet_loss import PacketLoss
from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.augmentation.rawboost_algorithms import ALGORITHMS
from hf_gradalign.augmentation.recipe_files import Augmentation, read_recipe

# The voice band of the telephone network, in Hz (ITU-T G.712).
TELEPHONE_BAND = (300.0, 3400.0)


def telephone() -> Compose:
    """A telephone call: level, band, codec at 8 kHz, lost packets.

    - The level is 0 to 12 dB lower (this project's choice), on which what G.711 loses depends.
    - Band-pass of 300 to 3400 Hz (ITU-T G.712), 24 dB an octave.
    - GSM 06.10 full rate, or G.711 with mu-law or A-law, each equally likely.
    - Half of the calls go by packets of 20 ms (RFC 3551), of which each is lost with a probability of 0 to 5 %, drawn
      anew a call (this project's choice: what is more than that is hard to understand).
    """
    low, high = TELEPHONE_BAND
    center, width = (low + high) / 2, high - low
    band = BandPassFilter(center, center, width / center, width / center, min_rolloff=24, max_rolloff=24, p=1.0)
    return Compose([Gain(-12.0, 0.0, p=1.0), band, Codec(("gsm", "mu_law", "a_law")), PacketLoss(5.0, p=0.5)])


def time_frequency_mask() -> Compose:
    """Two stretches of time and two bands of frequency taken out, after SpecAugment (Park et al., Interspeech 2019).

    Two masks of each kind as in its policies for LibriSpeech, on the waveform: each of up to a tenth of the clip, faded
    within 5 ms, and of up to 1.5 kHz (this project's choices).
    """
    masks = [TimeMask(0.0, 0.1, fade_duration=0.005, p=1.0) for _ in range(2)]
    return Compose([*masks, *(FrequencyMask() for _ in range(2))])


def _musan_rir(*sounds: str) -> MusanRir:
    return MusanRir(sounds or None)


def _codec(*codecs: str) -> Codec:
    return Codec(codecs) if codecs else Codec()


_RECIPES: dict[str, Callable[..., Augmentation]] = {
    "rawboost": RawBoost,
    **{f"rawboost{algorithm}": partial(RawBoost, algorithm) for algorithm in ALGORITHMS},
    "codec": _codec,
    "musan_rir": _musan_rir,
    "telephone": telephone,
    "time_frequency_mask": time_frequency_mask,
}
# What may follow a name after colons, for messages.
_TAKES = {"codec": "codec:NAME:NAME...", "musan_rir": "musan_rir:FOLDER:FOLDER..."}


def available_augmentations() -> list[str]:
    """Return the names that `get_augmentation` knows."""
    return list(_RECIPES)


def recipe_name(recipe: str) -> str | None:
    """A recipe's names without what follows them after colons; None if it has others, as a file's path does.

    `musan_rir:/data/musan+rawboost5` is `musan_rir+rawboost5`.
    """
    names = [part.partition(":")[0] for part in recipe.split("+")]
    return "+".join(names) if all(name in _RECIPES for name in names) else None


def get_augmentation(name_or_path: str | os.PathLike[str]) -> Augmentation:
    """Build an augmentation from its name or from a file.

    Args:
        name_or_path: One of these, or several with `+` between them, which are applied one after the other
            (`musan_rir+rawboost`):

            - "rawboost" (algorithm 4), "rawboost1" to "rawboost8";
            - "codec", any of the codecs that libsndfile has; "codec:opus:g722", any of these (see `Codec`);
            - "musan_rir", all simulated; "musan_rir:/data/musan:/data/RIRS_NOISES", from folders or from data sets on
              the Hub, owner/name (see `MusanRir`);
            - "telephone" and "time_frequency_mask" (see there);
            - the path of a YAML or JSON file with a list of transforms, applied in this order:

                - {transform: AddGaussianNoise, min_amplitude: 0.001, max_amplitude: 0.015, p: 0.5}
                - {transform: OneOf, transforms: [{recipe: codec}, {transform: PitchShift, p: 1.0}]}

              Transforms are those of audiomentations, other than Lambda, and this package's (`RawBoost`, `Codec`,
              `MusanRir`, `AddBabble`, `Reverberation`, `FrequencyMask`, `PacketLoss`); the other keys are their
              arguments. An entry `{recipe: NAME}` is what this function gives for the name.

    Returns:
        A transform, or an `audiomentations.Compose` of several.

    Raises:
        ValueError: If it is neither a known name nor a file, if the file is not a list of transforms, or if a transform
            or one of its arguments is unknown or impossible.
    """
    return _build(str(name_or_path), ())


def _build(text: str, around: tuple[Path, ...]) -> Augmentation:
    """Build what `get_augmentation` is asked for; `around` are the files that have it as an entry."""
    if Path(text).is_file() and recipe_name(text) is None:
        path = Path(text).resolve()
        if path in around:
            raise ValueError(f"{text} is an entry of itself")
        return read_recipe(Path(text), lambda name: _build(name, (*around, path)))
    parts = text.split("+")
    if len(parts) > 1:
        return Compose([_build(part, around) for part in parts])
    name, *arguments = text.split(":")
    if name not in _RECIPES:
        raise ValueError(
            f"unknown augmentation {text!r}: give one of {', '.join(available_augmentations())}, "
            "or the path of an existing YAML or JSON file that lists audiomentations transforms"
        )
    if arguments and name not in _TAKES:
        takes = " and ".join(_TAKES.values())
        raise ValueError(f"{text}: {name} takes nothing after a colon; {takes} do")
    if "" in arguments:
        raise ValueError(f"{text}: nothing stands after a colon; the form is {_TAKES[name]}")
    return _RECIPES[name](*arguments)
