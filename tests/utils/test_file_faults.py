"""Files whose content does not match their names are described by their content."""

import io
import json
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save

from hf_gradalign.utils.file_faults import describe_loading_error, json_fault, weights_fault, weights_kind
from hf_gradalign.utils.plain_text import plain_text

STATE = {"a.weight": torch.ones(40, 3), "b": torch.arange(4)}
SAFE = save(STATE)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 377620000\n"


def torch_bytes(**options):
    file = io.BytesIO()
    torch.save(STATE, file, **options)
    return file.getvalue()


ZIP, LEGACY = torch_bytes(), torch_bytes(_use_new_zipfile_serialization=False)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a.pth"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (POINTER, "is a Git LFS pointer instead of the file itself: run git lfs pull"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "is a web page (HTML)"),
        (b"\xef\xbb\xbf\n<HTML lang=en>", "is a web page (HTML)"),
        (b'{"error": "Repository not found"}', "is JSON (a server's answer?) instead of weights"),
        (b"Not Found\n", "is text instead of weights, starting with 'Not Found': download it again"),
        ("Zugriff verweigert: größer".encode(), "is text instead of weights"),
        (b"<?xml version='1.0'?><Code>AccessDenied</Code>", "is text instead of weights"),
        (b"\x1b[31mNo\x1b[0mthing", "starting with 'Nothing'"),
        (b"", "is empty: download it again"),
        (b"\0" * 500, "(500 bytes) is neither a safetensors nor a torch.save file"),
        (b"\x1f\x8b\x08" + b"x" * 50, "is compressed (gzip): unpack it first"),
        (b"best.pth".ljust(257, b"\0") + b"ustar  \0" + b"x" * 500, "is a tar archive: unpack it first"),
        (b"GGUF" + b"\0" * 50, "is a GGUF file"),
        (SAFE[: len(SAFE) // 2], f"is truncated: it has {len(SAFE) // 2:,} of {len(SAFE):,} bytes"),
        (SAFE[:60], "but its header alone"),
        (SAFE + b"x", "has 1 bytes too many"),
        (SAFE[:12] + b"\xff" * 9 + SAFE[21:], "has a damaged header"),
        (ZIP[: len(ZIP) // 2], f"is truncated ({len(ZIP) // 2:,} bytes"),
    ],
)
def test_weights(name, content, reason, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert reason in weights_fault(path)


def test_whole_weights(tmp_path):
    for content, kind in ((SAFE, "safetensors"), (ZIP, "torch"), (LEGACY, "torch")):
        path = tmp_path / "a"
        path.write_bytes(content)
        assert weights_fault(path) is None
        assert weights_kind(path) == kind
    for size in range(1, 400):  # a safetensors file starts with the length of its header
        path.write_bytes(save({"a" * size: torch.ones(1)}))
        assert weights_kind(path) == "safetensors"


def test_what_is_no_file(tmp_path):
    for fault_of in (weights_fault, json_fault):
        assert fault_of(tmp_path) == "is a folder instead of a file"
        assert fault_of(tmp_path / "nowhere") == "is missing"
        link = tmp_path / fault_of.__name__
        link.symlink_to(tmp_path / "nowhere")
        assert fault_of(link) == "is a link to a missing file"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (POINTER, "is a Git LFS pointer"),
        (b"<html>", "is a web page"),
        (b"", "is empty"),
        (b'{"a": 1', "is truncated or not JSON (Expecting"),
        (b"[]", "is JSON, but not an object: it starts with '[]'"),
        (b"null", "is JSON, but not an object"),
        (b"\x80\x02}q\x00.", "is binary instead of JSON"),
        ("{}".encode("utf-16"), "starts with a byte order mark"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark"),
    ],
)
def test_json(content, reason, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert reason in json_fault(path)
    path.write_text(json.dumps({"a": 1}))
    assert json_fault(path) is None


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["model/best.pth"], "is a zip archive of model/best.pth: unpack it first"),
        (["a/data.pkl", "a/constants.pkl", "a/code/a.py"], "is a TorchScript program, which is code, so it is not"),
        (["a/archive_format", "a/models/model.json"], "is a torch.export program: save the state dict of the model"),
    ],
)
def test_a_zip_of_other_things(names, reason, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    assert weights_fault(tmp_path / "a.pth").startswith(reason)


def test_what_is_said_of_an_error():
    reason = describe_loading_error(
        pickle.UnpicklingError(
            "Weights only load failed. \x1b[1mDo\x1b[0m ... Unsupported global: GLOBAL posix.system was"
        )
    )
    assert reason.startswith("contains more than tensors (posix.system), which could run code")
    assert (
        describe_loading_error(EOFError()) == "is truncated, damaged or in another format (EOFError): download it again"
    )


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0;2;0\x1b\\after", "after"),
        ("\x1b(Bplain\x1bc", "plain"),
        ("a\x08\x7f\rb\x00", "ab"),
        ("two\nlines\twith tabs\r\n", "two\nlines\twith tabs\n"),
        ("größer – 真", "größer – 真"),
    ],
)
def test_plain_text(reason, shown):
    assert plain_text(ValueError(reason)) == shown
