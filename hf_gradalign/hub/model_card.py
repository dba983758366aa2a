"""The README of a published model: metadata for the Hub, and what a person needs to know, from what the run knows."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import EvalResult, ModelCard, ModelCardData, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TAGS = ["hf_gradalign", "audio-deepfake-detection", "anti-spoofing", "gradient-alignment", "speech"]
_METHOD_NAMES = {"pcgrad": "PCGrad", "gradvac": "GradVac", "cagrad": "CAGrad"}


class SplitResult(TypedDict, total=False):
    """What was measured on one split of a corpus; rates are fractions in [0, 1].

    Attributes:
        eer: Equal error rate over all clips.
        threshold: The score at which it was found.
        by_system: Equal error rate of each spoofing system against all bona fide clips.
    """

    eer: float
    threshold: float
    by_system: Mapping[str, float]


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
        augmentation: Name of the augmented view's transform, None if there was no such view.
        hyperparameters: Training settings, in the order to show them; None values are left out.
        results: Results by split, in the order to show them.
        conflict_rate: Share of the updates whose two gradients had a negative cosine, a fraction in [0, 1].
        conflict_rate_by_epoch: The same of each epoch.
        sampling_rate: Sampling rate that the model expects, in Hz.
        window_seconds: Length of the window that is scored, in seconds.
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
    augmentation: str | None = None
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, SplitResult] = field(default_factory=dict)
    conflict_rate: float | None = None
    conflict_rate_by_epoch: Sequence[float] = ()
    sampling_rate: int = 16_000
    window_seconds: float | None = None
    id2label: Mapping[int, str] = field(default_factory=lambda: {0: "spoof", 1: "bonafide"})
    n_parameters: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str | None = None

    def __post_init__(self) -> None:
        rates = {f"the conflict rate of epoch {i}": rate for i, rate in enumerate(self.conflict_rate_by_epoch, start=1)}
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
    card.save(path)
    return path


def _metadata(facts: ModelCardFacts) -> ModelCardData:
    dataset_id = facts.dataset_id if _is_hub_id(facts.dataset_id) else None
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech deepfake detection",
            dataset_type=dataset_id or _slug(facts.dataset_name),
            dataset_name=facts.dataset_name,
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


def _wording(facts: ModelCardFacts) -> dict[str, Any]:
    """What the template shows and cannot work out for itself: numbers and names made fit for people."""
    rows = []
    for split, result in _measured(facts).items():
        rows.append((_cell(split), "all", _per_cent(result["eer"])))
        rows += [(_cell(split), _cell(name), _per_cent(eer)) for name, eer in result.get("by_system", {}).items()]
    thresholds = {
        split: f"{result['threshold']:.3f}" for split, result in _measured(facts).items() if "threshold" in result
    }
    return {
        "load_from": facts.repo_id or facts.model_name,
        "base_model_name": _shown_name(facts.base_model),
        "base_model_on_hub": _is_hub_id(facts.base_model),
        "dataset_on_hub": _is_hub_id(facts.dataset_id),
        "method": _METHOD_NAMES.get(facts.alignment_method, facts.alignment_method),
        "options": ", ".join(f"{name}={value}" for name, value in facts.alignment_options.items() if value is not None),
        "uses_rawboost": "rawboost" in (facts.augmentation or "").lower(),
        "window": f"{facts.window_seconds:g}" if facts.window_seconds else None,
        "millions": f"{facts.n_parameters / 1e6:.2f}" if facts.n_parameters else None,
        "outputs": ", ".join(f"{index} = {name}" for index, name in sorted(facts.id2label.items())),
        "result_rows": rows,
        "thresholds": thresholds,
        "conflict_rate": None if facts.conflict_rate is None else _per_cent(facts.conflict_rate),
        "conflict_rates": [_per_cent(rate) for rate in facts.conflict_rate_by_epoch],
        "settings": {_cell(k): _cell(v) for k, v in facts.hyperparameters.items() if v is not None},
        "libraries": {_cell(k): _cell(v) for k, v in facts.versions.items() if v is not None},
    }


def _measured(facts: ModelCardFacts) -> dict[str, SplitResult]:
    return {split: result for split, result in facts.results.items() if result.get("eer") is not None}


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
    return " ".join(str(value).split()).replace("|", "\\|")
