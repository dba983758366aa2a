"""Detectors that are trained from scratch by name, without a pretrained encoder."""

from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME, logging

from hf_gradalign.models.configuration_spoof_detector import RAW_WINDOW_SAMPLES, SpoofDetectorConfig

logger = logging.get_logger(__name__)

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "aasist": {},
    "aasist_l": {
        "channels": [32, 32, 24, 24, 24, 24],
        "graph_sizes": [24, 32],
        "pool_ratios": [0.4, 0.5, 0.7],
    },
}
"""Options of the head by name: AASIST and its light version AASIST-L on raw waveforms, with the published sizes."""


def architecture_config(name: str) -> SpoofDetectorConfig:
    """Return the configuration of an architecture in `ARCHITECTURES`, with its published window of 64,600 samples."""
    return SpoofDetectorConfig({"model_type": "sinc"}, "aasist", ARCHITECTURES[name], n_samples=RAW_WINDOW_SAMPLES)


def is_architecture(name: str | None) -> bool:
    """Return whether a model's name stands for an architecture that is trained from scratch.

    Such a name has no slash, unlike those on the Hub. To use a folder of that name, write `./aasist`. If there is one,
    a warning says so.

    Raises:
        ValueError: If there is also a folder of that name with a model, or the name is close to an architecture's name.
    """
    if name is None:
        return False
    folder = Path(name)
    if name not in ARCHITECTURES:
        meant = name.lower().replace("-", "_")
        if meant in ARCHITECTURES and not folder.exists():
            raise ValueError(f"there is no model {name}: to train this architecture from scratch, write {meant}")
        return False
    if any((folder / file).is_file() for file in (CONFIG_NAME, "adapter_config.json")):
        raise ValueError(
            f"{name} is an architecture to train from scratch, and also a folder here that contains a model: write "
            f"./{name} for the folder, or rename it to train from scratch"
        )
    if folder.is_dir():
        logger.warning_once(
            f"{name} is trained from scratch. The folder {name} is not used; to use it, write ./{name}."
        )
    return True
