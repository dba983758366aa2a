"""Reads tar and zip archives (unpacks them once, into the cache of `datasets`) and WebDataset shards.

In WebDataset shards, files of the same name are one clip, such as `000.flac`, `000.cls` and `000.json`. The
`webdataset` builder is not used, because it needs torchcodec and FFmpeg.
"""

from __future__ import annotations

import hashlib
import json
import logging
import lzma
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import pyarrow as pa
from datasets import Dataset
from datasets import config as datasets_config

from hf_gradalign.data.labels import canonical_label
from hf_gradalign.data.readers.class_folders import divide_by_split, labels_of_paths, splits_of_paths
from hf_gradalign.data.readers.metadata import table_of_rows
from hf_gradalign.data.request import LABEL_COLUMN, CorpusError, CorpusRequest
from hf_gradalign.utils.file_locks import hold_lock
from hf_gradalign.utils.files import remove_tree, write_text_atomically
from hf_gradalign.utils.folder_listing import FolderListing, is_audio, is_hidden
from hf_gradalign.utils.messages import first_few

logger = logging.getLogger(__name__)

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_ZIP = re.compile(r"\.zip$", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (zipfile.BadZipFile, zlib.error, tarfile.TarError, lzma.LZMAError, EOFError, OSError)
# Errors for encrypted members and unknown compression.
_UNREADABLE = (RuntimeError, NotImplementedError)
_BLOCK_BYTES = 2**20

Member = tuple[str, int, IO[bytes]]
"""A file in an archive: its name, size in bytes, and content."""


def is_archive(path: Path) -> bool:
    """Return whether a file is an archive that can be unpacked, by its name."""
    return is_tar(path) or _ZIP.search(path.name) is not None


def is_tar(path: Path) -> bool:
    """Return whether a file is a tar archive, compressed or not, by its name."""
    return _TAR.search(path.name) is not None


def bare_name(archive: Path) -> str:
    """Return an archive's name without its extensions."""
    return _TAR.sub("", _ZIP.sub("", archive.name))


def unpack(archives: Sequence[Path], root: Path) -> Path:
    """Unpack archives, each into a folder with its name, at its path relative to `root`.

    The same files are unpacked only once, and again if unpacked files were removed or truncated, as on disks that are
    cleared of old files. A folder without a record of its size is compared with the archives. Interrupted unpacking
    starts over, and its remains are removed. If another process unpacks the same archives, this one waits.

    Args:
        archives: Files for which `is_archive` is true.
        root: A folder that contains them.

    Returns:
        The folder with all of them.

    Raises:
        CorpusError: If an archive is corrupt, encrypted, truncated, or too large for the disk, a member's path leads
            outside of the archive or occurs twice, or a link is broken. No files are left behind.
    """
    cache = Path(datasets_config.HF_DATASETS_CACHE, "hf_gradalign_unpacked")
    target = cache / _fingerprint(archives, root)
    sizes = target.with_suffix(".json")
    if _is_complete(target, sizes):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with hold_lock(target.with_suffix(".lock"), f"The unpacked {first_few(archives)}", on_wait=_log_wait):
        # Another process may have unpacked it.
        if not _is_complete(target, sizes) and not _record_size(archives, target, sizes):
            _unpack_all(archives, root, target, sizes)
    return target


def _log_wait(holder: str) -> None:
    logger.warning("Waiting for %s, which unpacks the same archives.", holder)


def _unpack_all(archives: Sequence[Path], root: Path, target: Path, sizes: Path) -> None:
    again = ", because its content differs from what was unpacked" if target.is_dir() else ""
    logger.warning("Unpacking %s into %s%s.", first_few(archives), target, again)
    prefix = f"{target.name}.partial-"
    for left_behind in target.parent.glob(f"{prefix}*"):  # of a killed process
        remove_tree(left_behind)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    content = partial / target.name  # follows the umask, while only the owner can read `partial`
    content.mkdir()
    try:
        for archive in archives:
            _unpack(archive, content / archive.parent.relative_to(root) / bare_name(archive))
        write_text_atomically(sizes, json.dumps(_measure(content)))
        if target.is_dir():
            target.rename(partial / "incomplete")
        content.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fingerprint(archives: Sequence[Path], root: Path) -> str:
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in archives]
    return hashlib.sha256(repr((str(root.resolve()), stamps)).encode()).hexdigest()[:16]


def _is_complete(folder: Path, sizes: Path) -> bool:
    try:
        return folder.is_dir() and _contains_all(_measure(folder), json.loads(sizes.read_text()))
    except (OSError, ValueError):
        return False


