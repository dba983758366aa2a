"""Writes the model card of a training run: metadata for the Hub, and a text for people."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_gradalign.utils.plain_text import code_block, join_words, markdown_cell, markdown_text, shorten_local_paths

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TAGS = ["hf_gradalign", "audio-deepfake-detection", "anti-spoofing", "gradient-alignment", "speech"]
_METHOD_NAMES = {
    "none": "the mean",
    "pcgrad": "PCGrad",
    "gradvac": "GradVac",
    "cagrad": "CAGrad",
    "upgrad": "UPGrad",
    "dualproj": "DualProj",
    "mgda": "MGDA",
    "imtlg": "IMTL-G",
    "aligned_mtl": "Aligned-MTL",
    "fairgrad": "FairGrad",
    "krum": "Krum",
    "pcd": "PCD",
}


class SplitResult(TypedDict, total=False):
    """Results on one split of a corpus. Rates are fractions in [0, 1].

    Attributes:
        eer: Equal error rate over all clips.
        threshold: The score at the equal error rate.
        by_system: Equal error rate of each spoofing system against all bona fide clips.
        dataset_name: The corpus, if it is not the card's corpus.
        dataset_id: Its Hub id, if it is on the Hub.
    """

    eer: float
    threshold: float
    by_system: Mapping[str, float]
    dataset_name: str
    dataset_id: str | None


@dataclass(kw_only=True)
class ModelCardFacts:
    """What a training run knows about its model. Facts that are missing are left out of the card.

    Attributes:
        model_name: The model's name, which is the card's title.
        dataset_name: The corpus' readable name.
        repo_id: Where the model will be published. The code examples load it from there, or by `model_name` without
            one.
        base_model: The model that was fine-tuned (Hub id or local path). None if trained from scratch.
        dataset_id: The corpus' Hub id. None if it is not on the Hub.
        is_demo_corpus: Whether the corpus is the small one that ships with hf_gradalign.
        license: License of the weights, in the Hub's abbreviation, such as "apache-2.0".
        languages: Languages of the corpus (ISO 639).
        alignment_method: Name of the gradient alignment method. "none" for the mean of the views.
        alignment_options: The method's options.
        views: The augmentation of each view: the name of its recipe, or None for the unchanged clip. Empty if the
            training used no views.
        view_weights: Weight of each view. Defaults to 1.
        hyperparameters: Training settings, in the order of the card. None values are left out.
        results: Results by split, in the order of the card.
        conflict_rate: Share of the updates in which two views' gradients had a negative cosine, in [0, 1].
        conflict_rate_by_epoch: The conflict rate of each epoch.
        conflict_record: Path of the file with every update's cosine, norms, weights and losses, relative to the card.
        figures: Paths of its figures, relative to the card, and their captions.
        sampling_rate: The model's sampling rate in Hz.
        window_seconds: Length of the scored window in seconds.
        brings_code: Whether the model is saved with code, which transformers runs only on request.
        is_adapter: Whether only adapters are saved, which load with the base model.
        id2label: Names of the model's outputs.
        n_parameters: The number of the model's parameters.
        versions: Versions of the libraries, by name.
        command: The run's command line.

    Raises:
        ValueError: If a rate is not a fraction in [0, 1].
    """

    model_name: str
    dataset_name: str
    repo_id: str | None = None
    base_model: str | None = None
    dataset_id: str | None = None
    is_demo_corpus: bool = False
    license: str | None = None
    languages: Sequence[str] = ()
    alignment_method: str = "none"
    alignment_options: Mapping[str, Any] = field(default_factory=dict)
    views: Mapping[str, str | None] = field(default_factory=dict)
    view_weights: Mapping[str, float] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, SplitResult] = field(default_factory=dict)
    conflict_rate: float | None = None
    conflict_rate_by_epoch: Sequence[float] = ()
    conflict_record: str | None = None
    figures: Mapping[str, str] = field(default_factory=dict)
    sampling_rate: int = 16_000
    window_seconds: float | None = None
    brings_code: bool = False
    is_adapter: bool = False
    id2label: Mapping[int, str] = field(default_factory=lambda: {0: "spoof", 1: "bonafide"})
    n_parameters: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None

    def __post_init__(self) -> None:
        rates: dict[str, float | None] = {
            f"the conflict rate of epoch {i}": rate for i, rate in enumerate(self.conflict_rate_by_epoch, start=1)
        }
        rates["the conflict rate"] = self.conflict_rate
        for split, result in self.results.items():
            rates[f"the equal error rate on {split}"] = result.get("eer")
            for system, rate in result.get("by_system", {}).items():
                rates[f"the equal error rate of {system} on {split}"] = rate
        for what, rate in rates.items():
            if rate is not None and not 0 <= rate <= 1:
                raise ValueError(f"{what[0].upper()}{what[1:]} is {rate}: use a fraction in [0, 1], not percent.")


def write_model_card(folder: str | os.PathLike[str], facts: ModelCardFacts) -> Path:
    """Write a model card as README.md. Replaces an existing one.

    Args:
        folder: The model's folder. Created if missing.
        facts: What the run knows about the model.

    Returns:
        The path of the card.
    """
    card = ModelCard.from_template(
        _metadata(facts), template_path=str(_TEMPLATE), facts=facts, **_template_values(facts)
    )
    path = Path(folder) / constants.REPOCARD_NAME
    card = ModelCard(shorten_local_paths(str(card)))
    card.save(path)
    return path


def _metadata(facts: ModelCardFacts) -> ModelCardData:
    dataset_id = facts.dataset_id if _is_hub_id(facts.dataset_id) else None
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech deepfake detection",
            dataset_type=_dataset_type(facts, result),
            dataset_name=result.get("dataset_name", facts.dataset_name),
            dataset_split=split,
            metric_type="eer",
            metric_name="Equal error rate, a fraction in [0, 1]",
            metric_value=float(result["eer"]),
        )
        for split, result in _measured(facts).items()
    ]
    on_hub = _is_hub_id(facts.base_model)
    relation: dict[str, Any] = {"base_model_relation": "adapter"} if facts.is_adapter and on_hub else {}
    return ModelCardData(
        library_name="peft" if facts.is_adapter else "transformers",
        pipeline_tag="audio-classification",
        license=facts.license,
        language=list(facts.languages) or None,
        base_model=facts.base_model if on_hub else None,
        datasets=[dataset_id] if dataset_id else None,
        metrics=["eer"],
        tags=_TAGS,
        # Without results, the name would become a field that the Hub does not know.
        model_name=facts.model_name if results else None,
        eval_results=results or None,
        **relation,
    )


def _dataset_type(facts: ModelCardFacts, result: SplitResult) -> str:
    name, hub_id = result.get("dataset_name"), result.get("dataset_id")
    if name is None:
        name, hub_id = facts.dataset_name, facts.dataset_id
    return hub_id if hub_id and _is_hub_id(hub_id) else _slug(name)


def _template_values(facts: ModelCardFacts) -> dict[str, Any]:
    """Return the values for the template: numbers and names, formatted for people."""
    rows = []
    for split, result in _measured(facts).items():
        display = _cell(f"{split} ({result['dataset_name']})" if "dataset_name" in result else split)
        rows.append((display, "all", _percent(result["eer"])))
        rows += [(display, _cell(name), _percent(eer)) for name, eer in result.get("by_system", {}).items()]
    thresholds = {
        split: f"{result['threshold']:.3f}" for split, result in _measured(facts).items() if "threshold" in result
    }
    return {
        "title": markdown_text(facts.model_name),
        "load_from": json.dumps(facts.repo_id or facts.model_name),
        "base_model_name": facts.base_model and markdown_text(_display_name(facts.base_model)),
        "base_model_on_hub": _is_hub_id(facts.base_model),
        "dataset_name": markdown_text(facts.dataset_name),
        "dataset_on_hub": _is_hub_id(facts.dataset_id),
        "license": facts.license and markdown_text(facts.license),
        "method": markdown_text(_method_name(facts.alignment_method)),
        "options": markdown_text(
            ", ".join(f"{name}={value}" for name, value in facts.alignment_options.items() if value is not None)
        ),
        "views": markdown_text(join_words([_view(facts, name) for name in facts.views])),
        "weights_differ": bool(_weights(facts)),
        "n_views": _number(len(facts.views)),
        "times": {1: "once", 2: "twice"}.get(len(facts.views), f"{_number(len(facts.views))} times"),
        "uses_augmentation": any(recipe is not None for recipe in facts.views.values()),
        "uses_rawboost": any("rawboost" in (recipe or "").lower() for recipe in facts.views.values()),
        "window": f"{facts.window_seconds:g}" if facts.window_seconds else None,
        "millions": f"{facts.n_parameters / 1e6:.2f}" if facts.n_parameters else None,
        "outputs": markdown_text(", ".join(f"{index} = {name}" for index, name in sorted(facts.id2label.items()))),
        "result_rows": rows,
        "thresholds": {markdown_text(split): threshold for split, threshold in thresholds.items()},
        "conflict_rate": None if facts.conflict_rate is None else _percent(facts.conflict_rate),
        "conflict_rates": [_percent(rate) for rate in facts.conflict_rate_by_epoch],
        "figures": {quote(path): markdown_text(caption) for path, caption in facts.figures.items()},
        "settings": {_cell(k): _cell(v) for k, v in facts.hyperparameters.items() if v is not None},
        "command": facts.command and code_block(facts.command),
        "libraries": {_cell(k): _cell(v) for k, v in facts.versions.items() if v is not None},
    }


def _view(facts: ModelCardFacts, name: str) -> str:
    recipe, weights = facts.views[name], _weights(facts)
    details = [] if recipe == name or (recipe is None and name == "clean") else [recipe or "as it is"]
    details += [f"weight {weights[name]:g}"] if name in weights else []
    return f"{name} ({', '.join(details)})" if details else name


def _weights(facts: ModelCardFacts) -> dict[str, float]:
    """Return each view's weight. Empty if all are equal."""
    weights = {name: facts.view_weights.get(name, 1.0) for name in facts.views}
    return weights if len(set(weights.values())) > 1 else {}


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}.get(count, str(count))


def _measured(facts: ModelCardFacts) -> dict[str, SplitResult]:
    return {split: result for split, result in facts.results.items() if result.get("eer") is not None}


def _method_name(name: str) -> str:
    if name.startswith("crmogm(") and name.endswith(")"):
        return f"{_method_name(name[7:-1])}, its weights smoothed by CR-MOGM"
    return _METHOD_NAMES.get(name, name)


def _is_hub_id(name: str | None) -> bool:
    if not name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _display_name(model: str | None) -> str | None:
    # A path on the author's machine means nothing to others.
    return Path(model).name if model and not _is_hub_id(model) else model


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "corpus"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _cell(value: Any) -> str:
    """Format a value for a cell of a Markdown table."""
    if isinstance(value, float) and math.isfinite(value):
        value = f"{value:g}"
    return markdown_cell(value)
