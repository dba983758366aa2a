"""Fuses the scores of several systems into log-likelihood ratios by regularized logistic regression."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_gradalign.metrics import METRICS, fit_logistic
from hf_gradalign.metrics.functional.calibration import MIN_TRIALS
from hf_gradalign.score_files.clips import ScoreFileError
from hf_gradalign.utils.files import write_text_atomically
from hf_gradalign.utils.settings_files import read_settings

L2_PER_TRIAL = 0.1
"""The default penalty, times the number of clips of the smaller class."""
_FEW_TRIALS = 50
# Systems whose scores correlate more than this are the same up to a scale and rounding.
_SAME = 1 - 1e-6


@dataclass(frozen=True)
class FusedSystem:
    """The part of one system in a fusion.

    Attributes:
        name: The score file that its weight was fitted on.
        weight: The factor of the system's scores.
        lowest: The lowest score that the weight was fitted on.
        highest: The highest score that the weight was fitted on.
        sha256: The digest of the score file; None if there is none.
        higher_is: How the file was read; see `read_scores`.
        score_is: As for `higher_is`; "confidence" if the keys showed that scores are the confidence of predicted
            labels.
        scored_with: The model and the settings of the scores, if the JSON file next to them contains these.
        score_form: How the scores were made from those in the file (`Clips.score_form`); None if it is unknown.
    """

    name: str
    weight: float
    lowest: float
    highest: float
    sha256: str | None = None
    higher_is: str | None = None
    score_is: str | None = None
    scored_with: Mapping[str, Any] | None = None
    score_form: str | None = None


@dataclass(frozen=True)
class Fusion:
    """A weighted sum of the scores of several systems that is a log-likelihood ratio.

    Attributes:
        systems: The systems, in the order of their scores.
        offset: The offset added to the weighted scores, in nats.
        prior: The prior probability of bona fide clips in the fit. It is not part of the ratios.
        l2: The strength of the penalty in the fit.
        n_bonafide: The number of bona fide clips that were fitted on.
        n_spoof: The number of spoofed clips that were fitted on.
        provenance: Further facts about the fit, for JSON: files, date and results.

    Raises:
        ValueError: If there are fewer than two systems, or a number is not finite.
    """

    systems: tuple[FusedSystem, ...]
    offset: float
    prior: float
    l2: float
    n_bonafide: int
    n_spoof: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.systems) < 2:
            raise ValueError(f"A fusion needs at least two systems, not {len(self.systems)}.")
        numbers = [self.offset, *(number for s in self.systems for number in (s.weight, s.lowest, s.highest))]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("The weights, the offset and the range of the scores of a fusion must be finite.")

    @property
    def names(self) -> list[str]:
        """The names of the systems, in the order of their scores."""
        return [system.name for system in self.systems]

    @property
    def weights(self) -> NDArray[np.float64]:
        """The factors of raw scores, shape (systems,)."""
        return np.array([system.weight for system in self.systems])

    def __call__(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Fuse raw scores, shape (clips, systems), into log-likelihood ratios (natural logarithm), shape (clips,).

        Raises:
            ValueError: If there is not one column per system, or a score is not finite.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(self.systems):
            raise ValueError(
                f"The fusion has {len(self.systems)} systems, so scores must have the shape (clips, "
                f"{len(self.systems)}), not {scores.shape}."
            )
        if not np.isfinite(scores).all():
            raise ValueError("Some scores are NaN or infinite. Score these clips again, or leave them out.")
        return scores @ self.weights + self.offset

    def as_dict(self) -> dict[str, Any]:
        """Return the fusion for JSON."""
        numbers = {name: getattr(self, name) for name in ("offset", "prior", "l2", "n_bonafide", "n_spoof")}
        return {"systems": [asdict(system) for system in self.systems], **numbers, **self.provenance}

    def save(self, path: str | Path) -> None:
        """Write the fusion as JSON, atomically."""
        write_text_atomically(path, json.dumps(self.as_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Fusion:
        """Read a fusion that `save` wrote.

        Raises:
            ScoreFileError: If the file does not exist or is not a fusion.
        """
        if not Path(path).is_file():
            raise ScoreFileError(f"There is no file {path}. Pass the fusion.json of an earlier fit.")
        try:
            return _from_content(read_settings(path))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
            raise ScoreFileError(
                f"{path} is not a fusion.json from hf-gradalign fuse: {reason}. Pass such a file, or fit again."
            ) from error


def fit_fusion(
    scores: ArrayLike,
    labels: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    prior: float = 0.5,
    l2: float | None = None,
) -> Fusion:
    """Fit a fusion to clips with labels, by prior-weighted logistic regression (`fit_logistic`) with a penalty.

    Scores are standardized internally, so the fusion does not depend on their units or their sign. The returned weights
    are for raw scores. The penalty keeps weights finite if the classes are separated or systems are the same.

    Args:
        scores: Finite scores of at least two systems, shape (clips, systems).
        labels: 1 bona fide and 0 spoof, shape (clips,).
        names: The names of the systems; by default their numbers from 1.
        prior: The prior probability of bona fide clips near which ratios should be best, in (0, 1).
        l2: The strength of the penalty, as in `fit_logistic`. The default is 0.1 divided by the number of clips of the
            smaller class. In simulations with 40 to 10,000 clips, 2 or 6 systems and equal error rates of 1 to 20 %,
            this was close to the best value between 0 and 0.1 on new clips.

    Warns:
        UserWarning: If a weight is negative, systems are the same or depend on each other, the fused scores separate
            the classes, or a class has fewer than 50 clips.

    Raises:
        ValueError: If there is only one system, a class has fewer than 5 clips, or the scores of a system are not
            finite or all equal; as for `fit_logistic`.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(
            f"A fusion needs the scores of at least two systems, shape (clips, systems), not {scores.shape}. Scores of "
            "one system can be calibrated (fit_calibration)."
        )
    names = [f"system {number}" for number in range(1, scores.shape[1] + 1)] if names is None else list(names)
    if len(names) != scores.shape[1]:
        raise ValueError(f"There are {scores.shape[1]} systems but {len(names)} names. Give one name per system.")
    _require_usable(scores, names)
    weights, offset = fit_logistic(scores, labels, prior=prior, l2=_penalty(labels, l2))
    n_bonafide = int(np.count_nonzero(labels == 1))
    n_spoof = len(labels) - n_bonafide
    if min(n_bonafide, n_spoof) < MIN_TRIALS:
        raise ValueError(
            f"There are {n_bonafide} bona fide and {n_spoof} spoofed clips, too few for a fusion: use at least "
            f"{MIN_TRIALS} of each, better hundreds."
        )
    for warning in [
        *_few_trials(n_bonafide, n_spoof),
        *_dependent(scores, names),
        *_negative(weights, scores, labels, names),
        *_separated(scores @ weights, labels),
    ]:
        warnings.warn(warning, UserWarning, stacklevel=2)
    systems = tuple(
        FusedSystem(name, float(weight), float(own.min()), float(own.max()))
        for name, weight, own in zip(names, weights, scores.T, strict=True)
    )
    return Fusion(systems, offset, prior, _penalty(labels, l2), n_bonafide, n_spoof)


