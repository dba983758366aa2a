"""Find recordings of noise, music, speech and impulse responses in folders laid out like MUSAN and RIRS_NOISES."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from huggingface_hub import cached_assets_path, snapshot_download

from hf_gradalign.augmentation.sound_files import recordings_below

NOISE, MUSIC, SPEECH, IMPULSE_RESPONSE = "noise", "music", "speech", "impulse response"

# What the folders are called in MUSAN (OpenSLR 17) and in RIRS_NOISES (OpenSLR 28), and some plain names.
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
# MUSAN's files say what they are, as in noise-free-sound-0001.wav: for copies without folders.
_PREFIX = re.compile(r"(noise|music|speech)-")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find_sounds(names: Sequence[str | os.PathLike[str]]) -> dict[str, list[str]]:
    """List the recordings below folders, by what they are.

    What a file is, the first folder on its way that has one of these names says: `noise`, `music`, `speech` (as in
    MUSAN), `pointsource_noises`, `simulated_rirs`, `real_rirs_isotropic_noises` (as in RIRS_NOISES, whose isotropic
    noises are passed over), `rirs`, `rir` or `impulse_responses`; or else the file's own name, where it begins with
    `noise-`, `music-` or `speech-`, as MUSAN's do. Of RIRS_NOISES' simulated rooms the large ones are left out, as in
    the x-vector recipe (Snyder et al., ICASSP 2018).

    Args:
        names: Folders, or data sets on the Hub, `owner/name`, which are downloaded: files in folders, or parquet files
            with a column `audio`, whose audio is written to the Hub's cache as files.

    Returns:
        Paths by kind, sorted, so that draws from them do not depend on the file system. Kinds without files are not in
        it.

    Raises:
        ValueError: If a name is neither a folder nor a data set on the Hub, or nothing is found below it.
    """
    sounds: dict[str, list[str]] = {}
    for name in names:
        folder = _local_folder(str(name))
        found = {str(path): kind for path in recordings_below(folder.resolve()) if (kind := _kind_of(path, folder))}
        if not found:
            raise ValueError(
                f"{name}: no recordings of known kind. Expected MUSAN's folders noise, music and speech, RIRS_NOISES' "
                "simulated_rirs or real_rirs_isotropic_noises, or folders named rirs or impulse_responses, with WAV, "
                "FLAC, OGG or MP3 files in them"
            )
        for path in sorted(found):
            sounds.setdefault(found[path], []).append(path)
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
        raise ValueError(f"{name} is neither a folder nor the name of a data set on the Hub, which would be owner/name")
    try:
        downloaded = Path(snapshot_download(name, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} is neither a folder nor a data set that the Hub has to give: {error}") from error
    tables = sorted(downloaded.rglob("*.parquet"))
    return _unpacked(tables, name, downloaded.name) if tables else downloaded


def _unpacked(tables: Sequence[Path], name: str, revision: str) -> Path:
    """Write the audio of parquet files into files of their own, once."""
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
