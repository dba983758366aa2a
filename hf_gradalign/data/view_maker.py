"""Makes model items from a row of a corpus: decodes the clip, cuts the window, and augments it for each view."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import numpy as np
import torch
from audiomentations import Compose

from hf_gradalign.augmentation.rawboost import RawBoost
from hf_gradalign.augmentation.rawboost.transform import draw_deferred, find_final_rawboost
from hf_gradalign.data.decoding import Window, crop, decode_audio, repeat_pad, scale_to_rms
from hf_gradalign.data.labels import LABEL_NAMES, canonical_label
from hf_gradalign.training.view_batch import ViewsWithIds
from hf_gradalign.utils.messages import check_choice

ModelItem = dict[str, Any]
"""`{"input_values": float32 (time,), "labels": int}`."""

DEFERRED = "deferred"
"""The key of a view's unfinished augmentation in its `ModelItem` (see `ViewDataset`, argument `defer`)."""

Transform = Callable[..., np.ndarray]
CropMode = Literal["random", "leading"]
AugmentStage = Literal["utterance", "window"]


class ClipReader:
    """Reads clips as a model needs them: with its sampling rate, level, window and label ids.

    Args:
        sampling_rate: The model's sampling rate in Hz.
        window_seconds: Length of every clip for the model in seconds.
        window_samples: The same in samples. Give one of the two, or neither for whole clips.
        rms_level: Scale every clip to this root mean square, in (0, 1]. If only the window is decoded, the window's
            level is used. None keeps the level.
        label2id: The model's id for each class, with keys in any spelling of spoof and bonafide. Defaults to 0 and 1.

    Attributes:
        window_samples: Length of every clip for the model in samples; None for whole clips.

    Raises:
        ValueError: If both lengths are given, the length is less than a sample, the level is out of range, or
            `label2id` does not give each class its own id.
    """

    def __init__(
        self,
        *,
        sampling_rate: int,
        window_seconds: float | None = None,
        window_samples: int | None = None,
        rms_level: float | None = None,
        label2id: Mapping[str, int] | None = None,
    ) -> None:
        if rms_level is not None and not 0 < rms_level <= 1:
            raise ValueError(f"rms_level must be above 0 and at most 1, not {rms_level}.")
        self.sampling_rate = sampling_rate
        self.window_samples = _window_samples(sampling_rate, window_seconds, window_samples)
        self._rms_level = rms_level
        self._label_ids = _label_ids(label2id)

    @property
    def label2id(self) -> dict[str, int]:
        """The labels of spoof and bonafide in the items."""
        return dict(zip(LABEL_NAMES, self._label_ids, strict=True))

    def read(self, row: Mapping[str, Any], position: float | None) -> np.ndarray:
        """Decode a clip, or only its window.

        Args:
            row: With `audio` and `utterance_id`.
            position: Position of the window, in [0, 1); None for the whole clip.

        Returns:
            A read-only float32 array of shape (time,). Without a window, always the whole clip.

        Raises:
            AudioDecodingError: If the clip cannot be decoded.
        """
        window = None
        if position is not None and self.window_samples is not None:
            window = Window(self.window_samples, position)
        samples = decode_audio(row["audio"], self.sampling_rate, window=window, name=row["utterance_id"])
        if self._rms_level is not None:
            samples = scale_to_rms(samples, self._rms_level)
        samples.setflags(write=False)
        return samples

    def fit(self, samples: np.ndarray, position: float) -> np.ndarray:
        """Crop or repeat samples to the window's length, if there is one."""
        if self.window_samples is None:
            return samples
        return repeat_pad(crop(samples, Window(self.window_samples, position)), self.window_samples)

    def item(self, samples: np.ndarray, row: Mapping[str, Any]) -> ModelItem:
        """Return the item of these samples, with the row's label."""
        # A copy, because views must not share memory, and a window must not keep the whole clip alive.
        return {"input_values": samples.copy(), "labels": self._label_ids[row["label"]]}


