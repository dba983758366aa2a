"""Finds out which output of a model means bona fide, and reorders the outputs to spoof, bona fide."""

import hashlib
import inspect
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.feature_extraction_utils import FeatureExtractionMixin

from hf_gradalign.labels import canonical_label, normalize_label
from hf_gradalign.models.configuration_spoof_detector import ID2LABEL, LABEL2ID, WINDOW_SECONDS

_OTHER = {"spoof": "bonafide", "bonafide": "spoof"}


def output_labels(
    id2label: Mapping[int, str], label2id: Mapping[str, int] | None = None, bonafide_label: str | None = None
) -> tuple[str, ...]:
    """Return the meaning of each output of a model.

    Names may have any spelling known to `canonical_label`. One known name out of two is enough.

    Args:
        id2label: The model's labels by number, for one or two outputs.
        label2id: The reverse mapping of the model's configuration, used if `id2label` is not conclusive.
        bonafide_label: Name or number of the bona fide label, if the names are not conclusive; "none" for a model with
            one output that is higher for spoof.

    Returns:
        `spoof` or `bonafide` for each output, in order.

    Raises:
        ValueError: If the labels are not conclusive, or there is no such label.
    """
    names = [str(name) for _, name in sorted((int(number), name) for number, name in id2label.items())]
    listing = ", ".join(f"{number}: {name}" for number, name in enumerate(names))
    if len(names) > 2:
        raise ValueError(
            f"the model's labels are {listing}, and only models with one or two outputs can be scored: train it "
            "further with scripts/run_audio_spoof.py, which gives it outputs for spoof and bona fide"
        )
    if bonafide_label is not None:
        return _explicit_order(names, bonafide_label, listing)
    known = _order([_meaning(name) for name in names])
    reverse = {int(number): str(name) for name, number in (label2id or {}).items()}
    also = None
    if sorted(reverse) == list(range(len(names))):
        also = _order([_meaning(reverse[number]) for number in range(len(names))])
    if known and also and known != also:
        contrary = ", ".join(f"{number}: {name}" for number, name in sorted(reverse.items()))
        raise ValueError(
            f"the model's configuration contradicts itself: id2label says {listing}, and label2id {contrary}. Choose "
            "the output for bona fide speech with --bonafide_label 0 or --bonafide_label 1 (bonafide_label in Python)"
        )
    if order := known or also:
        return order
    if len(names) == 1:
        raise ValueError(
            f"cannot tell whether the model's only output ({listing}) is higher for bona fide speech or for spoof: "
            f"pass --bonafide_label {shlex.quote(names[0])} or --bonafide_label none (bonafide_label in Python)"
        )
    raise ValueError(
        f"cannot tell which of the model's labels ({listing}) is bona fide speech and which is spoof: choose with "
        "--bonafide_label 0 or --bonafide_label 1 (bonafide_label in Python)"
    )


def put_in_order(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin, order: tuple[str, ...]) -> str:
    """Reorder a model's outputs to spoof (0) and bona fide (1) without changing its scores.

    Swaps the rows of the layer that computes the logits. A single output z becomes two, -z/2 and z/2. The layer is not
    guessed from names. It is the layer whose change has this effect on the logits of noise.

    Args:
        model: A classifier with the outputs `order`. Changed in place, with its labels and class weights.
        feature_extractor: Its feature extractor.
        order: The order from `output_labels`.

    Returns:
        Name of the layer; empty if the order was already right.

    Raises:
        ValueError: If no layer has this effect, or more than one.
    """
    changed = ""
    if order != tuple(LABEL2ID):
        changed, layer = _find_last_layer(model, feature_extractor, order)
        before = digest_of_layer(model, changed)
        _replace_rows(layer, order)
        calibration = getattr(model.config, "calibration", None)
        if calibration and calibration.get("layer_sha256") == before:  # a calibration that was folded into this layer
            model.config.calibration = {
                **calibration,
                "outputs": list(LABEL2ID),
                "layer_sha256": digest_of_layer(model, changed),
            }
        module = model.get_submodule(changed)
        if hasattr(module, "out_features"):
            cast(nn.Linear, module).out_features = len(ID2LABEL)
        weights = getattr(model.config, "class_weights", None)
        if len(order) == 2 and weights:
            model.config.class_weights = list(reversed(weights))
    model.config.id2label, model.config.label2id = dict(ID2LABEL), dict(LABEL2ID)
    if len(order) == 1:
        model.config.problem_type = None  # transformers treats one label as regression
        if hasattr(model, "num_labels"):
            cast(Any, model).num_labels = len(ID2LABEL)  # a plain attribute of each classifier
    return changed


def _explicit_order(names: list[str], bonafide_label: str, listing: str) -> tuple[str, ...]:
    if len(names) == 1 and bonafide_label == "none":
        return ("spoof",)
    numbers = [number for number, name in enumerate(names) if name == bonafide_label]
    wanted = normalize_label(bonafide_label)
    numbers = numbers or [number for number, name in enumerate(names) if normalize_label(name) == wanted]
    numbers = numbers or [number for number in range(len(names)) if str(number) == bonafide_label]
    if not numbers:
        raise ValueError(f"the model has no label {bonafide_label!r}; its labels are {listing}")
    if len(numbers) > 1:
        raise ValueError(
            f"both of the model's labels are {bonafide_label!r}: pass its number, 0 or 1, as --bonafide_label"
        )
    return tuple("bonafide" if number == numbers[0] else "spoof" for number in range(len(names)))


