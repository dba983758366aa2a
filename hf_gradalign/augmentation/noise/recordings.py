"""Recordings that are mixed into clips: finding, checking and reading them.

Reads with audiomentations' own loader (libsndfile, without FFmpeg).
"""

import logging
import os
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import librosa
import numpy as np
import pyarrow.parquet as pq
import soundfile
from audiomentations.core.audio_loading_utils import load_sound_file
from audiomentations.core.utils import SUPPORTED_EXTENSIONS, find_audio_files_in_paths
from huggingface_hub import cached_assets_path, snapshot_download
from numpy.typing import NDArray

from hf_gradalign.audio import unread_by_libsndfile
from hf_gradalign.utils.files import require_reachable
from hf_gradalign.utils.folder_listing import list_folder
from hf_gradalign.utils.messages import first_few

logger = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

NOISE, MUSIC, SPEECH, IMPULSE_RESPONSE = "noise", "music", "speech", "impulse response"

# Folder names in MUSAN (OpenSLR 17) and RIRS_NOISES (OpenSLR 28), and other common names.
_KINDS = {
    "noise": NOISE,
    "music": MUSIC,
    "speech": SPEECH,
    "pointsource_noises": NOISE,
    "simulated_rirs": IMPULSE_RESPONSE,
    "real_rirs_isotropic_noises": IMPULSE_RESPONSE,
    "impulse_responses": IMPULSE_RESPONSE,
    "rirs": IMPULSE_RESPONSE,
    "rir": IMPULSE_RESPONSE,
}
# For copies of MUSAN without folders: its file names begin with the kind, as in noise-free-sound-0001.wav.
_PREFIX = re.compile(r"(noise|music|speech)-")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_MAX_LISTED = 20
_warned: set[tuple[str, int]] = set()


def list_recordings(paths: Paths, argument: str) -> list[str]:
    """List recordings: files as given, and the sorted audio files of folders and their subfolders.

    Args:
        paths: One or more files or folders.
        argument: The argument's name, for messages.

    Raises:
        ValueError: If a file or folder does not exist.
    """
    recordings: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        require_reachable(path)
        if os.path.isdir(path):
            recordings += sorted(map(str, list_readable_recordings(os.path.abspath(path))))
        elif os.path.isfile(path):
            recordings.append(str(path))
        else:
            raise ValueError(f"{argument}: {path} does not exist")
    return recordings


def list_readable_recordings(folder: str | os.PathLike[str]) -> list[Path]:
    """List the recordings in a folder and its subfolders that audiomentations can read. Warn once about others."""
    listing = list_folder(folder)
    listing.log_left_out()
    supported = [file for file in listing.audio if file.name.lower().endswith(SUPPORTED_EXTENSIONS)]
    others = sorted(set(listing.audio) - set(supported))
    if others and (os.fspath(folder), len(others)) not in _warned:
        _warned.add((os.fspath(folder), len(others)))
        logger.warning(
            "%s: %d of %d recordings are left out, because audiomentations cannot read their formats: %s. Convert "
            "them to WAV or FLAC.",
            folder,
            len(others),
            len(listing.audio),
            first_few(others, _MAX_LISTED),
        )
    return supported


def list_for_audiomentations(paths: Paths) -> list[str]:
    """List recordings like `list_recordings`, but in audiomentations' order if it lists the same files.

    Draws depend on the order, and audiomentations uses the order on disk. Files need not exist.
    """
    recordings: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        ours = list_recordings(path, "") if os.path.isdir(path) else [str(path)]
        theirs = [str(file) for file in find_audio_files_in_paths(os.fspath(path))] if os.path.isdir(path) else ours
        recordings += theirs if sorted(theirs) == sorted(ours) else ours
    return recordings


def find_recordings(names: Sequence[str | os.PathLike[str]]) -> dict[str, list[str]]:
    """List the recordings in folders laid out like MUSAN and RIRS_NOISES, by kind.

    The outermost folder with one of these names decides the kind: `noise`, `music`, `speech` (as in MUSAN),
    `pointsource_noises`, `simulated_rirs`, `real_rirs_isotropic_noises` (as in RIRS_NOISES, whose isotropic noises are
    skipped), `rirs`, `rir` or `impulse_responses`. Without such a folder, the file name decides if it begins with
    `noise-`, `music-` or `speech-`, as in MUSAN. The large simulated rooms of RIRS_NOISES are left out, as in the
    x-vector recipe (Snyder et al., ICASSP 2018).

    Args:
        names: Folders, or data sets on the Hub as `owner/name`, which are downloaded. The audio of parquet files with a
            column `audio` is written to files in the Hub's cache.

    Returns:
        Sorted paths by kind. Kinds without files have no key.

    Raises:
        ValueError: If a name is neither a folder nor a data set on the Hub, or has no recordings of a known kind.
    """
    sounds: dict[str, list[str]] = {}
    for name in names:
        folder = _local_folder(str(name))
        kinds = {
            str(path): kind for path in list_readable_recordings(folder.resolve()) if (kind := _kind_of(path, folder))
        }
        if not kinds:
            raise ValueError(
                f"{name}: no recordings of a known kind. Expected MUSAN's folders noise, music and speech, "
                "RIRS_NOISES' simulated_rirs or real_rirs_isotropic_noises, or folders rirs or impulse_responses, "
                "with WAV, FLAC, OGG or MP3 files"
            )
        for path in sorted(kinds):
            sounds.setdefault(kinds[path], []).append(path)
    return sounds


