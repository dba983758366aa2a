"""The README of a published model: metadata for the Hub, and what a person needs to know, from what the run knows."""

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

from hf_gradalign.hub.publishing import without_local_paths
from hf_gradalign.utils.plain_text import code_block, markdown_cell, markdown_text

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
    """What was measured on one split of a corpus; rates are fractions in [0, 1].

    Attributes:
        eer: Equal error rate over all clips.
        threshold: The score at which it was found.
        by_system: Equal error rate of each spoofing system against all bona fide clips.
        dataset_name: The corpus, where it is not the one of the card.
        dataset_id: Its Hub id, if it is on the Hub.
    """

    eer: float
    threshold: float
    by_system: Mapping[str, float]
    dataset_name: str
    dataset_id: str | None


@dataclass(kw_only=True)
class ModelCardFacts:
    """What a training run knows of its model. Whatever is left out is left out of the card.

    Attributes:
        model_name: Name of the model, its title.
        dataset_name: Name of the corpus, for people.
        repo_id: Where the model is to be published; the code examples load it from there (else by its name).
        base_model: Model that was fine-tuned (Hub id or local path), None if trained from scratch.
        dataset_id: Hub id of the corpus, None if it is not on the Hub.
        is_demo_corpus: Whether the corpus is the small one that ships with hf_gradalign.
        license: Licence of the weights as the Hub abbreviates it, such as "apache-2.0".
        languages: Languages of the corpus (ISO 639).
        alignment_method: Name of the gradient alignment method, "none" for the mean of the views.
        alignment_options: The method's options.
        views: What each view heard, by the view's name: the name of its recipe, None for the clip as it is. Empty if
            clips were seen as they are and in no views.
        view_weights: How much each view counted, by name; 1 where nothing is said.
        hyperparameters: Training settings, in the order to show them; None values are left out.
        results: Results by split, in the order to show them.
        conflict_rate: Share of the updates in which two views' gradients had a negative cosine, a fraction in [0, 1].
        conflict_rate_by_epoch: The same of each epoch.
        conflict_record: Path of the file with every update's cosine, norms, weights and losses, relative to the card.
        figures: Paths of images of it, relative to the card, and what each shows.
        sampling_rate: Sampling rate that the model expects, in Hz.
        window_seconds: Length of the window that is scored, in seconds.
        brings_code: Whether the model's code comes with it, which transformers runs on request only.
        id2label: Names of the model's outputs.
        n_parameters: Number of the model's parameters.
        versions: Versions of the libraries, by name.
        command: Command line of the run.

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
                raise ValueError(f"{what[0].upper()}{what[1:]} is {rate}: give a fraction in [0, 1], not per cent.")


def write_model_card(folder: str | os.PathLike[str], facts: ModelCardFacts) -> Path:
    """Write a model card as README.md, over one that is there.

    Args:
        folder: Where the model is saved; created where it is missing.
        facts: What the run knows.

    Returns:
        The path of the card.
    """
    card = ModelCard.from_template(_metadata(facts), template_path=str(_TEMPLATE), facts=facts, **_wording(facts))
    path = Path(folder) / constants.REPOCARD_NAME
    card = ModelCard(without_local_paths(str(card)))
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
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification",
        license=facts.license,
        language=list(facts.languages) or None,
        base_model=facts.base_model if _is_hub_id(facts.base_model) else None,
        datasets=[dataset_id] if dataset_id else None,
        metrics=["eer"],
        tags=_TAGS,
        # Without results, the name would be written as a field that the Hub does not know.
        model_name=facts.model_name if results else None,
        eval_results=results or None,
    )


def _dataset_type(facts: ModelCardFacts, result: SplitResult) -> str:
    name, hub_id = result.get("dataset_name"), result.get("dataset_id")
    if name is None:
        name, hub_id = facts.dataset_name, facts.dataset_id
    return hub_id if hub_id and _is_hub_id(hub_id) else _slug(name)


def _wording(facts: ModelCardFacts) -> dict[str, Any]:
    """What the template shows and cannot work out for itself: numbers and names made fit for people."""
    rows = []
    for split, result in _measured(facts).items():
        shown = _cell(f"{split} ({result['dataset_name']})" if "dataset_name" in result else split)
        rows.append((shown, "all", _per_cent(result["eer"])))
        rows += [(shown, _cell(name), _per_cent(eer)) for name, eer in result.get("by_system", {}).items()]
    thresholds = {
        split: f"{result['threshold']:.3f}" for split, result in _measured(facts).items() if "threshold" in result
    }
    return {
        "title": markdown_text(facts.model_name),
        "load_from": json.dumps(facts.repo_id or facts.model_name),
        "base_model_name": facts.base_model and markdown_text(_shown_name(facts.base_model)),
        "base_model_on_hub": _is_hub_id(facts.base_model),
        "dataset_name": markdown_text(facts.dataset_name),
        "dataset_on_hub": _is_hub_id(facts.dataset_id),
        "license": facts.license and markdown_text(facts.license),
        "method": markdown_text(_method_name(facts.alignment_method)),
        "options": markdown_text(
            ", ".join(f"{name}={value}" for name, value in facts.alignment_options.items() if value is not None)
        ),
        "views": markdown_text(_listed([_view(facts, name) for name in facts.views])),
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
        "conflict_rate": None if facts.conflict_rate is None else _per_cent(facts.conflict_rate),
        "conflict_rates": [_per_cent(rate) for rate in facts.conflict_rate_by_epoch],
        "figures": {quote(path): markdown_text(shown) for path, shown in facts.figures.items()},
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
    """Each view's weight, where not all count alike."""
    weights = {name: facts.view_weights.get(name, 1.0) for name in facts.views}
    return weights if len(set(weights.values())) > 1 else {}


def _listed(words: Sequence[str]) -> str:
    *first, last = words or [""]
    return f"{', '.join(first)} and {last}" if first else last


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


def _shown_name(model: str | None) -> str | None:
    # Where on the author's machine a model lay says nothing to others.
    return Path(model).name if model and not _is_hub_id(model) else model


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "corpus"


def _per_cent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _cell(value: Any) -> str:
    """Text that does not break a Markdown table."""
    if isinstance(value, float) and math.isfinite(value):
        value = f"{value:g}"
    return markdown_cell(value)
