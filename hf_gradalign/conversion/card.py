"""Saves a converted model with its card, which has the source, the conversion, and how to score with the model."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from huggingface_hub import ModelCard, ModelCardData, constants

from hf_gradalign.conversion.converting import ConversionReport
from hf_gradalign.models import WINDOW_SAMPLES, SpoofDetectorConfig, SpoofDetectorForAudioClassification
from hf_gradalign.utils.files import apply_default_mode
from hf_gradalign.utils.plain_text import code_span, markdown_text, shorten_local_paths

_TEMPLATE = Path(__file__).with_name("card_template.md")
_HEAD_SENTENCES = {
    "aasist": "A wav2vec 2.0 with an AASIST head (spectro-temporal graph attention, Jung et al. 2022).",
    "aasist_raw": "AASIST on raw waveforms (spectro-temporal graph attention, Jung et al. 2022).",
    "conformer_tcm": "A wav2vec 2.0 with a Conformer-TCM head (temporal-channel modeling, Truong et al. 2024).",
    "linear": "A speech encoder with a linear layer on its mean frame.",
    "mamba": "A wav2vec 2.0 with a dual-column bidirectional Mamba head (Xiao and Das 2024).",
    "nes2net": "A speech encoder with a Nes2Net head (nested Res2Net, Liu et al. 2025).",
    "sls": "A wav2vec 2.0 with an SLS head (sensitive layer selection, Zhang et al. 2024).",
}
_UNUSED_NORMS = "As in the published code, the first batch norm of each residual block is loaded but unused."
_HEAD_PECULIARITIES = {
    "aasist": _UNUSED_NORMS,
    "aasist_raw": _UNUSED_NORMS,
    "conformer_tcm": None,
    "mamba": "As in the published code, the last Mamba block of each direction is loaded but unused, and the backward "
    "residual is added to the features without being reversed.",
}
GIVEN_LICENSE = "as given to the converter"
CONVERTED_BY = "By `scripts/convert_checkpoint.py` of hf_gradalign"
"""What the card of every converted model says."""
_SCORES = {"logits": "logits[1]", "log-probabilities": "logits[1]", "a single logit": "logits[0]"}


@dataclass(kw_only=True)
class ConversionCardFacts:
    """The known facts about a converted model. The card says that the rest is unknown.

    Attributes:
        title: The card's title.
        head: Name of the head's layout.
        source: The checkpoint: a file, or `org/repo:filename`.
        load_from: The name or folder in the code example.
        n_parameters: Number of values in the model's parameters and buffers.
        n_samples: Length of the scored window in samples; None for whole clips.
        is_normalized: Whether clips are normalized to zero mean and unit variance.
        outputs: What the model returns: logits, log-probabilities or a single logit.
        report: Description of the conversion, as a paragraph of Markdown.
        authors: The authors of the weights.
        revision: The source's revision on the Hub.
        sha256: Hash of each converted file, by name.
        averaged: Number of checkpoints that the conversion averaged, if several.
        training_data: What the model was trained on.
        results: Published results: (test set, equal error rate in percent, source).
        largest_difference: Largest difference from reference logits, if checked.
        license: License of the weights, in the Hub's abbreviation.
        license_origin: Where the license is from, as the end of a sentence.
        has_no_license: Whether the authors state no license.
        peculiarities: Further facts that users should know about these weights, one sentence each.
        bibtex: The work to cite.
    """

    title: str
    head: str
    source: str
    load_from: str
    n_parameters: int
    n_samples: int | None = WINDOW_SAMPLES
    is_normalized: bool = False
    outputs: Literal["logits", "log-probabilities", "a single logit"] = "logits"
    report: str = ""
    authors: str | None = None
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    averaged: int | None = None
    training_data: str | None = None
    results: Sequence[tuple[str, float, str]] = ()
    largest_difference: float | None = None
    license: str | None = None
    license_origin: str = GIVEN_LICENSE
    has_no_license: bool = False
    peculiarities: Sequence[str] = ()
    bibtex: str | None = None

    def __post_init__(self) -> None:
        own = _HEAD_PECULIARITIES.get(self.head)
        if own is not None and own not in self.peculiarities:
            self.peculiarities = [*self.peculiarities, own]


def conversion_facts(report: ConversionReport, known: Mapping[str, Any], **facts: Any) -> ConversionCardFacts:
    """Collect the facts for a converted model's card.

    Args:
        report: The conversion's report.
        known: The facts from the table (`card_facts`), which replace `title` and `source`.
        facts: Further facts of `ConversionCardFacts`.
    """
    published = report.published
    layout: dict[str, Any] = {}
    if published.source:
        address = f"https://github.com/{published.source}"
        layout["license"], layout["has_no_license"] = published.license, published.license is None
        layout["license_origin"] = (
            f"the license of the weights of {published.name} ({address}), under which copies stay"
        )
        layout["peculiarities"] = [f"The checkpoint has the layout of {published.name} ({address})."]
    measured = {
        "head": report.head,
        "n_parameters": report.n_parameters,
        "report": f"{CONVERTED_BY}:\n\n```\n{report}\n```",
    }
    values: dict[str, Any] = {**layout, **facts, **known, **measured}
    return ConversionCardFacts(**values)


def save_converted(model: SpoofDetectorForAudioClassification, folder: Path, facts: ConversionCardFacts) -> None:
    """Save a converted model with its code, its feature extractor and its card.

    Args:
        model: From `convert_state_dict`.
        folder: A folder, which is created.
        facts: The known facts about the model. Facts from the configuration are added.
    """
    config = cast(SpoofDetectorConfig, model.config)
    facts.is_normalized = config.do_normalize
    facts.outputs = "log-probabilities" if config.head_options.get("log_probabilities") else "logits"
    if config.num_labels == 1:
        facts.outputs = "a single logit"
    model.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        apply_default_mode(weights)
    model.make_feature_extractor().save_pretrained(folder)
    write_conversion_card(folder, facts)


def write_conversion_card(path: str | os.PathLike[str], facts: ConversionCardFacts) -> Path:
    """Write the card of a converted model.

    Args:
        path: A file, or a folder in which to write README.md.
        facts: The known facts about the model.

    Returns:
        The path of the card.
    """
    path = Path(path)
    if path.is_dir():
        path = path / constants.REPOCARD_NAME
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification",
        license=facts.license,
        metrics=["eer"],
        tags=["hf_gradalign", "audio-deepfake-detection", "anti-spoofing", "speech", "custom_code"],
    )
    card = ModelCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        facts=facts,
        head_sentence=_HEAD_SENTENCES.get(facts.head, f"A detector with the head {facts.head}."),
        score="logits.softmax(0)[1]" if facts.head == "linear" else _SCORES[facts.outputs],
        millions=f"{facts.n_parameters / 1e6:.2f}",
        window=f"{facts.n_samples / 16_000:g}" if facts.n_samples else None,
        report=facts.report,
        title=markdown_text(facts.title),
        source=code_span(facts.source),
        revision=facts.revision and code_span(facts.revision),
        digests={code_span(name): digest for name, digest in facts.sha256.items()},
        load_from=json.dumps(facts.load_from),
        license=facts.license and markdown_text(facts.license),
    )
    card = ModelCard(shorten_local_paths(str(card)))
    card.save(path)
    return path
