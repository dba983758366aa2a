import argparse
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_gradalign.conversion import ConversionError, read_state_dict
from hf_gradalign.conversion.reading import harmless_classes

STATE = {"a.weight": torch.ones(40, 3), "b": torch.arange(4)}


class Malicious:
    def __reduce__(self):
        return print, ("this ran",)


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[name], value) for name, value in STATE.items())


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"lr": 1.0}},
        {"state_dict": {"model": STATE}},
        {"model": {"architecture": "AASIST", "filts": {"first": 70}}, "state_dict": STATE},
        {"model": STATE, "best_eer": torch.tensor(0.03), "class_weights": torch.ones(2)},
        {"detector": STATE, "best_eer": torch.tensor(0.03)},
        {f"module.{name}": value for name, value in STATE.items()},
        {f"_orig_mod.module.{name}": value for name, value in STATE.items()},
        {f"module._orig_mod.{name}": value for name, value in STATE.items()},
        {f"_fsdp_wrapped_module.{name}": value for name, value in STATE.items()},
        {name.replace("a.", "a._orig_mod."): value for name, value in STATE.items()},
    ],
)
def test_wrappers(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth"))


def test_formats(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors"))
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(read_state_dict(tmp_path / "old.pt"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["new.pth", "old.pth", "a.safetensors"])
def test_truncated_files(share, kind, tmp_path):
    path = tmp_path / kind
    if kind == "a.safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "new.pth")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ConversionError, match=r"is (truncated|empty).*download it again"):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.safetensors"])
def test_suffix_does_not_affect_reading(name, tmp_path):
    save_file(STATE, tmp_path / name)
    assert same(read_state_dict(tmp_path / name))
    torch.save(STATE, tmp_path / name)
    assert same(read_state_dict(tmp_path / name))


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_git_lfs_pointer_and_a_web_page(name, tmp_path):
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"<html>", "web page"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConversionError, match=f"{name} is a .*{message}"):
            read_state_dict(tmp_path / name)


def run_at_import(*args):
    sys.stdout.write("this ran")


class MaliciousState:
    def __setstate__(self, state):
        sys.stdout.write("this ran")


def harmful():
    state = MaliciousState()
    state.a = 1
    return [Malicious(), state, run_at_import, functools.partial(print, "this ran"), os.system, eval]


@pytest.mark.parametrize("number", range(len(harmful())))
@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_executed(number, legacy, tmp_path, capsys):
    thing = harmful()[number]
    with (tmp_path / "a.pth").open("wb") as file:
        pickle.dump(thing, file)
    torch.save({"a": torch.ones(1), "b": thing}, tmp_path / "b.pth", _use_new_zipfile_serialization=not legacy)
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ConversionError) as raised:
            read_state_dict(tmp_path / name)
        assert "\x1b" not in str(raised.value)
    with pytest.raises(ConversionError, match=r"contains more than tensors.*, which could run code"):
        read_state_dict(tmp_path / "b.pth")
    assert "this ran" not in capsys.readouterr().out


