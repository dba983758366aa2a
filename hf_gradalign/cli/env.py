"""Print versions, devices and optional packages, to paste into a bug report.

hf-gradalign env
"""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hf_gradalign
from hf_gradalign.cli.command_parser import CommandParser

NEEDED = (
    *(
        "torch",
        "torchaudio",
        "transformers",
        "datasets",
        "evaluate",
        "accelerate",
        "huggingface-hub",
        "audiomentations",
    ),
    *("soundfile", "av", "safetensors", "filelock", "scikit-learn", "scipy", "numpy", "pyyaml"),
)
OPTIONAL = (
    "triton",
    "torchjd",
    "peft",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "G722",
    "mamba-ssm",
    "optuna",
    "tensorboard",
    "gradio",
)


def main(argv: Sequence[str]) -> int:
    """Print the table and return the exit status."""
    CommandParser("env", __doc__).parse_args(argv)
    for name, value in describe().items():
        print(f"{name:<20}{value}")
    return 0


def describe() -> dict[str, str]:
    """Return what a bug report should contain, by name. It has no paths and no tokens."""
    facts = {
        "hf_gradalign": f"{hf_gradalign.__version__} ({_how_installed()})",
        "Python": platform.python_version(),
        "platform": platform.platform(),
        "CPU cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
    }
    facts |= {name: _version(name) for name in NEEDED}
    facts |= {name: _version(name) for name in OPTIONAL}
    return facts | _devices()


def _how_installed() -> str:
    is_clone = Path(hf_gradalign.__file__).parents[1].joinpath("pyproject.toml").is_file()
    return "a clone" if is_clone else "installed"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> dict[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"devices": f"torch cannot be imported: {error}"}
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("Apple GPU (MPS)")
    return {
        "torch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
        "devices": ", ".join(names) or "CPU only",
    }