def _kind_of(path: Path, folder: Path) -> str | None:
    parts = [folder.resolve().name, *path.relative_to(folder.resolve()).parts[:-1]]
    kinds = [_KINDS[part.lower()] for part in parts if part.lower() in _KINDS]
    if not kinds:
        prefix = _PREFIX.match(path.name)
        return _KINDS[prefix[1]] if prefix else None
    is_noise = kinds[0] == IMPULSE_RESPONSE and "noise" in path.name
    return None if is_noise or ("simulated_rirs" in parts and "largeroom" in parts) else kinds[0]


def _local_folder(name: str) -> Path:
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    if not _HUB_ID.fullmatch(name):
        raise ValueError(f"{name} is neither a folder nor a data set on the Hub (owner/name)")
    try:
        downloaded = Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is neither a folder nor a data set to download from the Hub: {error}") from error
    tables = sorted(downloaded.rglob("*.parquet"))
    return _unpack_audio(tables, name, downloaded.name) if tables else downloaded


def _unpack_audio(tables: Sequence[Path], name: str, revision: str) -> Path:
    """Write the audio of parquet files to separate files, unless this was done before."""
    folder = cached_assets_path("hf_gradalign", namespace=name.replace("/", "--"), subfolder=revision)
    done = folder / ".complete"
    if not done.is_file():
        for table in tables:
            for batch in pq.ParquetFile(table).iter_batches(batch_size=64, columns=["audio"]):
                for audio in batch["audio"].to_pylist():
                    target = folder / Path(os.path.normpath(f"/{audio['path']}")).relative_to("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(audio["bytes"])
        done.touch()
    return folder


def find_unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Find recordings that cannot be read, with the reason. Opens each one, and reads its first and last sample.

    A recording that is shorter than its header says would stop training at a random update, or make audiomentations
    loop forever when it repeats a noise.
    """
    with ThreadPoolExecutor() as pool:
        problems = pool.map(_find_problem, paths)
    return {path: problem for path, problem in zip(paths, problems, strict=True) if problem is not None}


def describe_unreadable(unreadable: Mapping[str, str], count: int) -> str:
    """Return a message about unreadable recordings (`find_unreadable`) among `count` recordings."""
    lines = [f"  {path}: {problem}" for path, problem in unreadable.items()]
    return (
        f"{len(unreadable)} of {count} recordings cannot be read:\n{first_few(lines, _MAX_LISTED, chr(10))}\n"
        "Convert them to WAV or FLAC (ffmpeg -i recording.m4a recording.wav), or move them out of the folder."
    )


def _find_problem(path: str) -> str | None:
    if not os.path.isfile(path):
        return "the file does not exist"
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        return _find_problem_without_libsndfile(path, error.error_string)
    with file:
        try:
            if not len(file.read(1)):
                return "it holds no samples"
            file.seek(file.frames - 1)
            if not len(file.read(1)):
                return "it ends before its header says"
        except (soundfile.LibsndfileError, ValueError) as error:
            return f"it cannot be read to its end ({error})"
    return unread_by_libsndfile(path)


def _find_problem_without_libsndfile(path: str, reason: str) -> str | None:
    """Return the problem if librosa, which audiomentations uses, cannot read the file with another decoder either."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the fallback to another decoder
            return None if load_sound_file(path, None, duration=0.1)[0].size else "it holds no samples"
    except Exception:  # decoders raise their own errors, some without a message
        return reason.strip().rstrip(".")


@contextmanager
def without_resampling_warnings() -> Generator[None]:
    """Silence audiomentations' warning for each resampled recording."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* had to be resampled from")
        yield


def read_segment(path: str, sample_rate: int, position: float, n_samples: int) -> NDArray[np.float32]:
    """Read a segment of a recording. A shorter recording is repeated.

    Args:
        path: The recording. Channels are averaged.
        sample_rate: In Hz. The recording is resampled to this rate.
        position: From 0, the start of the recording, to 1, the last position where the segment fits.
        n_samples: Length of the segment.

    Returns:
        Shape (n_samples,). Silence if the recording is empty.
    """
    duration = n_samples / sample_rate
    spare = max(_duration(path) - duration, 0.0)
    with without_resampling_warnings():
        # Read a little more, because rounding to the recording's own rate may drop a sample.
        segment, _ = load_sound_file(path, sample_rate, offset=position * spare, duration=duration + 0.01)
    return np.resize(segment, n_samples) if segment.size else np.zeros(n_samples, np.float32)


@lru_cache(maxsize=256)
def read_impulse_response(path: str, sample_rate: int) -> NDArray[np.float32]:
    """Read the first channel of an impulse response, as a read-only array of shape (samples,)."""
    with without_resampling_warnings():
        channels, _ = load_sound_file(path, sample_rate, mono=False)
    response = np.atleast_2d(channels)[0].copy()
    response.setflags(write=False)
    return response


@lru_cache(maxsize=100_000)
def _duration(path: str) -> float:
    return librosa.get_duration(path=path)  # falls back to other decoders