def _meaning(name: str) -> str | None:
    """Return what a label's name means. It may include a number or a second name: "0_real", "bona fide (real)"."""
    parts = [part.strip(" -_.") for part in re.split(r"[()\[\]/,;:|]|\d+", name)]
    meanings = {canonical_label(part) for part in parts if part}
    return meanings.pop() if len(meanings) == 1 else None


def _order(meanings: list[str | None]) -> tuple[str, ...] | None:
    if len(meanings) == 1:
        return None if meanings[0] is None else (meanings[0],)
    if len(meanings) != 2:
        return None
    first, second = meanings
    first = first or _OTHER.get(second or "")
    second = second or _OTHER.get(first or "")
    return None if first is None or second is None or first == second else (first, second)


@torch.no_grad()
def logits_of_noise(model: PreTrainedModel, feature_extractor: FeatureExtractionMixin) -> Tensor:
    """Return a model's logits (1, outputs) for noise, in evaluation mode and before a calibration that it applies."""
    extract = cast(Any, feature_extractor)  # its base class has neither a sampling rate nor a call
    rate = extract.sampling_rate
    noise = np.random.default_rng(0).normal(0, 0.1, (round(WINDOW_SECONDS * rate),)).astype(np.float32)
    inputs = extract(noise, sampling_rate=rate, return_tensors="pt").to(model.device)
    if "raw_logits" in inspect.signature(model.forward).parameters:
        inputs["raw_logits"] = True
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):  # some encoders draw random numbers for layer drop even in evaluation
            return model(**inputs).logits
    finally:
        model.train(was_training)


def signs_of(order: tuple[str, ...], like: Tensor) -> Tensor:
    """Return 1 for a bona fide and -1 for a spoof output, shape (outputs,), with the type and device of a tensor."""
    return like.new_tensor([1.0 if name == "bonafide" else -1.0 for name in order])


def score_of(logits: Tensor, order: tuple[str, ...]) -> Tensor:
    """Return the scores (B,) of logits (B, outputs): bona fide minus spoof. A missing output counts as 0."""
    return (logits * signs_of(order, logits)).sum(1)


def digest_of_layer(model: nn.Module, name: str) -> str:
    """Return a SHA-256 of a layer's parameters in float32. If there is no such layer, it is the hash of no bytes."""
    digest = hashlib.sha256()
    layer = dict(model.named_modules()).get(name)
    for key, parameter in sorted(layer.named_parameters()) if layer is not None else ():
        digest.update(f"{key} {tuple(parameter.shape)}\n".encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _find_last_layer(
    model: PreTrainedModel, feature_extractor: FeatureExtractionMixin, order: tuple[str, ...]
) -> tuple[str, list[nn.Parameter]]:
    logits = logits_of_noise(model, feature_extractor)
    score = score_of(logits, order)
    fitting = []
    for name, layer in layers_of_rows(model, len(order)):
        before = [parameter.data for parameter in layer]
        _replace_rows(layer, order)
        try:
            after = logits_of_noise(model, feature_extractor)
        except RuntimeError:
            after = logits
        if after.shape == (len(logits), 2) and torch.allclose(after[:, 1] - after[:, 0], score, 1e-3, 1e-5):
            fitting.append((name, layer))
        for parameter, data in zip(layer, before, strict=True):
            parameter.data = data
    if len(fitting) != 1:
        candidates = ", ".join(name for name, _ in fitting) or "none"
        raise ValueError(
            f"the outputs of this {type(model).__name__} are {', '.join(order)}, and must be spoof, bonafide. Swapping "
            f"the rows of one layer should do that; layers that do it: {candidates}. Swap the outputs yourself, or put "
            "a new head on the encoder with --head linear"
        )
    return fitting[0]


def layers_of_rows(model: nn.Module, n_rows: int) -> Iterator[tuple[str, list[nn.Parameter]]]:
    """Yield the modules whose parameters all have one row per output, last ones first."""
    owners: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        # A parametrized weight (weight norm) has its parts in separate modules.
        owner = name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
        owners.setdefault(owner, []).append(parameter)
    for name, parameters in reversed(owners.items()):
        if all(parameter.ndim and len(parameter) == n_rows for parameter in parameters):
            yield name, parameters


def _replace_rows(layer: list[nn.Parameter], order: tuple[str, ...]) -> None:
    for parameter in layer:
        parameter.data = _rows(parameter.data, order).contiguous()


def _rows(rows: Tensor, order: tuple[str, ...]) -> Tensor:
    if len(order) == 2:
        return rows.flip(0)
    half = rows / 2 if order[0] == "bonafide" else -rows / 2
    return torch.cat([-half, half])
