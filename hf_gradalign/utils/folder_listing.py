"""Lists the files in a folder and all subfolders, and recognizes audio files by their extension."""

from __future__ import annotations

import difflib
import heapq
import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hf_gradalign.utils.messages import first_few, pluralize

logger = logging.getLogger(__name__)

# In order of preference: if several files have the same name, the first extension wins.
_ENDINGS = """
    flac wav ogg opus mp3 aiff aif m4a
    3g2 3ga 3gp 3gpp aa3 aac ac3 aifc aifr alac alaw amr ape asf au avi avr awb caf dff dsf dts eac3 f4a f4v flv g722
    g723 g729 gsm ircam m2a m2ts m4b m4p m4r m4v mka mkv mov mp1 mp2 mp4 mpa mpc mpeg mpg mts mulaw mxf nist oga ogm
    ogv ogx oma paf pcm pvf qcp ra raw rf64 rm rmvb sd2 sds shn silk slk snd sph spx svx tak tta ulaw vob voc vox w64
    wave wavex weba webm wma wmv wv wv1 wv2 wve xi
"""
AUDIO_SUFFIXES = tuple(f".{ending}" for ending in _ENDINGS.split())
"""Extensions of audio files in lower case. Includes unreadable formats, so that such files are reported."""

_AUDIO = frozenset(AUDIO_SUFFIXES)
_LISTED = 8
_logged: set[str] = set()


def similar_path(path: Path) -> str:
    """Return ` Did you mean PATH?` for a missing path, if something next to it has a similar name.

    Hidden files and folders are left out. A path with backslashes, as Windows writes it, is also tried with slashes.
    """
    slashed = Path(str(path).replace("\\", "/"))
    if slashed != path and slashed.exists():
        return f" Did you mean {printable(slashed)}?"
    try:
        names = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f" Did you mean {printable(str(path.parent / close[0]))}?" if close else ""


@dataclass(frozen=True)
class FolderListing:
    """The files in a folder and its subfolders.

    Attributes:
        folder: The folder.
        audio: The audio files, sorted. Includes broken links.
        others: All other files, sorted.
        n_hidden: Number of hidden files and folders, which are left out.
        unreadable: Folders that could not be listed, sorted.
        unnamable: Files and folders whose names are not UTF-8, sorted. They are left out, because tables cannot contain
            their names.
    """

    folder: Path
    audio: list[Path]
    others: list[Path]
    n_hidden: int
    unreadable: list[Path]
    unnamable: list[Path]

    def log_left_out(self, used: Iterable[Path] = ()) -> None:
        """Log once which files are left out, if any.

        Args:
            used: Files that are not audio but are used.
        """
        used = set(used)
        counts = Counter(file.suffix.lower() for file in self.others if file not in used)
        parts = []
        if self.n_hidden:
            parts.append(pluralize(self.n_hidden, "hidden file or folder", "hidden files or folders"))
        if counts:
            kinds = ", ".join(f"{count} {suffix or 'without an extension'}" for suffix, count in counts.most_common())
            parts.append(f"{pluralize(sum(counts.values()), 'file that is', 'files that are')} not audio ({kinds})")
        if self.unreadable:
            count = pluralize(len(self.unreadable), "folder", "folders")
            parts.append(f"{count} that cannot be opened ({_names(self.unreadable)})")
        if self.unnamable:
            count = pluralize(len(self.unnamable), "file or folder", "files or folders")
            parts.append(
                f"{count} with a name that is not UTF-8 ({_names(self.unnamable)}): rename them, for example with "
                "convmv"
            )
        if not parts:
            return
        message = (
            f"{self.folder}: {pluralize(len(self.audio), 'audio file', 'audio files')}. Left out: {', '.join(parts)}."
        )
        if message not in _logged:
            _logged.add(message)
            logger.warning("%s", message)


def list_folder(folder: str | os.PathLike[str]) -> FolderListing:
    """List the files in a folder and its subfolders by name, without opening them.

    Links to folders are followed. Each real folder is listed once, under its own path if that is below `folder`. Names
    that start with a dot, such as the `._name` files of macOS, are left out and counted.

    Args:
        folder: The folder.
    """
    root = Path(folder)
    audio: list[Path] = []
    others: list[Path] = []
    unreadable: list[Path] = []
    unnamable: list[Path] = []
    n_hidden = 0
    visited: set[str] = set()
    pending = [(root, os.path.realpath(root))]
    links: list[Path] = []
    while pending or links:
        if not pending:
            # Links come last, so that a folder reached both ways keeps its own path.
            link = heapq.heappop(links)
            pending.append((link, os.path.realpath(link)))
        path, real = pending.pop()
        if real in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(path) as entries:
                listing = [(entry.name, _kind(entry), entry.is_symlink()) for entry in entries]
        except OSError:
            unreadable.append(path)
            continue
        for name, kind, is_link in listing:
            if is_hidden(name):
                n_hidden += 1
            elif not is_utf8(name):
                unnamable.append(path / name)
            elif kind == "folder" and is_link:
                heapq.heappush(links, path / name)
            elif kind == "folder":
                pending.append((path / name, os.path.join(real, name)))
            else:
                (audio if is_audio(name) and kind == "file" else others).append(path / name)
    return FolderListing(root, sorted(audio), sorted(others), n_hidden, sorted(unreadable), sorted(unnamable))


def is_audio(name: str | os.PathLike[str]) -> bool:
    """Return whether a file's name has the extension of an audio file, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in _AUDIO


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name (without its folder) is left out of listings."""
    return name.startswith(".")


def is_utf8(name: str | os.PathLike[str]) -> bool:
    """Return whether a file's name is UTF-8. In Python, other bytes are surrogates, which no file format accepts."""
    try:
        os.fspath(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def last_part(path: Path) -> str:
    """Return the last part of a path; for `.` and `..`, that of the folder they stand for."""
    return path.name if path.name not in ("", "..") else Path(os.path.abspath(path)).name


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return a name for messages, with bytes that are not UTF-8 as in `bad\xff.wav`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _names(paths: list[Path]) -> str:
    return first_few([*map(printable, paths)], _LISTED)


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        # A broken link counts as a missing file. Pipes and sockets do not count, because opening them may block
        # forever.
        return "file" if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)) else "other"
    except OSError:  # a link to itself
        return "file"