def _record_size(archives: Sequence[Path], folder: Path, sizes: Path) -> bool:
    """Record the size of a folder without a record, unless it lacks files of the archives. Return whether it did."""
    if sizes.exists() or not folder.is_dir():
        return False
    measured = _measure(folder)
    try:
        members = [(name, size) for archive in archives for name, size, _ in _members(archive)]
    except (*_BROKEN, *_UNREADABLE):  # reported when unpacking
        return False
    is_whole = _contains_all(measured, _sum_sizes((PurePosixPath(name).name, size) for name, size in members))
    if is_whole:
        write_text_atomically(sizes, json.dumps(measured))
    return is_whole


def _measure(folder: Path) -> dict[str, int]:
    files = [(path, name) for path, _, names in os.walk(folder) for name in names]
    return _sum_sizes((name, os.path.getsize(os.path.join(path, name))) for path, name in files)


def _sum_sizes(files: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the number and total size of files, without hidden files, which file managers add."""
    sizes = [size for name, size in files if not is_hidden(name)]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _contains_all(measured: dict[str, int], needed: dict[str, int]) -> bool:
    return all(measured[key] >= needed[key] for key in measured)


def _members(archive: Path) -> Iterator[Member]:
    return _zip_members(archive) if _ZIP.search(archive.name) else _tar_members(archive)


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()  # in lower case, because the disks of macOS do not tell upper from lower case
    try:
        for name, size, content in _members(archive):
            path = _safe_path(name, archive)
            target = folder / path
            if str(path).lower() in written and target.exists():
                raise CorpusError(
                    f"{archive} contains {name!r} twice. Pack it again with a different name for each file."
                )
            written.add(str(path).lower())
            free = shutil.disk_usage(folder).free
            if size > free:
                raise CorpusError(
                    f"No space to unpack {archive}: {name!r} takes {size} bytes, but only {free} are free at {folder}. "
                    "Free some space, or set HF_DATASETS_CACHE to a folder on a larger disk."
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK_BYTES)
    except _BROKEN as error:
        raise CorpusError(f"Cannot unpack {archive} ({error}). Download it again, or unpack it yourself.") from error
    except _UNREADABLE as error:
        raise CorpusError(
            f"Cannot unpack {archive} ({error}). Unpack it yourself and give the folder as the corpus."
        ) from error


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name) or not path.parts or "\0" in name:
        raise CorpusError(
            f"{archive} is not unpacked, because it contains a file with a path outside of it, {name!r}. Pack it again "
            "with relative paths."
        )
    return path


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # Some programs write Windows separators.
            name = member.filename.replace("\\", "/")
            if not name.endswith("/"):
                yield name, member.file_size, file.open(member)


def _tar_members(archive: Path) -> Iterator[Member]:
    dangling = []
    with tarfile.open(archive) as file:
        for member in file:
            if not (member.isfile() or member.islnk() or member.issym()):
                continue
            try:
                # Links are followed only within the archive.
                content = file.extractfile(member)
            except KeyError:
                dangling.append(member.name)
                continue
            if content is not None:  # None for links to folders, whose files are separate members
                yield member.name, member.size, content
        rest = cast("IO[bytes]", file.fileobj)
        rest.seek(file.offset)
        _require_end(rest, archive)
    if dangling:
        raise CorpusError(
            f"{archive} has links to files that are not in it: {first_few(dangling)}. Pack it again with the files "
            "themselves (tar --dereference)."
        )


def _require_end(rest: IO[bytes], archive: Path) -> None:
    block = rest.read(tarfile.BLOCKSIZE)
    if not block:
        logger.warning("%s has no end mark: it may be truncated.", archive)
    while block:
        if block.count(0) != len(block):
            raise CorpusError(
                f"{archive} has data after its end. If it is several archives in one file, separate them."
            )
        block = rest.read(_BLOCK_BYTES)


KEY = "__key__"
"""WebDataset's column with the clips' names."""

# Longer files are not descriptions.
_MAX_BYTES = 2**20


def read_webdataset(listing: FolderListing, request: CorpusRequest) -> dict[str, Dataset] | None:
    """Read the clips of unpacked shards; None if no audio file has a file that describes it.

    Labels are in the requested column. If none is requested, they are the content of `.cls` files, otherwise of the
    only kind of file or value that contains only common labels, otherwise the names of folders.

    Args:
        listing: The unpacked files, with one folder per shard.
        request: What to load. If clips have several audio files, `audio_column` is the extension of the one to use.

    Returns:
        The splits, from the shards' names, with the columns `request.audio_column`, `__key__` (the clip's name with its
        folders), the values of `.json` files, and the text of other files by extension (`cls`, `txt`).

    Raises:
        CorpusError: If a clip has several audio files and `audio_column` names none, or a JSON file is corrupt.
    """
    clips = list(_clips(listing))
    # A clip without audio has the same kinds of files as other clips, but a README does not.
    usual = {frozenset(clip.texts) for clip in clips if clip.audio and clip.texts}
    if not usual:
        return None
    clips = [clip for clip in clips if clip.audio or frozenset(clip.texts) in usual]
    audio = [_choose_audio(clip, request.audio_column) for clip in clips]
    reserved = {request.audio_column, KEY}
    values = [{name: value for name, value in clip.values().items() if name not in reserved} for clip in clips]
    table = table_of_rows(
        [
            {request.audio_column: path, KEY: clip.key, **row}
            for path, clip, row in zip(audio, clips, values, strict=True)
        ]
    )
    paths = [Path(clip.key) for clip in clips]
    if request.label_column == LABEL_COLUMN and LABEL_COLUMN not in table.column_names:
        labels = _labels(table, reserved, request) or labels_of_paths(paths, request.label_map)
        if any(label is not None for label in labels):
            table = table.append_column(LABEL_COLUMN, pa.array(labels))
    read = {file for clip in clips for file in clip.texts.values()}
    listing.log_left_out(read)
    return divide_by_split(Dataset(table), splits_of_paths(paths, request.split_names))


@dataclass
class _Clip:
    """A clip's files, by extension.

    Attributes:
        key: The clip's name with its folders, without extension.
        audio: The clip's audio files.
        texts: The clip's other files.
    """

    key: str
    audio: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, Path] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return the content of the clip's text files.

        Raises:
            CorpusError: If a JSON file is corrupt.
        """
        values: dict[str, Any] = {}
        for ending, file in self.texts.items():
            text = _text(file)
            if text is None:
                continue
            content: Any = text
            if ending.endswith("json"):
                try:
                    content = json.loads(text)
                except ValueError as error:
                    raise CorpusError(f"Cannot read {file}: {error}") from error
            values |= {**content, **values} if isinstance(content, dict) else {ending: content}
        return values