def fit_ratios(
    scores: NDArray[np.float64], labels: NDArray[np.int64], *, prior: float, l2: float | None, copies: int = 1
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Fit like `fit_fusion`, but without warnings and for any number of systems; return a function that fuses scores.

    Args:
        scores: Shape (clips, systems).
        labels: Shape (clips,).
        prior: See `fit_fusion`.
        l2: See `fit_fusion`.
        copies: Number of imaginary copies of each system. Copies share the system's weight, so the penalty on the
            squares is divided by their number.
    """
    weights, offset = fit_logistic(scores, labels, prior=prior, l2=_penalty(labels, l2) / copies)
    return lambda others: others @ weights + offset


def _penalty(labels: NDArray, l2: float | None) -> float:
    if l2 is not None:
        return l2
    return L2_PER_TRIAL / max(1, min(np.count_nonzero(labels == 1), np.count_nonzero(labels == 0)))


def _require_usable(scores: NDArray[np.float64], names: Sequence[str]) -> None:
    for name, own in zip(names, scores.T, strict=True):
        if n_bad := int(np.count_nonzero(~np.isfinite(own))):
            raise ValueError(
                f"{n_bad} of {len(own)} scores of {name} are NaN or infinite. Score these clips again, or leave them "
                "out."
            )
        if len(own) and np.ptp(own) == 0:
            raise ValueError(
                f"All scores of {name} are {own[0]:g}, so they carry no information. Leave this system out."
            )


def _few_trials(n_bonafide: int, n_spoof: int) -> list[str]:
    if min(n_bonafide, n_spoof) >= _FEW_TRIALS:
        return []
    return [f"The fusion is fitted on only {n_bonafide} bona fide and {n_spoof} spoofed clips, so it is uncertain."]


def _dependent(scores: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    correlation = np.corrcoef(scores.T)
    same = [
        f"The scores of {names[first]} and {names[second]} are the same up to a scale, so the fusion gains nothing "
        "from having both. The penalty divides the weight between them."
        for first, second in combinations(range(len(names)), 2)
        if abs(correlation[first, second]) > _SAME
    ]
    if same or np.linalg.eigvalsh(correlation)[0] > 1 - _SAME:
        return same
    return ["The scores of one system are a weighted sum of those of others, so the fusion gains nothing from it."]


def _negative(
    weights: NDArray[np.float64], scores: NDArray[np.float64], labels: NDArray, names: Sequence[str]
) -> list[str]:
    found = []
    for name, weight, own in zip(names, weights, scores.T, strict=True):
        if weight >= 0:
            continue
        start = f"The weight of {name} is negative ({weight:.4g})"
        if METRICS["roc_auc"](own, labels) < 0.5:
            found.append(
                f"{start}, because its scores are higher for spoofed than for bona fide clips. The fusion turns them "
                "around. Check that the labels and the direction of the scores (--higher_is) are as you expect."
            )
        else:
            found.append(
                f"{start}, although its scores are higher for bona fide clips. This happens if it adds little to the "
                "other systems, or if clips are few. Try the fusion without it."
            )
    return found


def _separated(fused: NDArray[np.float64], labels: NDArray) -> list[str]:
    if fused[labels == 1].min() <= fused[labels == 0].max():
        return []
    return [
        "The fused scores separate the bona fide from the spoofed clips, so the size of the weights follows from the "
        "penalty and not from errors. Fit on more or harder clips."
    ]


def _from_content(content: Any) -> Fusion:
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    own = {"systems", "offset", "prior", "l2", "n_bonafide", "n_spoof"}
    systems = tuple(
        FusedSystem(
            str(system["name"]),
            weight=_number(system, "weight"),
            lowest=_number(system, "lowest"),
            highest=_number(system, "highest"),
            **{name: _optional(system, name, str) for name in ("sha256", "higher_is", "score_is")},
            scored_with=_optional(system, "scored_with", dict),
            score_form=_optional({"score_form": None, **system}, "score_form", str),  # new in files of later versions
        )
        for system in content["systems"]
    )
    return Fusion(
        systems,
        offset=_number(content, "offset"),
        prior=_number(content, "prior"),
        l2=_number(content, "l2"),
        n_bonafide=int(_number(content, "n_bonafide")),
        n_spoof=int(_number(content, "n_spoof")),
        provenance={name: value for name, value in content.items() if name not in own},
    )


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number but {str(value)[:40]!r}")
    return float(value)


def _optional(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content[name]
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{name} is {str(value)[:40]!r}")
    return value
