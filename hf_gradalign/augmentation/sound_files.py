"""Read recordings that are mixed into clips, by audiomentations' own loader (libsndfile; no FFmpeg)."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import librosa
import numpy as np
import soundfile
from audiomentations.core.audio_loading_utils import load_sound_file
from audiomentations.core.utils import SUPPORTED_EXTENSIONS, find_audio_files_in_paths
from numpy.typing import NDArray

from hf_gradalign.audio import unheard_by_libsndfile
from hf_gradalign.folder_listing import list_folder

logger = logging.getLogger(__name__)

_SHOWN = 20
_told: set[tuple[str, int]] = set()


Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def list_recordings(paths: Paths, argument: str) -> list[str]:
    """The recordings that are meant by files and folders: of folders all audio files below, sorted.

    Args:
        paths: One or several.
        argument: What they are called, for messages.

    Raises:
        ValueError: If there is no such file or folder.
    """
    recordings: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        if os.path.isdir(path):
            recordings += sorted(map(str, recordings_below(os.path.abspath(path))))
        elif os.path.isfile(path):
            recordings.append(str(path))
        else:
            raise ValueError(f"{argument}: there is no file or folder {path}")
    return recordings


def recordings_below(folder: str | os.PathLike[str]) -> list[Path]:
    """The recordings in a folder and below that audiomentations takes. What else there is is logged, once."""
    listing = list_folder(folder)
    listing.tell()
    taken = [file for file in listing.audio if file.name.lower().endswith(SUPPORTED_EXTENSIONS)]
    others = sorted(set(listing.audio) - set(taken))
    if others and (os.fspath(folder), len(others)) not in _told:
        _told.add((os.fspath(folder), len(others)))
        shown = ", ".join(map(str, others[:_SHOWN])) + (f" and {len(others) - _SHOWN} more" * (len(others) > _SHOWN))
        logger.warning(
            "%s: %d of %d recordings are left out, since audiomentations does not take their formats: %s. Convert "
            "them to WAV or FLAC.",
            folder,
            len(others),
            len(listing.audio),
            shown,
        )
    return taken


def list_for_audiomentations(paths: Paths) -> list[str]:
    """As `list_recordings`, in the order of audiomentations' own listing where that has the same files.

    Draws depend on the order, and its own is that of the disk. Files need not be there.
    """
    recordings: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        ours = list_recordings(path, "") if os.path.isdir(path) else [str(path)]
        theirs = [str(file) for file in find_audio_files_in_paths(path)] if os.path.isdir(path) else ours
        recordings += theirs if sorted(theirs) == sorted(ours) else ours
    return recordings


def find_unreadable(paths: Sequence[str]) -> dict[str, str]:
    """The recordings that cannot be read, and why; each is opened, and its first and last sample are read.

    The last one, because a recording that ends before its header says would end a run at a random update, or never let
    audiomentations' loop over a noise that it repeats come to an end.
    """
    with ThreadPoolExecutor() as pool:
        problems = pool.map(_problem, paths)
    return {path: problem for path, problem in zip(paths, problems, strict=True) if problem is not None}


def describe_unreadable(unreadable: Mapping[str, str], count: int) -> str:
    """What `find_unreadable` found among `count` recordings, as a message."""
    listed = [f"  {path}: {problem}" for path, problem in unreadable.items()]
    more = [f"  and {len(listed) - _SHOWN} more"] if len(listed) > _SHOWN else []
    return "\n".join(
        [
            f"{len(unreadable)} of {count} recordings cannot be read:",
            *listed[:_SHOWN],
            *more,
            "Convert them to WAV or FLAC (ffmpeg -i recording.m4a recording.wav), or move them out of the folder.",
        ]
    )


def _problem(path: str) -> str | None:
    if not os.path.isfile(path):
        return "there is no such file"
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        return _problem_without_libsndfile(path, error.error_string)
    with file:
        try:
            if not len(file.read(1)):
                return "it holds no samples"
            file.seek(file.frames - 1)
            if not len(file.read(1)):
                return "it ends before its header says"
        except (soundfile.LibsndfileError, ValueError) as error:
            return f"it cannot be read to its end ({error})"
    return unheard_by_libsndfile(path)


def _problem_without_libsndfile(path: str, reason: str) -> str | None:
    """What librosa, which audiomentations reads with, cannot read by any of its other decoders either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that libsndfile cannot read it, and that librosa is to change
            return None if load_sound_file(path, None, duration=0.1)[0].size else "it holds no samples"
    except Exception:  # each decoder has errors of its own, some of them without a word
        return reason.strip().rstrip(".")


@contextmanager
def without_resampling_warnings() -> Iterator[None]:
    """Let audiomentations resample recordings without a warning for each of thousands of files."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* had to be resampled from")
        yield


def read_stretch(path: str, sample_rate: int, position: float, n_samples: int) -> NDArray[np.float32]:
    """A stretch of a recording, repeated where the recording is shorter.

    Args:
        path: The recording; several channels are averaged.
        sample_rate: In Hz; the recording is resampled to it.
        position: Where in the recording, in [0, 1]: from its start to the last place where the stretch fits.
        n_samples: Length of the stretch.

    Returns:
        Shape (n_samples,); silence where the recording is empty.
    """
    duration = n_samples / sample_rate
    spare = max(_duration(path) - duration, 0.0)
    with without_resampling_warnings():
        # A little more, lest rounding to the recording's own rate leaves a sample out.
        stretch, _ = load_sound_file(path, sample_rate, offset=position * spare, duration=duration + 0.01)
    return np.resize(stretch, n_samples) if stretch.size else np.zeros(n_samples, np.float32)


@lru_cache(maxsize=256)
def read_impulse_response(path: str, sample_rate: int) -> NDArray[np.float32]:
    """The first channel of a recorded impulse response, shape (samples,), read-only."""
    with without_resampling_warnings():
        channels, _ = load_sound_file(path, sample_rate, mono=False)
    response = np.atleast_2d(channels)[0].copy()
    response.setflags(write=False)
    return response


@lru_cache(maxsize=100_000)
def _duration(path: str) -> float:
    return librosa.get_duration(path=path)  # soundfile's, or another decoder's where it cannot read the file