def _clips(listing: FolderListing) -> Iterator[_Clip]:
    """Yield the clips, sorted by name."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for file in (*listing.audio, *listing.others):
        groups[file.parent / file.name.partition(".")[0]].append(file)
    for stem in sorted(groups):
        files = groups[stem]
        audio = [file for file in files if is_audio(file.name)]
        texts = [file for file in files if not is_audio(file.name)]
        # Audio files with dots in their names, such as 1.5s.wav, are separate clips if every other file belongs to one
        # of them.
        owners = {text: [file for file in audio if text.name.startswith(f"{file.stem}.")] for text in texts}
        is_one = len({file.stem for file in audio}) < max(len(audio), 1) or not all(owners.values())
        for name, members in [(stem.name, files)] if is_one else [(file.stem, [file]) for file in audio]:
            clip = _Clip((stem.parent / name).relative_to(listing.folder).as_posix())
            members = members if is_one else [*members, *(text for text in texts if members[0] in owners[text])]
            for file in members:
                ending = file.name[len(name) + 1 :].lower()
                (clip.audio if is_audio(file.name) else clip.texts)[ending] = file
            yield clip


def _choose_audio(clip: _Clip, audio_column: str) -> str | None:
    if len(clip.audio) < 2:
        return next((file.as_posix() for file in clip.audio.values()), None)
    matches = [ending for ending in clip.audio if ending == audio_column.lower()]
    if len(matches) != 1:
        raise CorpusError(
            f"{clip.key} has several audio files: {', '.join(clip.audio)}. Choose one by its extension with "
            "--audio_column_name."
        )
    return clip.audio[matches[0]].as_posix()


def _labels(table: pa.Table, reserved: Collection[str], request: CorpusRequest) -> list[Any] | None:
    if "cls" in table.column_names:
        return table["cls"].to_pylist()
    candidates = []
    for name in table.column_names:
        if name not in reserved and pa.types.is_string(table[name].type):
            values = table[name].to_pylist()
            if all(value is not None and canonical_label(value, request.label_map) for value in set(values)):
                candidates.append(values)
    return candidates[0] if len(candidates) == 1 else None


def _text(file: Path) -> str | None:
    """Return a file's text; None if it is not text, or too long."""
    if file.stat().st_size > _MAX_BYTES:
        return None
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