class ViewMaker:
    """Makes the views of a clip, for `ViewDataset` and `StreamedViewDataset`, whose docstrings explain the arguments.

    Args:
        views: A transform for each view's name, None for the unchanged clip.
        clips: Reads the clips.
        crop: Which part of a longer clip to take.
        seed: Seed of all draws, at least 0.
        augment: Whether transforms see the whole clip or the window.
        defer: Whether to leave RawBoost to `DeferredAugmentation`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        views: Mapping[str, Transform | None],
        clips: ClipReader,
        *,
        crop: CropMode = "random",
        seed: int = 0,
        augment: AugmentStage = "utterance",
        defer: bool = False,
    ) -> None:
        if not views:
            raise ValueError("views must name at least one view.")
        check_choice("crop", crop, CropMode)
        check_choice("augment", augment, AugmentStage)
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}.")
        self._views = dict(views)
        self._clips = clips
        self._crop: CropMode = crop
        self._seed = seed
        self._deferred = self._find_deferred() if defer else {}
        self._decodes_whole = augment == "utterance" and any(transform is not None for transform in views.values())

    def make(
        self,
        row: Mapping[str, Any],
        key: Sequence[int],
        read: Callable[[float | None], np.ndarray] | None = None,
    ) -> dict[str, ModelItem]:
        """Make all views of a clip.

        Args:
            row: With `audio`, `label` and `utterance_id`.
            key: Integers that, together with the seed, determine the draws: the epoch, and the item's identity.
            read: Function that reads the clip, given a window's position. Defaults to `ClipReader.read`.

        Raises:
            AudioDecodingError: If the clip cannot be decoded.
            ValueError: If a transform returns anything but finite samples of shape (time,).
        """
        position = draw_position(self._crop, np.random.default_rng(self._item_seed(key)))
        where = None if self._decodes_whole else position
        samples = self._clips.read(row, where) if read is None else read(where)
        views = {view: self._view(view, samples, position, key, row) for view in self._views}
        return ViewsWithIds(views, [row["utterance_id"]])

    def _view(
        self, view: str, samples: np.ndarray, position: float, key: Sequence[int], row: Mapping[str, Any]
    ) -> ModelItem:
        transform = self._views[view]
        if transform is None:
            return self._clips.item(self._clips.fit(samples, position), row)
        rate, name = self._clips.sampling_rate, row["utterance_id"]
        samples = samples.copy()  # transforms may work in place, but must not change the other views
        with seeded_generators(self._item_seed(key, view)):
            if view not in self._deferred:
                samples = _check_samples(transform(samples, sample_rate=rate), view, name)
                return self._clips.item(self._clips.fit(samples, position), row)
            samples, parameters = draw_deferred(cast(RawBoost | Compose, transform), samples, rate)
        samples = _check_samples(samples, view, name)
        assert self._clips.window_samples is not None  # by _find_deferred
        start, _ = Window(self._clips.window_samples, position).bounds(len(samples))
        unfinished = {"parameters": parameters, "start": start, "settings": self._deferred[view]}
        return {**self._clips.item(samples, row), DEFERRED: unfinished}

    def _item_seed(self, key: Sequence[int], view: str | None = None) -> np.random.SeedSequence:
        spawn_key = () if view is None else (zlib.crc32(view.encode()),)
        return np.random.SeedSequence([self._seed, *key], spawn_key=spawn_key)

    def _find_deferred(self) -> dict[str, dict[str, Any]]:
        """Return the settings of `DeferredAugmentation` for each view that ends with RawBoost."""
        rawboosts = {
            view: rawboost for view, t in self._views.items() if (rawboost := find_final_rawboost(t)) is not None
        }
        if not rawboosts:
            raise ValueError(
                f"None of the views {', '.join(self._views)} ends with RawBoost, the only augmentation that can be "
                "done on the accelerator. Remove defer (--augment_on_device)."
            )
        if self._clips.window_samples is None:
            raise ValueError("Augmentation on the accelerator (defer) needs a window: pass window_seconds.")
        common = {"sampling_rate": self._clips.sampling_rate, "window_samples": self._clips.window_samples}
        return {
            view: {"algorithm": rawboost.algorithm, "impulsive_gain": rawboost.impulsive_gain, **common}
            for view, rawboost in rawboosts.items()
        }


def draw_position(mode: CropMode, rng: np.random.Generator) -> float:
    """Draw a window's position in [0, 1): uniform for `random`, 0 for `leading`.

    Raises:
        ValueError: If `mode` is neither.
    """
    check_choice("crop", mode, CropMode)
    return float(rng.random()) if mode == "random" else 0.0


@contextmanager
def seeded_generators(seed: np.random.SeedSequence) -> Generator[None]:
    """Seed the global generators of Python, NumPy and torch inside the block, and restore their states afterward.

    audiomentations and other libraries draw from these generators. Only torch's CPU generator is seeded:
    `torch.manual_seed` would initialize CUDA, which fails in forked loader workers.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.default_generator.get_state()
    for_python, for_numpy, for_torch = seed.spawn(3)
    try:
        random.seed(int.from_bytes(for_python.generate_state(4).tobytes(), "little"))
        np.random.seed(for_numpy.generate_state(4))
        torch.default_generator.manual_seed(int(for_torch.generate_state(1, np.uint64)[0] >> 1))
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.default_generator.set_state(torch_state)


def _check_samples(samples: Any, view: str, utterance_id: str) -> np.ndarray:
    samples = np.asarray(samples)
    if not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"The transform of view {view!r} returned samples of type {samples.dtype} for {utterance_id}; it must "
            "return floating-point samples in [-1, 1]."
        )
    with np.errstate(over="ignore"):  # overflow gives infinities, which are refused below
        samples = samples.astype(np.float32, copy=False)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(
            f"The transform of view {view!r} returned an array of shape {samples.shape} for {utterance_id}; "
            "it must return one of shape (time,)."
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"The transform of view {view!r} returned NaN or infinite samples for {utterance_id}.")
    return samples


def _window_samples(sampling_rate: int, seconds: float | None, samples: int | None) -> int | None:
    if seconds is not None and samples is not None:
        raise ValueError("Give window_seconds or window_samples, not both.")
    if seconds is not None:
        samples = round(seconds * sampling_rate)
    if samples is not None and samples < 1:
        raise ValueError(f"The window must be at least one sample long, not {samples}.")
    return samples


def _label_ids(label2id: Mapping[str, int] | None) -> tuple[int, ...]:
    """Return the model's id for each of `LABEL_NAMES`."""
    if label2id is None:
        return tuple(range(len(LABEL_NAMES)))
    ids = {canonical_label(name): int(number) for name, number in label2id.items()}
    if set(ids) != set(LABEL_NAMES) or len(label2id) != len(LABEL_NAMES) or len(set(ids.values())) != len(LABEL_NAMES):
        raise ValueError(f"label2id must give spoof and bonafide different numbers, not {dict(label2id)}.")
    return tuple(ids[name] for name in LABEL_NAMES)
