"""Which file is meant by the name of a published checkpoint, and the error if there is none."""

import pytest

from hf_gradalign.conversion import ConversionError, locate_checkpoint
from hf_gradalign.conversion.finding import choose, listed_files

GB = 1_000_000_000


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["README.md", "best.pth"], "best.pth"),
        (["best_0.pth", "best_1.pth", "dpda_ga_tcm_avg4.pth"], "dpda_ga_tcm_avg4.pth"),
        (["model.safetensors", "xlsr_1b.ckpt", "pytorch_model.bin"], "model.safetensors"),
        (["._best.pth", ".DS_Store", "best.pth"], "best.pth"),
        (["weights/best.ckpt", "weights/optimizer.pt", "rng_state_0.pth", "training_args.bin"], "weights/best.ckpt"),
    ],
)
def test_the_checkpoint_among_files(names, chosen):
    assert choose(dict.fromkeys(names, 7), "some/repo", "some/repo:FILE") == chosen


def test_several_or_none_are_listed_with_their_sizes():
    files = {"best_0.pth": 1_270_000_000, "best_1.pth": 12_500, "notes.txt": 12}
    text = r"some/repo has several checkpoints: name one of them, as some/repo:FILE\. It has: best_0\.pth \(1\.3 GB\), "
    with pytest.raises(ConversionError, match=text + r"best_1\.pth \(12\.5 kB\), notes\.txt \(12 bytes\)"):
        choose(files, "some/repo", "some/repo:FILE")
    with pytest.raises(ConversionError, match=r"has no checkpoint \(\.safetensors, .*\. It has: notes\.txt \(12 bytes"):
        choose({"notes.txt": 12}, "some/repo", "some/repo:FILE")
    assert listed_files({f"{number}.txt": GB for number in range(20)}).endswith("11.txt (1.0 GB) and 8 more")
    assert listed_files({}) == "nothing"


def test_files_and_folders(tmp_path):
    path = tmp_path / "best.pth"
    path.write_bytes(b"abc")
    (tmp_path / "README.md").touch()
    for source in (path, tmp_path):
        found = locate_checkpoint(str(source))
        assert (found.path, found.source, found.commit) == (path, "best.pth", None)
    assert found.listing == "README.md (0 bytes), best.pth (3 bytes)"
    with pytest.raises(ConversionError, match=rf"bset\.pth is not a file or folder\. Did you mean {path}\?"):
        locate_checkpoint(str(tmp_path / "bset.pth"))
    with pytest.raises(
        ConversionError, match=r"^runs/x\.ckpt is not a file or folder; name a checkpoint on the Hub as"
    ):
        locate_checkpoint("runs/x.ckpt")  # not asked on the Hub
    with pytest.raises(
        ConversionError, match=r"^https://hub\.co/me/x is an address: name a model on the Hub as org/repo"
    ):
        locate_checkpoint("https://hub.co/me/x")
