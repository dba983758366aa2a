"""A data set that shows each clip in several views, for training on all of them in one step."""

from __future__ import annotations

import operator
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from datasets import Dataset

from hf_gradalign.augmentation.deferral import deferrable, draw_deferred
from hf_gradalign.data.audio_dataset import AudioDataset, ModelItem
from hf_gradalign.data.bad_audio import BadAudioReport, OnBadAudio
from hf_gradalign.data.cropping import CropMode, Window, check_crop_mode, draw_position
from hf_gradalign.data.decoding import AudioDecodingError
from hf_gradalign.data.deferred_augmentation import DEFERRED
from hf_gradalign.data.seeding import seeded_generators
from hf_gradalign.training.view_batch import ViewsWithIds

# More than one file in a row that is bad by chance; a missing disk should end the training.
_MAX_BAD_IN_A_ROW = 100

Transform = Callable[..., np.ndarray]
AugmentStage = Literal["utterance", "window"]


class ViewDataset(AudioDataset):
    """Each clip in several views, for dual-path augmented training (arXiv 2509.20682, section on DPDA).

    An item is `{view: {"input_values": float32 (time,), "labels": int}}`. Item i of epoch e depends on (seed, e, i)
    alone: not on the order of access, the number of loader workers or how they are started. All views of an item show
    the same stretch of the clip, and a view's draws do not depend on which others there are.

    Args:
        dataset: as for `AudioDataset`.
        views: a transform for each view's name, None for the clip as it is. Called as
            `transform(samples, sample_rate=...)` with float32 samples of shape (time,), which it may change in place;
            it gives an array of shape (time,), of another length if need be. Draws from the global generators of
            Python, NumPy and torch, as audiomentations makes them, are reproducible; a generator of its own is not.
        sampling_rate: the rate that the model wants, in Hz.
        window_seconds: the length of every clip for the model, in seconds.
        window_samples: the same in samples; give one of the two, or neither for whole clips.
        rms_level: bring every clip to this root mean square before the transforms; None leaves the level alone. What
            RawBoost does to a clip depends on its level.
        crop: which part of a clip that is longer, `random` (anew in each epoch) or `leading`.
        seed: at least 0.
        label2id: the model's number for each class; by default 0 for spoof and 1 for bonafide.
        augment: what transforms see. `utterance`: the whole clip before the crop, as in the published recipe;
            `window`: only the window, which costs less where clips are long.
        on_bad_audio: what to do about a clip that cannot be decoded, where `check_audio` has not been asked before:
            `stop` raises, `skip` takes the next one in its place and warns.
        defer: of views that end with RawBoost, only draw: their items hold the clip as RawBoost would hear it (with
            `augment` `utterance` the whole one) and what was drawn, under `deferred`, and `DeferredAugmentation` does
            the rest on the accelerator. Needs a window.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: Mapping[str, Transform | None],
        *,
        sampling_rate: int,
        window_seconds: float | None = None,
        window_samples: int | None = None,
        rms_level: float | None = None,
        crop: CropMode = "random",
        seed: int = 0,
        label2id: Mapping[str, int] | None = None,
        augment: AugmentStage = "utterance",
        on_bad_audio: OnBadAudio = "stop",
        defer: bool = False,
    ) -> None:
        super().__init__(
            dataset,
            sampling_rate=sampling_rate,
            window_seconds=window_seconds,
            window_samples=window_samples,
            rms_level=rms_level,
            label2id=label2id,
        )
        if not views:
            raise ValueError("views must name at least one view.")
        check_crop_mode(crop)
        if augment not in get_args(AugmentStage):
            raise ValueError(f"augment must be one of {', '.join(get_args(AugmentStage))}, not {augment!r}.")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, not {seed}.")
        self._views = dict(views)
        self._report = BadAudioReport(on_bad_audio)
        self._crop: CropMode = crop
        self._seed = seed
        self._deferred = self._find_deferred() if defer else {}
        self._decodes_whole = augment == "utterance" and any(transform is not None for transform in views.values())
        # In shared memory, so that workers that are already running see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def _find_deferred(self) -> dict[str, dict[str, Any]]:
        """Of each view that can be finished on the accelerator, what `DeferredAugmentation` must know."""
        rawboosts = {view: rawboost for view, t in self._views.items() if (rawboost := deferrable(t)) is not None}
        if not rawboosts:
            raise ValueError(
                f"No view ends with RawBoost, the only augmentation that can be done on the accelerator: "
                f"{', '.join(self._views)}. Leave out defer (--augment_on_device)."
            )
        if self.window_samples is None:
            raise ValueError("Augmentation on the accelerator (defer) needs a window; give window_seconds.")
        common = {"sampling_rate": self.sampling_rate, "window_samples": self.window_samples}
        return {
            view: {"algorithm": rawboost.algorithm, "impulsive_gain": rawboost.impulsive_gain, **common}
            for view, rawboost in rawboosts.items()
        }

    @property
    def epoch(self) -> int:
        """The epoch whose items are given."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, counted from 0, in running loader workers too. The Trainer's loader calls this by itself.

        Raises:
            ValueError: if `epoch` is negative.
        """
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0, not {epoch}.")
        self._epoch.fill_(int(epoch))

    def __getitem__(self, index: int) -> dict[str, ModelItem]:
        """All views of the clip at `index`.

        Raises:
            AudioDecodingError: if it cannot be decoded (nor any of those after it, with `on_bad_audio` `skip`).
            ValueError: if a transform gives anything but finite samples of shape (time,).
        """
        index = range(len(self))[operator.index(index)]  # -1 and the last index are the same item.
        tried = min(len(self), _MAX_BAD_IN_A_ROW)
        for ahead in range(tried):
            place = (index + ahead) % len(self)
            try:
                return self._views_of(place, self._row(place))
            except AudioDecodingError as error:
                self._report.bad(error)
        raise AudioDecodingError(f"nor can any of the {tried} clips from there on", f"clip {index}")

    def _views_of(self, index: Any, row: dict[str, Any]) -> dict[str, ModelItem]:
        position = draw_position(self._crop, np.random.default_rng(self._item_seed(index)))
        samples = self._decode(index, row, None if self._decodes_whole else position)
        views = {view: self._view_item(view, samples, position, index, row) for view in self._views}
        return ViewsWithIds(views, [row["utterance_id"]])

    def _view_item(self, view: str, samples: np.ndarray, position: float, index: int, row: dict[str, Any]) -> ModelItem:
        if view not in self._deferred:
            return self._item(self._view(view, samples, position, index, row), row)
        with seeded_generators(self._item_seed(index, view)):
            samples, parameters = draw_deferred(self._views[view], samples.copy(), self.sampling_rate)
        samples = _checked(samples, view, row["utterance_id"])
        start, _ = Window(self.window_samples, position).bounds(len(samples))
        left = {"parameters": parameters, "start": start, "settings": self._deferred[view]}
        return {**self._item(samples, row), DEFERRED: left}

    def _view(self, view: str, samples: np.ndarray, position: float, index: int, row: dict[str, Any]) -> np.ndarray:
        transform = self._views[view]
        if transform is not None:
            # A copy, lest a transform that works in place reach into the other views.
            with seeded_generators(self._item_seed(index, view)):
                samples = transform(samples.copy(), sample_rate=self.sampling_rate)
            samples = _checked(samples, view, row["utterance_id"])
        return self._fit(samples, position)

    def _item_seed(self, index: int, view: str | None = None) -> np.random.SeedSequence:
        key = () if view is None else (zlib.crc32(view.encode()),)
        return np.random.SeedSequence([self._seed, self.epoch, index], spawn_key=key)


def _checked(samples: Any, view: str, utterance_id: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # Overflow gives infinities, which are refused below.
        samples = np.asarray(samples, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(
            f"The transform of view {view!r} gave an array of shape {samples.shape} for {utterance_id}; "
            "it must give one of shape (time,)."
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"The transform of view {view!r} gave NaN or infinite samples for {utterance_id}.")
    return samples
