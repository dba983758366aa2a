import pickle

import pytest
import torch
from safetensors.torch import save_file

from hf_gradalign.conversion import ConversionError, locate_checkpoint, read_state_dict, sha256_of

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
        {f"module.{name}": value for name, value in STATE.items()},
        {f"_orig_mod.module.{name}": value for name, value in STATE.items()},
        {f"module._orig_mod.{name}": value for name, value in STATE.items()},
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
    with pytest.raises(ConversionError, match=r"bytes\) is truncated or no checkpoint; get it again"):
        read_state_dict(path)


def test_nothing_is_executed(tmp_path, capsys):
    with (tmp_path / "a.pth").open("wb") as file:
        pickle.dump(Malicious(), file)
    torch.save({"a": torch.ones(1), "b": Malicious()}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(ConversionError):
            read_state_dict(tmp_path / name)
    assert "this ran" not in capsys.readouterr().out
    with pytest.raises(ConversionError, match="holds more than tensors, which could run code"):
        read_state_dict(tmp_path / "b.pth")


def test_no_state_dict(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(ConversionError, match="the checkpoint is a Tensor, not a state dict"):
        read_state_dict(tmp_path / "tensor.pth")
    torch.save({"epoch": 3, "a": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(ConversionError, match="entries that are no tensors: epoch"):
        read_state_dict(tmp_path / "more.pth")
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(ConversionError, match="it has no entries"):
        read_state_dict(tmp_path / "empty.pth")


def test_where_it_is(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"abc")
    assert locate_checkpoint(str(path)) == path
    assert sha256_of(path).startswith("ba7816bf")
    with pytest.raises(
        ConversionError, match=r"nowhere.pth is no file; a checkpoint on the Hub is written org/repo:filename"
    ):
        locate_checkpoint("nowhere.pth")
    with pytest.raises(ConversionError, match="is a folder, not a file"):
        locate_checkpoint(str(tmp_path))
