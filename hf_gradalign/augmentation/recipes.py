"""Augmentations by name, as chains of names, or from a YAML or JSON file that lists audiomentations transforms."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import audiomentations
import numpy as np
from audiomentations import BandPassFilter, Compose, Gain, TimeMask
from audiomentations.core.composition import BaseCompose
from audiomentations.core.transforms_interface import BaseWaveformTransform
from numpy.typing import NDArray

from hf_gradalign.augmentation.codecs import Codec
from hf_gradalign.augmentation.masks import FrequencyMask, PacketLoss
from hf_gradalign.augmentation.noise import AddBabble, MusanRir, Reverberation
from hf_gradalign.augmentation.noise.recordings import list_for_audiomentations
from hf_gradalign.augmentation.rawboost import ALGORITHMS, RawBoost
from hf_gradalign.utils.plain_text import split_at_colons
from hf_gradalign.utils.settings_files import read_settings

# `augmentation(samples, sample_rate) -> samples`: any audiomentations transform or composition.
Augmentation = Callable[[NDArray[np.float32], int], NDArray[np.float32]]

OWN_TRANSFORMS = (AddBabble, Codec, FrequencyMask, MusanRir, PacketLoss, RawBoost, Reverberation)

_TRANSFORMS: dict[str, type] = {
    name: item
    for name, item in vars(audiomentations).items()
    if inspect.isclass(item) and issubclass(item, (BaseWaveformTransform, BaseCompose))
} | {transform.__name__: transform for transform in OWN_TRANSFORMS}
# audiomentations' arguments for recordings. This package's transforms list recordings themselves.
_RECORDINGS = ("sounds_path", "ir_path")
_OTHER_LENGTH = "changes the length of clips, so this view would show another part of each clip than the other views"
_REFUSED = {
    "Lambda": "takes a function, which a file cannot contain",
    "Resample": "changes the sampling rate, so the model would get speech at another speed",
    **dict.fromkeys(("AdjustDuration", "RepeatPart", "Trim"), _OTHER_LENGTH),
}
for _name in _REFUSED:
    _TRANSFORMS.pop(_name)


def read_recipe(path: Path, by_name: Callable[[str], Augmentation]) -> audiomentations.Compose:
    """Build the transforms listed in a file.

    Args:
        path: The file: JSON if it ends in `.json`, otherwise YAML.
        by_name: Function that builds an entry `{recipe: NAME}`.

    Returns:
        The transforms, applied in order.

    Raises:
        ValueError: If the file is not a list of transforms, or a transform or one of its arguments is unknown or
            invalid.
    """
    entries = read_settings(path)
    if not (isinstance(entries, list) and entries):
        raise ValueError(f"{path}: expected a list with at least one {{transform: NAME, ...}}; got {entries!r:.100}")
    return audiomentations.Compose(
        [_build_entry(entry, f"{path}: entry {i}", by_name) for i, entry in enumerate(entries, 1)]
    )


def _build_entry(entry: Any, where: str, by_name: Callable[[str], Augmentation]) -> Augmentation:
    """Build the transform of one entry; `where` names the entry in messages."""
    if isinstance(entry, dict) and set(entry) == {"recipe"}:
        try:
            return by_name(str(entry["recipe"]))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    if not (isinstance(entry, dict) and "transform" in entry):
        raise ValueError(
            f"{where}: expected a mapping with the key 'transform', or {{recipe: NAME}} alone; got {entry!r:.100}"
        )
    name = entry["transform"]
    if isinstance(name, str) and name in _REFUSED:
        raise ValueError(f"{where}: {name} {_REFUSED[name]}: remove it")
    if not isinstance(name, str) or name not in _TRANSFORMS:
        raise ValueError(f"{where}: unknown transform {name!r}; available: {', '.join(sorted(_TRANSFORMS))}")
    where = f"{where} ({name})"
    transform = _TRANSFORMS[name]
    accepted = inspect.signature(transform).parameters
    unknown = [key for key in entry if key != "transform" and key not in accepted]
    if unknown:
        raise ValueError(f"{where}: unknown argument {unknown[0]!r}; it takes {', '.join(accepted)}")
    arguments = {key: _build_argument(value, where, by_name) for key, value in entry.items() if key != "transform"}
    if arguments.get("leave_length_unchanged", True) is not True:
        raise ValueError(
            f"{where}: leave_length_unchanged must be true, because the transform otherwise {_OTHER_LENGTH}"
        )
    try:
        if transform not in OWN_TRANSFORMS:
            arguments |= {key: list_for_audiomentations(arguments[key]) for key in _RECORDINGS if arguments.get(key)}
        return transform(**arguments)
    except Exception as error:  # third-party constructors may raise anything, even AssertionError
        raise ValueError(f"{where}: {str(error) or f'{type(error).__name__} for {arguments}'}") from error


def _build_argument(value: Any, where: str, by_name: Callable[[str], Augmentation]) -> Any:
    """Build transforms nested in an argument, as in OneOf. Other values stay unchanged."""
    if isinstance(value, dict) and ("transform" in value or "recipe" in value):
        return _build_entry(value, where, by_name)
    if isinstance(value, list):
        return [_build_argument(item, where, by_name) for item in value]
    return value


# The voice band of the telephone network, in Hz (ITU-T G.712).
TELEPHONE_BAND = (300.0, 3400.0)


def telephone() -> Compose:
    """Return the recipe of a telephone call: level, band-pass, codec at 8 kHz, lost packets.

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
    """Return two time masks and two frequency masks on the waveform, after SpecAugment (Park et al., Interspeech 2019).

    There are two masks of each kind, as in SpecAugment's policies for LibriSpeech. Time masks cover up to a tenth of
    the clip, with 5 ms fades, and frequency masks up to 1.5 kHz (this project's choices).
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
# How names take arguments, for messages.
_ARGUMENT_FORMS = {"codec": "codec:NAME:NAME...", "musan_rir": "musan_rir:FOLDER:FOLDER..."}


def available_augmentations() -> list[str]:
    """Return the names that `get_augmentation` accepts."""
    return list(_RECIPES)


def recipe_name(recipe: str) -> str | None:
    """Return a recipe without the arguments after colons; None if it has other parts than known names, as a path does.

    `musan_rir:/data/musan+rawboost5` becomes `musan_rir+rawboost5`.
    """
    names = [part.partition(":")[0] for part in recipe.split("+")]
    return "+".join(names) if all(name in _RECIPES for name in names) else None


def get_augmentation(name_or_path: str | os.PathLike[str]) -> Augmentation:
    """Build an augmentation from its name or from a file.

    Args:
        name_or_path: One of these, or several joined by `+`, which are applied in order (`musan_rir+rawboost`):

            - "rawboost" (algorithm 4), "rawboost1" to "rawboost8";
            - "codec" for a random codec of libsndfile, "codec:opus:g722" for one of the named codecs (see `Codec`);
            - "musan_rir" for simulated noise and rooms, "musan_rir:/data/musan:/data/RIRS_NOISES" for recordings from
              folders or from data sets on the Hub, as owner/name (see `MusanRir`);
            - "telephone" and "time_frequency_mask" (see the functions);
            - the path of a YAML or JSON file with a list of transforms, which are applied in order:

                - {transform: AddGaussianNoise, min_amplitude: 0.001, max_amplitude: 0.015, p: 0.5}
                - {transform: OneOf, transforms: [{recipe: codec}, {transform: PitchShift, p: 1.0}]}

              A transform is from audiomentations (except Lambda, and transforms that change the sampling rate or the
              length of a clip) or from this package (`RawBoost`, `Codec`, `MusanRir`, `AddBabble`, `Reverberation`,
              `FrequencyMask`, `PacketLoss`). The other keys are its arguments. An entry `{recipe: NAME}` stands for the
              result of this function for NAME.

    Returns:
        A transform, or an `audiomentations.Compose` of several.

    Raises:
        ValueError: If it is neither a known name nor a file, the file is not a list of transforms, or a transform or
            one of its arguments is unknown or invalid.
    """
    return _build_recipe(str(name_or_path), ())


def _build_recipe(text: str, parents: tuple[Path, ...]) -> Augmentation:
    """Build a recipe (see `get_augmentation`). `parents` are the files that contain it."""
    if Path(text).is_file() and recipe_name(text) is None:
        path = Path(text).resolve()
        if path in parents:
            raise ValueError(f"{text} contains itself as an entry")
        return read_recipe(Path(text), lambda name: _build_recipe(name, (*parents, path)))
    parts = text.split("+")
    if len(parts) > 1:
        return Compose([_build_recipe(part, parents) for part in parts])
    name, *arguments = split_at_colons(text)
    if name not in _RECIPES:
        raise ValueError(
            f"unknown augmentation {text!r}: give one of {', '.join(available_augmentations())}, "
            "or the path of an existing YAML or JSON file that lists audiomentations transforms"
        )
    if arguments and name not in _ARGUMENT_FORMS:
        forms = " and ".join(_ARGUMENT_FORMS.values())
        raise ValueError(f"{text}: {name} takes nothing after a colon; only {forms} do")
    if "" in arguments:
        raise ValueError(f"{text}: there is nothing after a colon; use {_ARGUMENT_FORMS[name]}")
    return _RECIPES[name](*arguments)
