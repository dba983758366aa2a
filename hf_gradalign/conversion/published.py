"""The table of published detectors, from `published.yaml`: names, sources, licenses and published figures."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

_NONE_STATED = "none stated"
_TABLE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True, kw_only=True)
class PublishedDetector:
    """A published detector: the facts that are known without its weights.

    Attributes:
        name: The detector's name in the table.
        family: The detectors that it was published with.
        what: Encoder and head, in words.
        head: Name of the head.
        input: The part of a clip that is scored, and whether it is normalized.
        authors: The authors of the weights.
        repo: Its repository on the Hub, if it has one.
        files: Names of its file, or patterns (`*`) of names.
        sha256: First digits of the SHA-256 of its file, if known.
        source: Where the weights are, if not on the Hub.
        license: License of the weights, in the Hub's abbreviation; None if none is stated.
        license_note: Replaces "none stated" if it is not known whether there is a license.
        millions: Number of parameters in millions.
        training_data: The training data.
        results: Published results: (test set, equal error rate in percent, source).
        options: Options of `convert_state_dict` that shapes do not determine, where they are not the default.
        checked: Which facts were checked here.
        peculiarities: Further facts that users should know, one sentence each.
        bibtex: The work to cite.
    """

    name: str
    family: str
    what: str
    head: str
    input: str
    authors: str
    repo: str | None = None
    files: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()
    source: str | None = None
    license: str | None = None
    license_note: str = _NONE_STATED
    millions: float
    training_data: str
    results: tuple[tuple[str, float, str], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    checked: str
    peculiarities: tuple[str, ...] = ()
    bibtex: str | None = None

    @property
    def address(self) -> str:
        """Where the weights are."""
        return f"https://huggingface.co/{self.repo}" if self.repo else str(self.source)

    @property
    def loaded_as(self) -> str:
        """The name to pass to commands and functions as the model: the repository, or a path to the file."""
        return self.repo or f"path/to/{self.files[0].strip('*') if self.files else 'best.pth'}"

    @property
    def shown_license(self) -> str:
        """The license as an SPDX identifier, or that there is none."""
        return self.license.upper() if self.license else self.license_note

    def has_file(self, filename: str) -> bool:
        """Return whether a file's name (without folders) matches this detector's file."""
        return any(fnmatchcase(filename, pattern) for pattern in self.files)


@functools.cache
def published_detectors() -> tuple[PublishedDetector, ...]:
    """Return all published detectors of the table, in its order."""
    families = yaml.safe_load(_TABLE.read_text(encoding="utf-8"))
    return tuple(_detector(family, entry) for family in families for entry in family["detectors"])


def _detector(family: Mapping[str, Any], entry: Mapping[str, Any]) -> PublishedDetector:
    values = {**{name: value for name, value in family.items() if name != "detectors"}, **entry}
    measured = [
        (test_set, origin) for origin, test_sets in values.pop("results_from").items() for test_set in test_sets
    ]
    values["results"] = tuple(
        (test_set, eer, origin) for (test_set, origin), eer in zip(measured, values["results"], strict=True)
    )
    for name in ("files", "sha256", "peculiarities"):
        values[name] = tuple(values.get(name, ()))
    return PublishedDetector(**values)


def find_by_repo(repo: str) -> PublishedDetector | None:
    """Return the detector in a repository on the Hub, if the table has it."""
    return next((detector for detector in published_detectors() if detector.repo == repo), None)


def find_by_file(filename: str, sha256: str) -> PublishedDetector | None:
    """Return the detector in a file, if the table has it, by its hash or otherwise by its name.

    Args:
        filename: The file's name, without folders.
        sha256: Its hash.
    """
    by_hash = (d for d in published_detectors() if any(sha256.startswith(start) for start in d.sha256))
    by_name = (d for d in published_detectors() if d.repo is None and d.has_file(filename))
    return next(by_hash, None) or next(by_name, None)


def card_facts(detector: PublishedDetector) -> dict[str, Any]:
    """Return the facts about a detector, as arguments of `ConversionCardFacts`."""
    return {
        "title": f"{detector.name} for transformers",
        "head": detector.head,
        "source": f"{detector.repo}:{detector.files[0]}" if detector.repo else detector.address,
        "n_parameters": round(detector.millions * 1e6),
        "authors": detector.authors,
        "training_data": detector.training_data,
        "results": detector.results,
        "license": detector.license,
        "license_origin": "the license of the published weights, under which copies stay",
        "has_no_license": detector.license is None and detector.license_note == _NONE_STATED,
        "peculiarities": detector.peculiarities,
        "bibtex": detector.bibtex,
    }


def matching(words: Sequence[str] = ()) -> list[PublishedDetector]:
    """Return the detectors whose name, family, description, head, repository or files contain each word."""
    return [detector for detector in published_detectors() if all(_mentions(detector, word) for word in words)]


def _mentions(detector: PublishedDetector, word: str) -> bool:
    texts = (detector.name, detector.family, detector.what, detector.head, detector.repo or "", *detector.files)
    return any(word.casefold() in text.casefold() for text in texts)


def as_mapping(detector: PublishedDetector) -> dict[str, Any]:
    """Return a detector's entry for JSON."""
    return {item.name: getattr(detector, item.name) for item in fields(detector)}
