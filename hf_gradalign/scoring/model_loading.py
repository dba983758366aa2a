"""Loads a trained classifier, and chooses the device and the numeric type for scoring."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.models import lacks_head, load_classifier, load_feature_extractor
from hf_gradalign.training.run_checkpoints import require_intact_model
from hf_gradalign.utils.messages import check_choice


def load_detector(
    name_or_path: str, *, feature_extractor: FeatureExtractionMixin | None = None, **hub_options: Any
) -> tuple[PreTrainedModel, FeatureExtractionMixin]:
    """Load a trained detector and its feature extractor.

    Nothing is replaced or guessed: missing weights are an error.

        model, feature_extractor = load_detector("nii-yamagishilab/xls-r-1b-anti-deepfake")

    Args:
        name_or_path: A Hub id or a folder with any model of `AutoModelForAudioClassification`, or a published
            checkpoint: a file, a folder with one, `org/repo` or `org/repo:filename` on the Hub. Published checkpoints
            are converted into a cache on first use (`HF_GRADALIGN_CACHE`, by default next to the Hub's cache).
        feature_extractor: Replaces the model's own.
        hub_options: `revision`, `token`, `cache_dir`, `trust_remote_code`; for a published checkpoint whose settings
            are not the published ones, `conversion_options` (options of `hf_gradalign.conversion.convert_state_dict`
            or of its head, such as `{"num_attention_heads": 8}`).

    Returns:
        The model, in float32 and evaluation mode, and the feature extractor.

    Raises:
        OSError: If there is no such model, a file is broken, or a checkpoint's file has changed since it was saved.
        ValueError: If the model is not an audio classifier, is a checkpoint that cannot be converted (the message lists
            what was found), or lacks weights, like an encoder that was never trained to classify.
    """
    require_intact_model(name_or_path)
    model, random = load_classifier(name_or_path, hub_options, ignore_mismatched_sizes=True)
    extractor = feature_extractor or load_feature_extractor(name_or_path, hub_options)
    if lacks_head(name_or_path, model, random):
        absent, wanted = sorted(random), type(model).__name__
        saved_as = (model.config.architectures or [wanted])[0]
        reason = "is not a trained classifier"
        if saved_as != wanted:
            reason = f"was saved as a {saved_as}, which has another head or none"
        raise ValueError(
            f"{name_or_path} lacks {len(absent)} weights of a {wanted} ({', '.join(absent[:3])}, ...). "
            f"It {reason}, and scores from random weights mean nothing. Train it with "
            f"scripts/run_audio_spoof.py --model_name_or_path {name_or_path}, or pass SpoofScorer the model itself"
        )
    return model.eval(), extractor


DType = Literal["float32", "bfloat16", "float16", "auto"]


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device after testing it with a tensor. For None, choose the accelerator, or the CPU if there is none.

    Raises:
        ValueError: If the device does not exist, or this build of torch cannot use it.
    """
    if device is None:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"cannot compute on the device {str(device)!r}: {reason}") from error


def resolve_dtype(dtype: DType, device: torch.device) -> str:
    """Resolve "auto" for a device: bfloat16 if its hardware supports it, float32 otherwise.

    Raises:
        ValueError: If the type is unknown, or the device does not support it.
    """
    check_choice("dtype", dtype, DType)
    if dtype == "float16" and device.type == "cpu":
        raise ValueError("dtype float16 needs an accelerator; use bfloat16 or float32 on the CPU")
    if dtype != "auto":
        return dtype
    if device.type != "cuda":
        return "float32"
    with torch.cuda.device(device):  # it answers for the current one
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def require_usable_weights(model: PreTrainedModel, dtype: str) -> None:
    """Check that the model can compute with float32 inputs. In half precision, `autocast` makes that possible.

    Raises:
        ValueError: If the model has weights of another type, and `dtype` is "float32".
    """
    others = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    if dtype == "float32" and others:
        half = "".join(f", or dtype={name!r}" for name in sorted(others & set(get_args(DType))))
        raise ValueError(f"the model has weights in {', '.join(sorted(others))}: pass model.float(){half}")


def autocast(device: torch.device, dtype: str) -> AbstractContextManager:
    """Return a context in which a model computes in half precision. For "float32", the context has no effect."""
    return nullcontext() if dtype == "float32" else torch.autocast(device.type, dtype=getattr(torch, dtype))


def default_worker_count(device: torch.device) -> int:
    """Return how many loader workers keep a model busy on this machine.

    With an accelerator, this is one less than the number of cores, at most 12. On a CPU, which the model itself needs,
    it is at most 2, and with Apple's GPU too, because each worker on a Mac takes 320 MB. Several processes on a machine
    (`LOCAL_WORLD_SIZE`, as set by torchrun) share its cores.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    return min(2, cores) if device.type in ("cpu", "mps") else min(12, max(1, cores - 1))
