"""Results in a model card's metadata (`model-index`), beside whatever else the card says."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, constants
from huggingface_hub.repocard import metadata_load, metadata_save
from huggingface_hub.repocard_data import eval_results_to_model_index

from hf_gradalign.utils.plain_text import markdown_text

_NEW_CARD = """---
library_name: transformers
pipeline_tag: audio-classification
tags: [hf_gradalign, audio-deepfake-detection, anti-spoofing, speech]
---

# {name}

This model tells bona fide (human) speech from spoofed speech: synthesised, converted or otherwise faked.
"""


def add_results_to_card(folder: str | os.PathLike[str], model_name: str, results: Sequence[EvalResult]) -> Path:
    """Add results to a model card, in place of older ones of the same metric on the same split of the same data set.

    The rest of the metadata keeps its content and order, and the text is not touched. A folder without a card gets a
    short one.

    Args:
        folder: The model's folder.
        model_name: How the model is called in `model-index`, if it is not there yet.
        results: What to add.

    Returns:
        The path of the card.

    Raises:
        ValueError: If the card's metadata cannot be read.
    """
    path = Path(folder) / constants.REPOCARD_NAME
    draft = path.with_name(f"{path.name}.draft")
    if path.is_file():
        shutil.copyfile(path, draft)
    else:
        draft.write_text(_NEW_CARD.format(name=markdown_text(model_name)), encoding="utf-8")
    try:
        metadata = metadata_load(draft) or {}
        models = metadata.setdefault("model-index", [])
        entry = _entry(models, model_name)
        for block in eval_results_to_model_index(model_name, list(results))[0]["results"]:
            entry["results"] = _with(entry.get("results") or [], block)
        metadata_save(draft, metadata)
        os.replace(draft, path)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError) as error:
        draft.unlink()
        raise ValueError(f"the metadata of {path} cannot be read, and no result was added: {error}") from error
    return path


def _entry(models: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The model's entry, or the first one, which is the model's under an older name."""
    for entry in [*(entry for entry in models if entry.get("name") == name), *models]:
        return entry
    models.append({"name": name, "results": []})
    return models[-1]


def _with(blocks: Iterable[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """A model's results with a new block, from which other blocks of the same split lose the metrics that it has."""
    kept: list[dict[str, Any]] = []
    place: int | None = None
    replaced = {_metric(metric) for metric in new["metrics"]}
    for block in blocks:
        if _split(block) == _split(new):
            remaining = [metric for metric in block.get("metrics", []) if _metric(metric) not in replaced]
            if len(remaining) < len(block.get("metrics", [])):
                place = len(kept) if place is None else place
                if not remaining:
                    continue
                block = {**block, "metrics": remaining}
        kept.append(block)
    kept.insert(len(kept) if place is None else place, new)
    return kept


def _split(block: dict[str, Any]) -> tuple[Any, ...]:
    dataset = block.get("dataset", {})
    return block.get("task", {}).get("type"), dataset.get("type"), dataset.get("config"), dataset.get("split")


def _metric(metric: dict[str, Any]) -> tuple[Any, Any]:
    return metric.get("type"), metric.get("name")