HARMLESS = {
    "NumPy scalars": {
        "best_eer": np.float64(0.83),
        "step": np.int64(3),
        "lr": np.float32(1e-4),
        "done": np.bool_(True),
    },
    "NumPy text": {"name": np.str_("a"), "when": np.datetime64("2026-01-01")},
    "NumPy arrays": {
        "scores": np.arange(4.0),
        "names": np.array(["a", "bc"]),
        "of things": np.array([None, 1], object),
    },
    "NumPy random state": np.random.RandomState(0).get_state(),
    "namespace": argparse.Namespace(lr=1e-6, path=pathlib.Path("/data"), nested=argparse.Namespace(a=1)),
    "simple namespace": types.SimpleNamespace(a=[1, 2]),
    "paths": [pathlib.Path("a"), pathlib.PurePosixPath("b"), pathlib.PureWindowsPath("c")],
    "mappings": [collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.Counter("aab")],
    "a defaultdict of dicts": collections.defaultdict(dict, a={"b": torch.ones(1)}),
    "torch": [torch.float16, torch.Size([1]), torch.device("cpu"), torch.__version__, torch.get_rng_state()],
    "times": [
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        datetime.date(2026, 1, 2),
        datetime.timedelta(1),
        datetime.time(1),
    ],
    "python": [{1, 2}, frozenset([1]), 1j, b"x", bytearray(b"x"), 2**70],
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("legacy", [False, True])
def test_harmless_extras(kind, legacy, tmp_path):
    content = {"model": STATE, "epoch": 7, "more": HARMLESS[kind]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert same(read_state_dict(tmp_path / "a.pth"))
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # only allowed while loading


def test_classes_of_other_systems_and_versions():
    """Names from other versions of NumPy and Python, Windows and Lightning, which are not installed here."""

    def saved_under(module, name, thing, needs):
        data = pickle.dumps({"model": {"epoch": 1}, "more": thing}, protocol=2)
        assert needs in data
        return data.replace(needs, f"c{module}\n{name}\n".encode())

    path = f"c{pathlib.PurePosixPath.__module__}\nPurePosixPath\n".encode()
    cases = [
        ("numpy.core.multiarray", "scalar", np.float64(1), b"cnumpy._core.multiarray\nscalar\n"),
        ("pathlib._local", "PosixPath", pathlib.PurePosixPath("a"), path),
        ("pathlib", "WindowsPath", pathlib.PurePosixPath("a"), path),
        (
            "lightning_fabric.utilities.data",
            "AttributeDict",
            collections.defaultdict(int, a=1),
            b"ccollections\ndefaultdict\n",
        ),
    ]
    for module, name, thing, needs in cases:
        with torch.serialization.safe_globals(harmless_classes()):
            unpickler = torch._weights_only_unpickler.Unpickler(io.BytesIO(saved_under(module, name, thing, needs)))
            assert unpickler.load()["model"] == {"epoch": 1}


def test_a_changed_byte(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(40).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ConversionError, match=r"a\.pth is damaged: the checksum of a/data/0 is wrong; download it again"
    ):
        read_state_dict(path)
    torch.serialization.set_crc32_options(False)  # some files have no checksums
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(read_state_dict(path))


def test_several_state_dicts(tmp_path):
    torch.save({"generator": STATE, "discriminator": STATE}, tmp_path / "a.pth")
    assert set(read_state_dict(tmp_path / "a.pth")) == {
        f"{a}.{b}" for a in ("generator", "discriminator") for b in STATE
    }
    torch.save({"model": STATE, "ema": STATE, "step": 3, "config": {"ema": 0.9}}, tmp_path / "a.pth")  # which is it?
    assert set(read_state_dict(tmp_path / "a.pth")) == {f"{a}.{b}" for a in ("model", "ema") for b in STATE}
    torch.save({"detector": STATE, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, tmp_path / "a.pth")
    assert same(read_state_dict(tmp_path / "a.pth"))


def test_no_state_dict(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(ConversionError, match="the checkpoint is a Tensor, not a state dict"):
        read_state_dict(tmp_path / "tensor.pth")
    torch.save({"epoch": 3, "a": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(ConversionError, match="entries that are not tensors: epoch"):
        read_state_dict(tmp_path / "more.pth")
    torch.save({**STATE, "model": STATE}, tmp_path / "more.pth")  # which of the two?
    with pytest.raises(ConversionError, match="entries that are not tensors: model"):
        read_state_dict(tmp_path / "more.pth")
    torch.save({"a.weight": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(ConversionError, match=r"has sparse or quantized weights, but plain ones are needed: a\.weight"):
        read_state_dict(tmp_path / "sparse.pth")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ConversionError, match="it has no entries"):
        read_state_dict(tmp_path / "empty.pth")
