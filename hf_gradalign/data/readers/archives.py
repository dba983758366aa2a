"""Unpack tar and zip archives once, into the cache of `datasets`."""

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
from hf_gradalign.data.readers.class_folders import listed

logger = logging.getLogger(__name__)

_TAR = re.compile(r"\.(tar(\.(gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
_ZIP = re.compile(r"\.zip$", re.IGNORECASE)
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (zipfile.BadZipFile, zlib.error, tarfile.TarError, lzma.LZMAError, EOFError, OSError)
# Raised for encrypted members and unknown compression.
_UNREADABLE = (RuntimeError, NotImplementedError)
_BLOCK_BYTES = 2**20

Member = tuple[str, int, IO[bytes]]
"""A file in an archive: its name, size in bytes, and content."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive that can be unpacked, by its name."""
    return is_tar(path) or _ZIP.search(path.name) is not None


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, compressed or not, by its name."""
    return _TAR.search(path.name) is not None


def bare_name(archive: Path) -> str:
    """An archive's name without its extensions."""
    return _TAR.sub("", _ZIP.sub("", archive.name))


def unpack(archives: Sequence[Path], root: Path) -> Path:
    """Unpack archives, each into a folder of its name, at its path relative to `root`.

    The same files are unpacked once. Interrupted unpacking starts again.

    Args:
        archives: Files for which `is_archive` is true.
        root: A folder that contains them.

    Returns:
        The folder with all of them.

    Raises:
        CorpusError: If an archive is corrupt, encrypted, truncated, or too large for the disk, a member's path leads
            out of it or comes twice, or a link is broken. Nothing is left behind.
    """
    cache = Path(datasets.config.HF_DATASETS_CACHE, "hf_gradalign_unpacked")
    target = cache / _fingerprint(archives, root)
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    logger.warning("Unpacking %s into %s.", listed([str(archive) for archive in archives]), target)
    temporary = Path(tempfile.mkdtemp(dir=cache))
    content = temporary / target.name  # has the umask's permissions; only the owner can read `temporary`
    content.mkdir()
    try:
        for archive in archives:
            _unpack(archive, content / archive.parent.relative_to(root) / bare_name(archive))
        try:
            content.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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
            "relative paths."
        )
    return path


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            # Some programs write Windows' separators.
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
                # Links are followed within the archive only.
                content = file.extractfile(member)
            except KeyError:
                dangling.append(member.name)
                continue
            if content is not None:  # None for links to folders, whose files have members of their own
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
        logger.warning("%s has no end mark: it may be truncated.", archive)
    while block:
        if block.count(0) != len(block):
            raise CorpusError(f"{archive} has data after its end: is it several archives in one file? Separate them.")
        block = rest.read(_BLOCK_BYTES)
