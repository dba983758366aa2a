"""Augmentations by name, as chains of names, or from a file."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from audiomentations import BandPassFilter, Compose, Gain, TimeMask

from hf_gradalign.augmentation.codecs import Codec
from hf_gradalign.augmentation.masks import FrequencyMask, PacketLoss
from hf_gradalign.augmentation.noise import MusanRir
from hf_gradalign.augmentation.rawboost import ALGORITHMS, RawBoost
from hf_gradalign.augmentation.recipe_files import Augmentation, read_recipe

# The voice band of the telephone network, in Hz (ITU-T G.712).
TELEPHONE_BAND = (300.0, 3400.0)


def telephone() -> Compose:
    """A telephone call: level, band-pass, codec at 8 kHz, lost packets.

    - Lowers the level by 0 to 12 dB (this project's choice), because the losses of G.711 depend on it.
    - Band-pass from 300 to 3400 Hz (ITU-T G.712), 24 dB per octave.
    - GSM 06.10 full rate, or G.711 with mu-law or A-law, all equally likely.
    - Half of the calls use packets of 20 ms (RFC 3551). Each packet is lost with a probability drawn per call, 0 to 5 %
      (this project's choice: speech with higher losses is hard to understand).
    """
    low, high = TELEPHONE_BAND
    center, width = (low + high) / 2, high - low
    band = BandPassFilter(center, center, width / center, width / center, min_rolloff=24, max_rolloff=24, p=1.0)
    return Compose([Gain(-12.0, 0.0, p=1.0), band, Codec(("gsm", "mu_law", "a_law")), PacketLoss(5.0, p=0.5)])


def time_frequency_mask() -> Compose:
    """Two time masks and two frequency masks on the waveform, after SpecAugment (Park et al., Interspeech 2019).

    Two masks of each kind, as in its policies for LibriSpeech. Time masks cover up to a tenth of the clip, with 5 ms
    fades, and frequency masks up to 1.5 kHz (this project's choices).
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
# The names that accept arguments, for messages.
_ARGUMENT_FORMS = {"codec": "codec:NAME:NAME...", "musan_rir": "musan_rir:FOLDER:FOLDER..."}


def available_augmentations() -> list[str]:
    """Return the names that `get_augmentation` accepts."""
    return list(_RECIPES)


def recipe_name(recipe: str) -> str | None:
    """A recipe without the arguments after colons; None if it is not made of known names, such as a file's path.

    `musan_rir:/data/musan+rawboost5` becomes `musan_rir+rawboost5`.
    """
    names = [part.partition(":")[0] for part in recipe.split("+")]
    return "+".join(names) if all(name in _RECIPES for name in names) else None


def get_augmentation(name_or_path: str | os.PathLike[str]) -> Augmentation:
    """Build an augmentation from its name or from a file.

    Args:
        name_or_path: One of these, or several joined by `+`, which are applied in order (`musan_rir+rawboost`):

            - "rawboost" (algorithm 4), "rawboost1" to "rawboost8";
            - "codec" for a random codec of libsndfile, "codec:opus:g722" for a random one of these (see `Codec`);
            - "musan_rir" for simulated noise and rooms, "musan_rir:/data/musan:/data/RIRS_NOISES" for recordings from
              folders or from data sets on the Hub, as owner/name (see `MusanRir`);
            - "telephone" and "time_frequency_mask" (see the functions);
            - the path of a YAML or JSON file with a list of transforms, which are applied in order:

                - {transform: AddGaussianNoise, min_amplitude: 0.001, max_amplitude: 0.015, p: 0.5}
                - {transform: OneOf, transforms: [{recipe: codec}, {transform: PitchShift, p: 1.0}]}

              A transform is one of audiomentations' (except Lambda) or of this package (`RawBoost`, `Codec`,
              `MusanRir`, `AddBabble`, `Reverberation`, `FrequencyMask`, `PacketLoss`). The other keys are its
              arguments. An entry `{recipe: NAME}` stands for the result of this function for NAME.

    Returns:
        A transform, or an `audiomentations.Compose` of several.

    Raises:
        ValueError: If it is neither a known name nor a file, the file is not a list of transforms, or a transform or
            one of its arguments is unknown or invalid.
    """
    return _build(str(name_or_path), ())


def _build(text: str, parents: tuple[Path, ...]) -> Augmentation:
    """See `get_augmentation`. `parents` are the files that contain this recipe."""
    if Path(text).is_file() and recipe_name(text) is None:
        path = Path(text).resolve()
        if path in parents:
            raise ValueError(f"{text} contains itself as an entry")
        return read_recipe(Path(text), lambda name: _build(name, (*parents, path)))
    parts = text.split("+")
    if len(parts) > 1:
        return Compose([_build(part, parents) for part in parts])
    name, *arguments = text.split(":")
    if name not in _RECIPES:
        raise ValueError(
            f"unknown augmentation {text!r}: give one of {', '.join(available_augmentations())}, "
            "or the path of an existing YAML or JSON file that lists audiomentations transforms"
        )
    if arguments and name not in _ARGUMENT_FORMS:
        forms = " and ".join(_ARGUMENT_FORMS.values())
        raise ValueError(f"{text}: {name} takes nothing after a colon; only {forms} do")
    if "" in arguments:
        raise ValueError(f"{text}: a colon has nothing after it; use {_ARGUMENT_FORMS[name]}")
    return _RECIPES[name](*arguments)
