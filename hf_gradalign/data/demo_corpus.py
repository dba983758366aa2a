"""Where the demonstration corpus lies that ships inside the package (its README gives licences and attribution)."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "demo_corpus"
_SPLITS = ("train", "validation", "test")


def demo_corpus_files() -> dict[str, str]:
    """The parquet file of each split: train, validation and test."""
    return {split: str(_FOLDER / f"{split}.parquet") for split in _SPLITS}
