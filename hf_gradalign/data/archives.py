"""Unpack tar and zip archives of audio into the cache of `datasets`, once, to be read as a folder."""

from __future__ import annotations

import hashlib
import logging
import lzma
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

import datasets

from hf_gradalign.data.errors import CorpusError
from hf_gradalign.data.folder_names import listed

logger = logging.getLogger(__name__)

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_ZIP = re.compile(r"\.zip$", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (zipfile.BadZipFile, zlib.error, tarfile.TarError, lzma.LZMAError, EOFError, OSError)
# An encrypted member; a compression that Python does not know.
_UNREADABLE = (RuntimeError, NotImplementedError)
_BLOCK_BYTES = 2**20

Member = tuple[str, int, IO[bytes]]
"""A file in an archive: its name, its size in bytes and its content."""


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive that can be unpacked here."""
    return is_tar(path) or _ZIP.search(path.name) is not None


def is_tar(path: Path) -> bool:
    """Whether a file's name is that of a tar archive, compressed or not."""
    return _TAR.search(path.name) is not None


def bare_name(archive: Path) -> str:
    """An archive's name without its endings."""
    return _TAR.sub("", _ZIP.sub("", archive.name))


def unpack(archives: Sequence[Path], root: Path) -> Path:
    """Unpack archives, each into a folder of its name, in the place where it lies below `root`.

    Done once for the same files; a copy that was interrupted is made again from its start.

    Args:
        archives: files for which `is_archive` is true.
        root: a folder around them.

    Returns:
        The folder that holds them all.

    Raises:
        CorpusError: if an archive is corrupt or encrypted, cut short or too large for the disk, if a member's name
            leads out of it or comes twice, or if a link in it leads nowhere. Nothing is left behind then.
    """
    cache = Path(datasets.config.HF_DATASETS_CACHE, "hf_gradalign_unpacked")
    target = cache / _fingerprint(archives, root)
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    logger.warning("Unpacking %s into %s.", listed([str(archive) for archive in archives]), target)
    made = Path(tempfile.mkdtemp(dir=cache))
    content = made / target.name  # with the permissions that the umask gives; those of `made` are the owner's alone
    content.mkdir()
    try:
        for archive in archives:
            _unpack(archive, content / archive.parent.relative_to(root) / bare_name(archive))
        try:
            content.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return target


def _fingerprint(archives: Sequence[Path], root: Path) -> str:
    stamps = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in archives]
    return hashlib.sha256(repr((str(root.resolve()), stamps)).encode()).hexdigest()[:16]


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    written: set[PurePosixPath] = set()
    try:
        for name, size, content in _zip_members(archive) if _ZIP.search(archive.name) else _tar_members(archive):
            path = _safe(name, archive)
            if path in written:
                raise CorpusError(f"{archive} holds {name!r} twice. Pack it again with one name for each file.")
            written.add(path)
            free = shutil.disk_usage(folder).free
            if size > free:
                raise CorpusError(
                    f"No space to unpack {archive}: {name!r} takes {size} bytes, and {free} are free at {folder}. Make "
                    "room, or let HF_DATASETS_CACHE name a folder on a larger disk."
                )
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK_BYTES)
    except _BROKEN as error:
        raise CorpusError(f"Cannot unpack {archive} ({error}). Download it again, or unpack it yourself.") from error
    except _UNREADABLE as error:
        raise CorpusError(f"Cannot unpack {archive} ({error}). Unpack it yourself and name the folder.") from error


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or _DRIVE.match(name) or not path.parts or "\0" in name:
        raise CorpusError(
            f"{archive} holds a file whose name leads out of it, {name!r}. It is not unpacked: pack it again with "
            "names that are relative to it."
        )
    return path


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # Some programs on Windows write its separators.
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
                # A link is what it leads to, in the archive; what is outside is not looked at.
                content = file.extractfile(member)
            except KeyError:
                dangling.append(member.name)
                continue
            if content is not None:  # as it is for a link to a folder, whose files come under their own names
                yield member.name, member.size, content
        file.fileobj.seek(file.offset)
        _require_end(file.fileobj, archive)
    if dangling:
        raise CorpusError(
            f"{archive} holds links to what is not in it: {listed(dangling)}. Pack it again with the files themselves "
            "(tar --dereference)."
        )


def _require_end(rest: IO[bytes], archive: Path) -> None:
    block = rest.read(tarfile.BLOCKSIZE)
    if not block:
        logger.warning("%s has no mark at its end: it may be cut short.", archive)
    while block:
        if block.count(0) != len(block):
            raise CorpusError(f"{archive} goes on behind its end: are these several archives in one? Separate them.")
        block = rest.read(_BLOCK_BYTES)
