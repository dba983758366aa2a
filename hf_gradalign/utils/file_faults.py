"""Finds out what is wrong with a file of weights or settings: a Git LFS pointer, a web page, truncated, ..."""

import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Literal

from hf_gradalign.utils.plain_text import one_line, plain_text

WeightsKind = Literal["safetensors", "torch"]

_START = 1024
_EXCERPT = 60
_REASON = 200
_MAX_HEADER = 100_000_000  # limit of safetensors
_BLOCK = 2**20
_TAR = slice(257, 262)
_POINTER = b"version https://git-lfs.github.com/spec/"
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_AGAIN = "download it again"
_OTHER_KINDS = {
    b"\x1f\x8b": "is compressed (gzip): unpack it first",
    b"BZh": "is compressed (bzip2): unpack it first",
    b"\xfd7zXZ": "is compressed (xz): unpack it first",
    b"7z\xbc\xaf": "is a 7z archive: unpack it first",
    b"Rar!": "is a RAR archive: unpack it first",
    b"\x89HDF": "is an HDF5 file (Keras or TensorFlow) and contains no PyTorch weights",
    b"GGUF": "is a GGUF file and contains no PyTorch weights",
}


def weights_kind(path: Path) -> WeightsKind | None:
    """Return the format of a weights file, judged by its content; None if it is neither."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return None
    # Check this first, because the header length at the start of safetensors may look like anything.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**40:
        return "safetensors"
    return "torch" if start[:2] == b"PK" or start[:1] == b"\x80" else None


def weights_fault(path: Path) -> str | None:
    """Return what is wrong with a weights file, judged only by its start and end. Nothing is loaded.

    Args:
        path: A file from safetensors or torch.save.

    Returns:
        A phrase that follows the file's name in a message, with what to do about it; None if the file looks complete.
    """
    if fault := _fault_of_any(path):
        return fault
    kind = weights_kind(path)
    if kind == "safetensors":
        return _safetensors_fault(path)
    with path.open("rb") as file:
        start = file.read(_START)
    if kind == "torch":
        return _zip_fault(path) if start[:2] == b"PK" else None
    for magic, fault in _OTHER_KINDS.items():
        if start.startswith(magic):
            return fault
    if start[_TAR] == b"ustar":
        return "is a tar archive: unpack it first"
    if _is_text(start):
        content_type = "JSON (a server's answer?)" if start.lstrip()[:1] in (b"{", b"[") else "text"
        return f"is {content_type} instead of weights, starting with {_excerpt(start)}: {_AGAIN}"
    return (
        f"({path.stat().st_size:,} bytes) is neither a safetensors nor a torch.save file, or its start is "
        f"damaged: {_AGAIN}"
    )


def checksum_fault(path: Path) -> str | None:
    """Return what is wrong with a file from torch.save if its checksums, which torch ignores, do not match its content.

    Args:
        path: A file without a `weights_fault`. All of it is read.

    Returns:
        As for `weights_fault`.
    """
    if weights_kind(path) != "torch" or not zipfile.is_zipfile(path):
        return None  # safetensors and the format before torch 1.6 have no checksums
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.CRC == 0:  # 0 if none was computed
                continue
            try:
                with archive.open(record) as content:
                    while content.read(_BLOCK):
                        pass
            except (zipfile.BadZipFile, EOFError):
                return f"is damaged: the checksum of {plain_text(record.filename)} is wrong; {_AGAIN}"
    return None


def json_fault(path: Path) -> str | None:
    """Return what is wrong with a JSON file that should contain an object, such as config.json."""
    if fault := _fault_of_any(path):
        return fault
    if (size := path.stat().st_size) > _MAX_HEADER:
        return f"has {size:,} bytes, which is too large for a settings file: {_AGAIN}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        with path.open("rb") as file:
            start = file.read(_START)
        if start.startswith(_BYTE_ORDER_MARKS):
            return "starts with a byte order mark: save it as plain UTF-8"
        if not _is_text(start):
            return f"is binary instead of JSON: {_AGAIN}"
        return f"is truncated or not JSON ({plain_text(error)}): {_AGAIN}"
    return (
        None
        if isinstance(content, dict)
        else f"is JSON, but not an object: it starts with {_excerpt(path.read_bytes())}"
    )


def describe_loading_error(error: BaseException) -> str:
    """Describe an error from loading weights.

    Args:
        error: An error of torch, safetensors or pickle.

    Returns:
        A phrase that follows the file's name in a message.
    """
    text = one_line(error)
    if isinstance(error, pickle.UnpicklingError) and "weights" in text.lower():
        match = re.search(r"Unsupported global: GLOBAL (\S+)", text)
        what = f" ({match.group(1)})" if match else ""
        return (
            f"contains more than tensors{what}, which could run code when loaded, so it is not loaded. If you trust "
            "it, save only its state dict: torch.save(model.state_dict(), ...)"
        )
    reason = ": ".join(filter(None, (type(error).__name__, text[:_REASON])))
    return f"is truncated, damaged or in another format ({reason}): {_AGAIN}"


def _fault_of_any(path: Path) -> str | None:
    if path.is_dir():
        return "is a folder instead of a file"
    if not path.exists():
        return "is a link to a missing file" if path.is_symlink() else "is missing"
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not start:
        return f"is empty: {_AGAIN}"
    if start.startswith(_POINTER):
        return "is a Git LFS pointer instead of the file itself: run git lfs pull in its clone, or download it"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:14].lower().startswith((b"<!doctype html", b"<html")):
        return f"is a web page (HTML) instead of the file itself: {_AGAIN}, from its download link"
    return None


def _safetensors_fault(path: Path) -> str | None:
    # Eight bytes give the length of a JSON header, which has the end of each tensor.
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER:
            return (
                f"has a header of {length:,} bytes, but safetensors allows at most {_MAX_HEADER:,}: it is damaged or "
                f"has another format; {_AGAIN}"
            )
        text = file.read(min(length, size))
    if len(text) < length:
        return f"is truncated: it has {size:,} bytes, but its header alone takes {8 + length:,}; {_AGAIN}"
    try:
        header = json.loads(text)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
        return f"has a damaged header: {_AGAIN}"
    if size < whole:
        return f"is truncated: it has {size:,} of {whole:,} bytes; {_AGAIN}"
    return f"has {size - whole:,} bytes too many: {_AGAIN}" if size > whole else None


def _zip_fault(path: Path) -> str | None:
    # torch.save writes zip archives, which end with a list of their contents.
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        size = f"{path.stat().st_size:,} bytes"
        return f"is truncated ({size}; the list of contents at its end is missing): {_AGAIN}"
    endings = {name.partition("/")[2] for name in names}
    if "constants.pkl" in endings:
        return (
            "is a TorchScript program, which is code, so it is not loaded. If you trust it, save only its state dict: "
            "torch.save(torch.jit.load(FILE).state_dict(), ...)"
        )
    if "archive_format" in endings:
        return "is a torch.export program: save the state dict of the model it was made from"
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return None
    return f"is a zip archive of {', '.join(plain_text(name) for name in names[:3]) or 'nothing'}: unpack it first"


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", errors="replace")
    unprintable = sum(
        not (character.isprintable() or character in "\t\r\n\f\x1b") for character in text.rstrip("\ufffd")
    )
    return unprintable + text.rstrip("\ufffd").count("\ufffd") == 0


def _excerpt(start: bytes) -> str:
    text = one_line(start.decode("utf-8", errors="replace"))
    return repr(text[:_EXCERPT] + ("..." if len(text) > _EXCERPT else ""))
